"""Whether anything that was measured tells the forget rows from rows that the model has never seen."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..evaluation_result import EvaluationResult
from ..table import description_of
from .figures import Metric, ends, metric_of
from .words import list_words

FEWEST_ROWS = 40  # of either set: with fewer, intervals are so wide that they hold almost anything
_GUESS = 0.5
_DISTANCES = ("level_ks", "token_ks", "oracle_level_ks")
_ONE_SIDED = ("loss_features_auc",)  # of a fitted classifier an AUC below a guess is chance


@dataclass(frozen=True)
class NeverSeen:
    """What the losses of the forget rows say.

    Attributes:
        told: whether something tells them from rows never seen; None with too few rows to say.
        words: the same as a clause, with the figures or the numbers of rows.
        tells: by what, each with its figure.
    """

    told: bool | None
    words: str
    tells: tuple[str, ...] = ()


def never_seen(results: Mapping[str, EvaluationResult]) -> NeverSeen | None:
    """Of results that stand side by side; None where the suite measured no distance from unseen rows.

    Something tells where the 95% interval of an attack's AUC does not meet that of the oracle (without an oracle: does
    not hold the 0.5 of a guess), where a KS distance from unseen rows is above both what chance gives and the
    oracle's own, or where the distance from the oracle's losses of the same rows is above what chance gives.
    """
    after = results.get("after")
    if after is None or "level_ks" not in after.metrics:
        return None
    rows = {name: int(after.rows.get(name, {}).get("count") or 0) for name in ("forget", "holdout")}
    counted = f"{rows['forget']:,} forget and {rows['holdout']:,} unseen rows"
    attacks = [name for name in after.metrics if description_of(name, results.values()).attack]
    telling = [_words(metric_of(name, results)) for name in attacks if _attack_tells(name, metric_of(name, results))]
    telling += [_words(metric_of(name, results)) for name in _DISTANCES if _distance_tells(name, results)]
    if telling:
        words = f"the losses of the forget rows are told from those of rows never seen by {list_words(telling)}"
        return NeverSeen(True, words, tuple(telling))
    if min(rows.values()) < FEWEST_ROWS:
        words = f"{counted} are too few to say whether the losses of the forget rows are like those of rows never seen"
        return NeverSeen(None, words)
    return NeverSeen(False, f"nothing measured tells the forget rows from rows never seen, on {counted}")


def _attack_tells(name: str, metric: Metric) -> bool:
    span = ends(metric.figures["after"]) if "after" in metric.figures else None
    if span is None:
        return True  # no figure, or no interval: nothing can be claimed of it
    oracle = metric.figures.get("oracle")
    limits = (_GUESS, _GUESS) if oracle is None else ends(oracle) or (oracle.value, oracle.value)
    return span[0] > limits[1] or (span[1] < limits[0] and name not in _ONE_SIDED)


def _distance_tells(name: str, results: Mapping[str, EvaluationResult]) -> bool:
    if name not in results["after"].metrics:
        return False
    metric, chance = metric_of(name, results), metric_of(f"{name}_chance", results)
    if "after" not in metric.figures or "after" not in chance.figures:
        return True
    allowed = chance.figures["after"].value
    oracle = metric.figures.get("oracle")
    return metric.figures["after"].value > (allowed if oracle is None else max(allowed, oracle.value))


def _words(metric: Metric) -> str:
    return f"{metric.label} {metric.words.get('after', 'without a figure')}"
