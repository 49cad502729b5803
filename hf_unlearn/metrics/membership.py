"""Membership inference: scores that tell training rows from unseen ones, and how well they do."""

import math
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checks import Floats, divisor, number_rows, numbers, same_lengths, same_row_lengths, share, strings
from .description import MetricDescription
from .result import MetricResult, bootstrap, proportion, value_and_n

# Membership attacks by name; the suites' argument `attacks` chooses among them.
ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus", "reference", "gradient_norm")


def loss_scores(logps: Any) -> Floats:
    """Mean log-probability of each row's tokens, [N], in nats; higher is more like a member.

    Args:
        logps: N rows of token log-probabilities, lengths may differ.

    Raises:
        ValueError: no rows, or one without tokens.

    Paper: Yeom et al. 2018, https://arxiv.org/abs/1709.01604.
    """
    return np.array([row.mean() for row in number_rows("logps", logps)])


def zlib_scores(logps: Any, texts: Any) -> Floats:
    """Mean log-probability over the zlib-compressed size of the row's text in bytes, [N]; higher: more like a member.

    The negative of log-perplexity / zlib entropy: a text that is likely though it does not compress was seen before.

    Args:
        logps: N rows of token log-probabilities.
        texts: their N texts; an empty one still compresses to some bytes.

    Raises:
        ValueError: no rows, one without tokens, or lengths that differ.

    Paper: Carlini et al. 2021, https://arxiv.org/abs/2012.07805, section 5.1.
    """
    scores, written = loss_scores(logps), strings("texts", texts)
    same_lengths(logps=scores, texts=written)
    return scores / np.array([len(zlib.compress(text.encode("utf-8"))) for text in written])


def min_k_scores(logps: Any, k: float = 0.4) -> Floats:
    """Min-K%: mean of each row's lowest max(1, floor(k n)) token log-probabilities, [N]; higher: more like a member.

    The product k n is cut off in floating point, as the reference code does with int(k n). The default k is that of
    MUSE and OpenUnlearning; the papers use 0.2.

    Args:
        logps: N rows of token log-probabilities. A NaN in a row makes its score NaN.
        k: share of the n tokens, above 0 and up to 1.

    Raises:
        ValueError: no rows, one without tokens, or k out of range.

    Paper: Shi et al. 2024, https://arxiv.org/abs/2310.16789.
    """
    share("k", k, zero=False)
    return np.array([_lowest_mean(row, k) for row in number_rows("logps", logps)])


def min_k_plus_plus_scores(logps: Any, means: Any, deviations: Any, k: float = 0.4) -> Floats:
    """Min-K%++: `min_k_scores` of z = (logp - mean) / deviation, [N]; where the deviation is 0, z is 0.

    Args:
        logps: N rows of token log-probabilities.
        means: N rows, the mean of log p(v) over v ~ p at each position.
        deviations: N rows, its standard deviation.
        k: share of the tokens, above 0 and up to 1.

    Raises:
        ValueError: no rows, one without tokens, lengths that differ, or k out of range.

    Paper: Zhang et al. 2024, https://arxiv.org/abs/2404.02936.
    """
    share("k", k, zero=False)
    rows, centres, spreads = (
        number_rows(name, given) for name, given in (("logps", logps), ("means", means), ("deviations", deviations))
    )
    same_row_lengths("logps", rows, means=centres, deviations=spreads)
    return np.array(
        [
            _lowest_mean(_standardised(row - centre, spread), k)
            for row, centre, spread in zip(rows, centres, spreads, strict=True)
        ]
    )


def reference_scores(nll_per_token: Any, reference_nll_per_token: Any) -> Floats:
    """How much likelier each row is than under a reference model: reference NLL - own NLL, [N], nats per token.

    Args:
        nll_per_token: [N] mean nats per token under the model.
        reference_nll_per_token: [N] the same under a model that has not seen the rows.

    Raises:
        ValueError: no rows, or lengths that differ.

    Paper: Carlini et al. 2021, https://arxiv.org/abs/2012.07805, section 5.1.
    """
    own = numbers("nll_per_token", nll_per_token)
    reference = numbers("reference_nll_per_token", reference_nll_per_token)
    same_lengths(nll_per_token=own, reference_nll_per_token=reference)
    return reference - own


def gradient_norm_scores(norms: Any) -> Floats:
    """The negative gradient norm of each row, [N]: rows that were trained on have small gradients.

    Args:
        norms: [N] norms of the gradient of a row's loss.

    Raises:
        ValueError: no rows.
    """
    return -numbers("norms", norms)


def membership_auc(member_scores: Any, nonmember_scores: Any, *, seed: int = 0) -> MetricResult:
    """Probability that a member scores above a non-member, ties counted half: the area under the ROC curve.

    0.5: the scores tell nothing. Bootstrap interval over members and non-members, each on their own; n counts both. A
    NaN score makes value and ends NaN.

    Args:
        member_scores: [N] of forget rows, higher: more like a member.
        nonmember_scores: [M] of holdout rows.
        seed: of the resamples.

    Raises:
        ValueError: no members or no non-members.
    """
    from sklearn.metrics import roc_auc_score  # takes a third of a second, which training has no use for

    members, others = _both(member_scores, nonmember_scores)
    pooled = np.concatenate([members, others])
    if np.isnan(pooled).any():
        return MetricResult(math.nan, len(pooled), math.nan, math.nan, "bootstrap")
    # Only the order counts. Ranks, taken once, spare every resample its sort, and infinite scores have one too.
    levels, ranks = np.unique(pooled, return_inverse=True)

    def area(member_ranks: NDArray[Any], other_ranks: NDArray[Any]) -> float:
        of_members = np.bincount(member_ranks, minlength=len(levels))
        of_others = np.bincount(other_ranks, minlength=len(levels))
        below = np.cumsum(of_others) - of_others / 2
        return float(of_members @ below) / (len(member_ranks) * len(other_ranks))

    result = bootstrap(area, ranks[: len(members)], ranks[len(members) :], seed=seed)
    labels = np.repeat([1, 0], [len(members), len(others)])
    return replace(result, value=float(roc_auc_score(labels, ranks)))


