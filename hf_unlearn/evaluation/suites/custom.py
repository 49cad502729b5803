"""The suite of rows of one's own, on which the named suites build: forget, retain, in scope, out of scope, holdout."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Required, TypedDict, Unpack

from ...errors import input_error, nearest
from ...metrics import MetricDescription
from ...results.evaluation_result import EvaluationResult
from ..evidence import Evidence
from ..judges.judge import Judge
from ..suite import Suite, SuiteOutput, baseline, present
from .judged_group import leaks
from .metric_groups import (
    Metrics,
    length_warnings,
    likelihood_metrics,
    membership_metrics,
    membership_warnings,
    recall_metrics,
    row_nll,
    usable_attacks,
    wording_metrics,
    wording_warnings,
)
from .unseen_group import unseen_metrics

SETS = ("forget", "retain", "in_scope", "out_of_scope", "holdout")
HEADLINE = (
    "forget_accuracy",
    "in_scope_accuracy",
    "forget_nll",
    "retain_nll",
    "retain_accuracy",
    "out_of_scope_accuracy",
    "forget_extraction_strength",
    "min_k_auc",
    "min_k_privleak",
    "answer_perplexity",
    "broken_rate",
)
PAIR = ("forget_accuracy", "retain_accuracy")


class RowArguments(TypedDict, total=False):
    """The arguments of every suite over rows of one's own.

    Keys:
        forget: rows that the model is to forget, in any accepted format.
        retain: rows that it is to keep.
        in_scope: paraphrases of forget rows: the same asked in words that were not trained on.
        out_of_scope: neighbours of the forget rows that are to be kept (`hf_unlearn.data.scope`).
        holdout: rows like the forget rows that no model has seen; without them there is no membership attack.
        oracle: result of the suite on the model retrained without the forget rows, or its file.
        before: result of the suite on the model before unlearning, or its file.
        attacks: among `components.ATTACKS`; `reference` needs the oracle, `gradient_norm` a backward pass a row. The
            default are those that need neither.
        max_new_tokens: longest generated answer; None, the default, for the longest expected one, 256 tokens at most.
        max_length: longest row in tokens, the rest cut; None for no limit.
        template: of prompt/completion strings, as in UnlearningConfig.
        chat_template_kwargs: variables for the chat template, as in UnlearningConfig.
    """

    forget: Required[Any]
    retain: Required[Any]
    in_scope: Any
    out_of_scope: Any
    holdout: Any
    oracle: EvaluationResult | str | Path | None
    before: EvaluationResult | str | Path | None
    attacks: Sequence[str] | None
    max_new_tokens: int | None
    max_length: int | None
    template: str | None
    chat_template_kwargs: Mapping[str, Any] | None


def custom(*, judge: Judge | None = None, phrasing_of: str | None = None, **arguments: Unpack[RowArguments]) -> Suite:
    """What was forgotten and what was kept, on rows of one's own.

    Metrics, each of a set by its name: NLL, probability, exact memorisation and extraction strength of all sets;
    accuracy and ROUGE recall of the answers to all but holdout; wording of the answers to forget prompts; membership
    attacks of forget against holdout rows, and how near their losses are to each other's. With a judge also
    `leak_rate`, `in_scope_leak_rate`, `worst_leak_rate` and, of a judge that may fail, `judge_errors`.

    Args:
        judge: tells which answers reveal what was to be forgotten, as `language_model_judge(...)`.
        phrasing_of: column of `forget` and `in_scope` that says what a question is about, the same in all phrasings.
        arguments: `forget`, `retain` and what else `RowArguments` has.

    Raises:
        ValueError: an unknown argument, or a set or a result to compare with that is missing, empty or of another
            suite.
    """
    return leaking_suite("custom", arguments, HEADLINE, PAIR, judge, phrasing_of)


def leaking_suite(
    name: str,
    arguments: RowArguments,
    headline: tuple[str, ...],
    pair: tuple[str, str],
    judge: Judge | None,
    phrasing_of: str | None,
) -> Suite:
    """A suite over the sets of `custom`, with a judge's rates of leaks where there is one.

    Args:
        name, arguments, headline, pair: as of `row_suite`.
        judge, phrasing_of: as of `custom`.
    """
    if judge is None:
        return row_suite(name, arguments, headline, pair)
    shown = ("leak_rate", "worst_leak_rate", *headline, "judge_errors")
    return row_suite(name, arguments, shown, pair, more=leaks(judge, arguments, phrasing_of), judge=judge.name)


def row_suite(
    name: str,
    arguments: RowArguments,
    headline: tuple[str, ...],
    pair: tuple[str, str],
    *,
    more: Callable[[Evidence], SuiteOutput] | None = None,
    descriptions: tuple[MetricDescription, ...] = (),
    **settings: Any,
) -> Suite:
    """A suite over the sets of `custom`, with metrics of its own added.

    Args:
        name: of the suite.
        arguments: of the user.
        headline: metrics that a table shows first.
        pair: metrics of what was forgotten (lower is more) and of what was kept, which the verdict is about.
        more: metrics of the suite's own.
        descriptions: of those, where neither this package nor a plugin describes them.
        settings: what else makes two results comparable.
    """
    _require_known(name, arguments)
    given = present({set_name: arguments.get(set_name) for set_name in SETS}, ("forget", "retain"), name)
    retrained = baseline(arguments.get("oracle"), name, "oracle")
    used = usable_attacks(arguments.get("attacks"), given, retrained)

    def measure(evidence: Evidence) -> SuiteOutput:
        measured: Metrics = {}
        for set_name, rows in evidence.scored.items():
            measured |= likelihood_metrics(set_name, rows)
        for set_name, answers in evidence.answered.items():
            measured |= recall_metrics(set_name, answers)
        asked, own = evidence.answered["forget"], SuiteOutput({}) if more is None else more(evidence)
        measured |= wording_metrics(asked, evidence.vocabulary)
        if used:
            measured |= membership_metrics(evidence, used) | unseen_metrics(evidence)
        warnings = [*wording_warnings(asked, evidence.vocabulary), *length_warnings(evidence), *own.warnings]
        warnings += membership_warnings(measured, evidence.oracle, used)
        return SuiteOutput(measured | own.metrics, row_nll(evidence) | own.row_scores, warnings, own.run)

    return Suite(
        name=name,
        sets=given,
        measure=measure,
        answered=tuple(set_name for set_name in given if set_name != "holdout"),
        fluent=("forget",),
        gradient_norms=("forget", "holdout") if "gradient_norm" in used else (),
        vocabulary_statistics="min_k_plus_plus" in used,
        max_new_tokens=arguments.get("max_new_tokens"),
        max_length=arguments.get("max_length"),
        template=arguments.get("template"),
        chat_template_kwargs=arguments.get("chat_template_kwargs"),
        headline=headline,
        forget_metric=pair[0],
        utility_metric=pair[1],
        descriptions=descriptions,
        before=baseline(arguments.get("before"), name, "before"),
        oracle=retrained,
        settings=settings,
    )


def _require_known(name: str, arguments: RowArguments) -> None:
    for argument in arguments:
        if argument not in RowArguments.__annotations__:
            raise input_error(
                expected=f"arguments that the {name} suite has",
                got=repr(argument),
                why="it would have no effect",
                fix=nearest(argument, RowArguments.__annotations__),
            )
