"""What the suite's membership attack says: whether forget rows are told from unseen ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..evaluation_result import EvaluationResult
from ..table import description_of
from .figures import MODELS, ends, metric_of

_FIRST = ("min_k_auc", "loss_auc")
_GUESS = 0.5


@dataclass(frozen=True)
class Membership:
    """A membership attack on the model after unlearning.

    Attributes:
        metric: its AUC.
        found: whether the forget rows look like rows that were trained on ("member"), like rows that stand out as
            unlikely ("unlikely") or like unseen ones ("unseen"); None where the AUC has no interval.
        member: whether the interval of the AUC lies above that of an oracle.
        words: the same as a clause, with the figures.
    """

    metric: str
    found: Literal["member", "unlikely", "unseen"] | None
    member: bool
    words: str


def membership(results: Mapping[str, EvaluationResult]) -> Membership | None:
    """Of results that stand side by side; None where the model after unlearning was not attacked so.

    Of the suite's attacks min-k counts, or else the one by loss, or else the first. Its 95% interval is compared with
    the oracle's, or with the 0.5 of a guess where there is no oracle.
    """
    after = results.get("after")
    metrics = [] if after is None else list(after.metrics)
    names = [name for name in metrics if description_of(name, results.values()).attack]
    usable = [name for name in (*_FIRST, *names) if name in names and "after" in metric_of(name, results).figures]
    if not usable:
        return None
    metric = metric_of(usable[0], results)
    figures = [f"{name} {metric.figures[name].value:.2f}" for name in MODELS if name in metric.figures]
    others = [model_words for model_words in figures if not model_words.startswith("after ")]
    others = [", ".join(others)] if others else []
    auc = f"AUC {metric.figures['after'].value:.2f} ({'; '.join([*others, f'{_GUESS:g} is a guess'])})"
    span, oracle = ends(metric.figures["after"]), metric.figures.get("oracle")
    limits = (_GUESS, _GUESS) if oracle is None else ends(oracle) or (oracle.value, oracle.value)
    if span is None:
        words = f"a membership attack on it has an {auc}, with no interval to tell that from chance"
        return Membership(metric.described.name, None, False, words)
    if span[0] > limits[1]:
        words = f"a membership attack still tells the forget rows from unseen rows: {auc}"
        return Membership(metric.described.name, "member", oracle is not None, words)
    if span[1] < limits[0]:
        words = f"a membership attack shows that unlearning makes the forget rows stand out as unlikely: {auc}"
        return Membership(metric.described.name, "unlikely", False, words)
    more = "" if span[0] <= _GUESS <= span[1] else " better than it does with the oracle"
    words = f"a membership attack does not tell the forget rows from unseen rows{more}: {auc}"
    return Membership(metric.described.name, "unseen", False, words)
