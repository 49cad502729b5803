"""Truth ratio, forget quality and model utility as TOFU defines them, from likelihoods."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import input_error
from .checks import Floats, choice, number_rows, numbers, same_lengths
from .description import MetricDescription, of_sets
from .result import MetricResult, mean, value_and_n

_SETS = ("retain", "real_authors", "world_facts")
UTILITY_COMPONENTS = tuple(f"{rows}_{kind}" for rows in _SETS for kind in ("probability", "rouge", "truth_ratio"))


def truth_ratios(paraphrased_nll_per_token: Any, perturbed_nll_per_token: Any) -> Floats:
    """How much likelier each row's wrong answers are than its right one, [N].

    R_i = exp(paraphrased_nll_i - mean_k perturbed_nll_ik): the geometric mean of the perturbed answers' probabilities
    over the probability of the paraphrased right one. So does the reference code; the paper writes an arithmetic mean.

    Args:
        paraphrased_nll_per_token: [N] mean nats per token of the right answer, reworded.
        perturbed_nll_per_token: [N][K] the same of the wrong answers, K >= 1; it may differ by row.

    Raises:
        ValueError: no rows, a row without wrong answers, or lengths that differ.

    Paper: TOFU, Maini et al. 2024, https://arxiv.org/abs/2401.06121, equation 1.
    """
    right = numbers("paraphrased_nll_per_token", paraphrased_nll_per_token)
    wrong = number_rows("perturbed_nll_per_token", perturbed_nll_per_token)
    same_lengths(paraphrased_nll_per_token=right, perturbed_nll_per_token=wrong)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.exp(right - np.array([row.mean() for row in wrong]))


def truth_ratio(ratios: Any, *, variant: str) -> MetricResult:
    """Mean of the truth ratios, turned so that 1 is best.

    Args:
        ratios: [N] of `truth_ratios`.
        variant: "forget", mean min(R, 1 / R): right and wrong answers are equally likely; "utility",
            mean max(0, 1 - R): wrong answers are unlikely.

    Raises:
        ValueError: no rows, or another variant.

    Paper: TOFU, Maini et al. 2024, https://arxiv.org/abs/2401.06121, section 2.2.
    """
    values = numbers("ratios", ratios)
    if choice("variant", variant, ("forget", "utility")) == "utility":
        return mean(np.maximum(0, 1 - values))
    with np.errstate(divide="ignore", over="ignore"):  # 1 / R of the smallest ratios above 0 is infinite too
        return mean(np.minimum(values, 1 / values))


def forget_quality(ratios: Any, retrained_ratios: Any) -> MetricResult:
    """How alike unlearnt and retrained model are: p of the two-sample Kolmogorov-Smirnov test on their truth ratios.

    1: no difference was found. Below 0.05: the models differ. It falls with the number of rows, so compare it over
    equally many only. A NaN among the ratios makes it NaN. No interval.

    Args:
        ratios: [N] of `truth_ratios`, forget rows under the unlearnt model; n is their number.
        retrained_ratios: [M] the same under the model retrained without them.

    Raises:
        ValueError: no rows.

    Paper: TOFU, Maini et al. 2024, https://arxiv.org/abs/2401.06121, section 2.2.
    """
    return _kolmogorov_smirnov(ratios, retrained_ratios)[1]


def ks_distance(ratios: Any, retrained_ratios: Any) -> MetricResult:
    """The statistic of that test: the largest gap between the two distribution functions, 0 (same) to 1.

    Args and raises as of `forget_quality`.
    """
    return _kolmogorov_smirnov(ratios, retrained_ratios)[0]


def model_utility(components: Mapping[str, float | MetricResult]) -> MetricResult:
    """What is left of the model: the harmonic mean of nine values, so that one bad value cannot hide.

    Any NaN makes it NaN, else any 0 makes it 0. n is the number of rows of the three sets, each taken from the
    component of it that has most; plain numbers count as one row. No interval.

    Args:
        components: exactly those of UTILITY_COMPONENTS, each at least 0.

    Raises:
        ValueError: one is missing or unknown, below 0, or not a number.

    Paper: TOFU, Maini et al. 2024, https://arxiv.org/abs/2401.06121, section 2.2.
    """
    require_components(components)
    read = {name: value_and_n(name, components[name]) for name in UTILITY_COMPONENTS}
    for name, (value, _) in read.items():
        if value < 0:
            raise input_error(
                expected=f"{name} to be at least 0",
                got=f"{value:g}",
                why="a harmonic mean takes no negative values",
                fix="pass probabilities, ROUGE and truth ratios as shares from 0 to 1",
            )
    n = sum(max(rows for name, (_, rows) in read.items() if name.startswith(of)) for of in _SETS)
    values = np.array([value for value, _ in read.values()])
    if np.isnan(values).any():
        return MetricResult(math.nan, n)
    if (values == 0).any():
        return MetricResult(0.0, n)
    with np.errstate(over="ignore"):
        return MetricResult(float(len(values) / (1 / values).sum()), n)


def require_components(components: Mapping[str, object]) -> None:
    """Raise unless the names are exactly the nine of UTILITY_COMPONENTS."""
    if set(components) != set(UTILITY_COMPONENTS):
        missing = [name for name in UTILITY_COMPONENTS if name not in components]
        unknown = [str(name) for name in components if name not in UTILITY_COMPONENTS]
        raise input_error(
            expected="exactly the nine components of model utility",
            got="; ".join(
                f"{state} {', '.join(names)}" for state, names in (("no", missing), ("unknown", unknown)) if names
            ),
            why="a mean over other components is no model utility and compares with none",
            fix=f"pass {', '.join(UTILITY_COMPONENTS)}",
        )


def _kolmogorov_smirnov(ratios: Any, retrained_ratios: Any) -> tuple[MetricResult, MetricResult]:
    from scipy.stats import ks_2samp  # takes a quarter of a second, which training has no use for

    unlearned, retrained = numbers("ratios", ratios), numbers("retrained_ratios", retrained_ratios)
    test = ks_2samp(unlearned, retrained)
    return MetricResult(float(test.statistic), len(unlearned)), MetricResult(float(test.pvalue), len(unlearned))


DESCRIPTIONS = (
    *of_sets(
        "truth_ratio",
        "truth ratio",
        knowing=True,
        about="how much likelier right answers are than wrong ones; of forget rows, how alike they are",
        greater_is_better=True,
    ),
    MetricDescription(
        "model_utility",
        "model utility",
        "harmonic mean of probability, ROUGE and truth ratio of the sets that are to be kept",
        greater_is_better=True,
    ),
    MetricDescription(
        "forget_quality",
        "forget quality (KS p)",
        "p of the KS test between the truth ratios of the model and of the oracle",
        format=".3g",
        greater_is_better=True,
        rows="forget",
    ),
    MetricDescription(
        "ks_distance",
        "KS distance to the oracle",
        "largest gap between the distributions of truth ratios of the model and of the oracle",
        greater_is_better=False,
    ),
)