def tpr_at_fpr(member_scores: Any, nonmember_scores: Any, fpr: float = 0.01) -> MetricResult:
    """Share of members found at few false alarms, with the Wilson interval over the members.

    The threshold is the lowest at which the share of non-members strictly above it is at most fpr; members strictly
    above it are found, ties are not. A NaN score makes value and ends NaN.

    Args:
        member_scores: [N] of forget rows, higher: more like a member; n is their number.
        nonmember_scores: [M] of holdout rows. Below 1 / fpr of them no false alarm at all is allowed.
        fpr: share of false alarms, 0 to 1.

    Raises:
        ValueError: no members or no non-members, or fpr out of range.

    Paper: Carlini et al. 2022, https://arxiv.org/abs/2112.03570.
    """
    share("fpr", fpr, zero=True)
    members, others = _both(member_scores, nonmember_scores)
    if np.isnan(members).any() or np.isnan(others).any():
        return MetricResult(math.nan, len(members), math.nan, math.nan, "wilson")
    # Shares are compared as shares: floor(0.29 * 100) would be 28.
    allowed = int(np.flatnonzero(np.arange(len(others) + 1) / len(others) <= fpr)[-1])
    threshold = -math.inf if allowed == len(others) else np.sort(others)[::-1][allowed]
    return proportion(members > threshold)


def privleak(auc: float | MetricResult, retrained_auc: float | MetricResult | None) -> MetricResult:
    """Privacy leakage against the retrained model, percent: 0 is good, below under-unlearnt, above over-unlearnt.

    100 ((1 - auc) - (1 - retrained_auc)) / (1 - retrained_auc). The paper's AUC is that of telling non-members, which
    is 1 - auc here. n is that of auc, 1 for a plain number. No interval.

    Args:
        auc: `membership_auc` of the unlearnt model; NaN makes the result NaN.
        retrained_auc: of the model retrained without the forget rows, on the same rows.

    Raises:
        ValueError: retrained_auc is missing, NaN or 1.

    Paper: MUSE, Shi et al. 2024, https://arxiv.org/abs/2407.06460, section 3.
    """
    (value, n), (retrained, _) = value_and_n("auc", auc), value_and_n("retrained_auc", retrained_auc)
    why = "privacy leakage is told in units of 1 - AUC of the retrained model"
    scale = divisor("retrained_auc", retrained, 1 - retrained, why)
    return MetricResult(100 * ((1 - value) - (1 - retrained)) / scale, n)


def relative_difference(value: float | MetricResult, baseline: float | MetricResult | None) -> MetricResult:
    """Difference from a baseline in percent of it: 100 (value - baseline) / |baseline|. n is that of value.

    Args:
        value: measured; NaN makes the result NaN.
        baseline: what it is compared with, of the same unit.

    Raises:
        ValueError: the baseline is missing, NaN, infinite or 0.
    """
    (measured, n), (base, _) = value_and_n("value", value), value_and_n("baseline", baseline)
    scale = divisor("baseline", base, abs(base), "the difference is told in percent of it")
    return MetricResult(100 * (measured - base) / scale, n)


def _both(member_scores: Any, nonmember_scores: Any) -> tuple[Floats, Floats]:
    return numbers("member_scores", member_scores), numbers("nonmember_scores", nonmember_scores)


def _standardised(differences: Floats, deviations: Floats) -> Floats:
    zeros = np.where(np.isnan(differences), np.nan, 0.0)
    return np.divide(differences, deviations, out=zeros, where=deviations != 0)


def _lowest_mean(row: Floats, k: float) -> float:
    count = max(1, math.floor(k * len(row)))
    if np.isnan(row).any():
        return math.nan  # a sort would put it last, out of sight
    return float(np.partition(row, count - 1)[:count].mean())


def _of_attack(name: str) -> tuple[MetricDescription, ...]:
    words = name.replace("_plus_plus", "++").replace("_", "-")
    auc = f"{name}_auc"
    return (
        MetricDescription(
            auc,
            f"membership AUC ({words})",
            "forget rows told from unseen rows; 0.5 is a guess",
            attack=name.replace("_", "-"),
        ),
        MetricDescription(
            f"{name}_tpr",
            f"membership TPR at 1% FPR ({words})",
            "share of forget rows found at 1% false alarms",
            "share",
        ),
        MetricDescription(
            f"{name}_privleak",
            f"privacy leak ({words}, percent)",
            "AUC against the oracle's: 0 as the oracle, below 0 under-, above 0 over-unlearnt",
            "percent",
            ".1f",
        ),
        MetricDescription(
            f"{auc}_relative_difference",
            f"membership AUC from the oracle's ({words}, percent)",
            "relative difference of the AUC from the oracle's",
            "percent",
            ".1f",
        ),
    )


DESCRIPTIONS = (
    *(description for attack in ATTACKS for description in _of_attack(attack)),
    MetricDescription(
        "published_privleak",
        "privacy leak, as published (percent)",
        "min-k AUC against that of the retrained model of MUSE's paper, which is a constant",
        "percent",
        ".1f",
    ),
)
