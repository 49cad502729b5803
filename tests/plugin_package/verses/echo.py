"""A metric: how often an answer begins as the expected one does."""

from collections.abc import Sequence

from datasets import Value

from hf_unlearn.metrics import MetricDescription, MetricFunction, MetricResult, proportion, starts_like


def echo_rate(answers: Sequence[str], expected: Sequence[str]) -> MetricResult:
    """Share of answers that begin with the expected answer's first two words; Wilson interval."""
    return proportion([starts_like(answer, own, 2) for answer, own in zip(answers, expected, strict=True)])


ECHO_RATE = MetricFunction(
    echo_rate,
    {"predictions": Value("string"), "references": Value("string")},
    description=MetricDescription(
        "echo_rate",
        label="verses echoed",
        about="share of answers that begin as the forget rows do",
        unit="share",
        format=".0%",
        greater_is_better=False,
        rows="forget",
    ),
)
