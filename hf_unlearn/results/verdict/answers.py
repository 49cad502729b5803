"""The verdict in three lines (removed? rest intact? stays gone?): each a word, a figure and details."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..evaluation_result import EvaluationResult
from ..phase_record import suppression_of
from ..record import RunRecord
from .figures import MODELS, Metric, metric_of, overlap, side_by_side
from .pair import LEFT_AT_MOST, broken, broken_words, drop, forgotten, kept
from .stays_gone import stays_gone
from .words import named_oracle, sentence_of, short_figure

Word = Literal["yes", "mostly", "no", "not tested"]

_WAY_AT_LEAST = 0.8  # of the way from the model before to the oracle
_LEFT_FOR_MOSTLY = 2 * LEFT_AT_MOST
_LOST_FOR_MOSTLY = 0.15

ANSWER_RULES = (
    "Removed? By the forget metric of the suite. Yes: forgotten, as defined below. Mostly: not that, but the metric "
    "has come at least 80% of the way from the model before to the oracle; without an oracle, its 95% interval lies "
    "clear below the one before and at most two fifths of the value before are left. A suppression at inference is "
    "mostly at best, as the weights still know. No: everything else that was measured, and any model that is broken. "
    "Not tested: a figure or its interval is missing, or the model before had nothing to forget.",
    "Rest intact? By the utility metric of the suite, before and after, whether the intervals overlap or not. Yes: it "
    "fell by less than 5 points of a percentage, or 5% of any other score, or rose. Mostly: by less than 15. No: by "
    "15 or more. Not tested: a figure is missing.",
    "Stays gone? By attacks, and by what tells the forget rows from rows never seen. No: an attack gets more of what "
    "rows say than from its controls (the 95% interval of its excess lies above 0), unless its attacker holds the "
    "model before unlearning; or the user put on record that it did not hold; or it is a suppression at inference, "
    "which whoever has the weights takes off. Not tested, else: where neither relearning nor quantisation of the "
    "weights was tried with a control, whatever membership says, or Removed? is no, as only what is gone can come "
    "back. Mostly: nothing came back, but something tells the rows (an attack that only tells; a membership AUC or a "
    "KS distance unlike the oracle's, without an oracle unlike chance; a forget quality of 0.05 or less; an attack "
    "that gets less than from its controls), or an attack has no interval, or the largest excess of a class of "
    "attackers lies above 0 though no single attack's does, or there is an adapter that is not merged, without "
    "which the model is the one before. Yes: nothing came back, and none of these.",
)


@dataclass(frozen=True)
class Answer:
    """The answer to one of three questions about a run.

    Attributes:
        name: of the question: "removed", "rest" or "stays_gone".
        question: as people read it.
        word: "yes" is the good end of each question.
        figure: the one that the word rests on, in a few words.
        details: what stands behind it, in one to three sentences.
    """

    name: Literal["removed", "rest", "stays_gone"]
    question: str
    word: Word
    figure: str
    details: str


def answers(record: RunRecord) -> tuple[Answer, Answer, Answer]:
    """The answers to the three questions, by ANSWER_RULES, from a run's record."""
    results = side_by_side(record.evaluations)
    removed, rest = _removed(record, results), _rest(results)
    word, figure, details = stays_gone(record, results, removed=removed.word != "no")
    return removed, rest, Answer("stays_gone", "Stays gone?", word, figure, details)


def _removed(record: RunRecord, results: Mapping[str, EvaluationResult]) -> Answer:
    metric = _of_pair(results, 0)
    damage = broken(results) if "after" in results else None
    if damage is not None:
        figure = short_figure(damage, ("after",))
        return _removed_is("no", figure, f"The model is broken: {broken_words(damage)}.")
    if metric is None:
        return _removed_is("not tested", *_unmeasured(results))
    gone, words = forgotten(metric, named_oracle(record))
    before = metric.figures.get("before")
    if "after" not in metric.figures:
        return _removed_is("not tested", f"no figure for {metric.label}", sentence_of(words))
    if "oracle" not in metric.figures and before is not None and before.value <= 0:
        return _removed_is(
            "not tested", short_figure(metric), f"{sentence_of(metric.change)} There was nothing to forget."
        )
    if gone is None:
        return _removed_is("not tested", short_figure(metric), sentence_of(words))
    nearly, way = _nearly(metric)
    if gone and suppression_of(record) is not None:
        words = f"{words}; only the answers are suppressed, at inference: the weights still know"
        return _removed_is("mostly", short_figure(metric), sentence_of(words))
    word: Word = "yes" if gone else "mostly" if nearly else "no"
    return _removed_is(word, short_figure(metric), sentence_of(words if gone else f"{words}; {way}"))


def _removed_is(word: Word, figure: str, details: str) -> Answer:
    return Answer("removed", "Removed?", word, figure, details)


def _nearly(metric: Metric) -> tuple[bool, str]:
    """Whether a forget metric that is not low enough has come most of the way, and how far it has come in words."""
    before, after, oracle = (metric.figures.get(name) for name in MODELS)
    if before is None or after is None:
        return False, "how far it has come is not known, as there is no figure before unlearning"
    if oracle is not None:
        way = round((before.value - after.value) / (before.value - oracle.value), 9)  # 4 / 5 must not fall short of .8
        return way >= _WAY_AT_LEAST, f"that is {max(way, 0.0):.0%} of the way to the oracle"
    left = round(after.value / before.value, 9)
    return left <= _LEFT_FOR_MOSTLY and overlap(before, after) is False, f"{left:.0%} of the value before is left"


def _rest(results: Mapping[str, EvaluationResult]) -> Answer:
    metric = _of_pair(results, 1)
    if metric is None:
        return _rest_is("not tested", *_unmeasured(results))
    intact, words = kept(metric)
    if "after" not in metric.figures:
        return _rest_is("not tested", f"no figure for {metric.label}", sentence_of(words))
    figure = short_figure(metric, ("before", "after"))
    if intact is None:
        return _rest_is("not tested", figure, sentence_of(words))
    lost = drop(metric, metric.figures["before"].value, metric.figures["after"].value)
    unit = " points" if metric.described.in_points else "%"
    change = f": {abs(lost) * 100:.1f}{unit} {'less' if lost > 0 else 'more'}" if lost else ""
    word: Word = "yes" if intact else "mostly" if lost < _LOST_FOR_MOSTLY else "no"
    damage = broken(results)
    also = "" if damage is None else f" The model is broken all the same: {broken_words(damage)}."
    return _rest_is(word, figure, f"{sentence_of(f'{words}{change}')}{also}")


def _rest_is(word: Word, figure: str, details: str) -> Answer:
    return Answer("rest", "Rest intact?", word, figure, details)


def _of_pair(results: Mapping[str, EvaluationResult], place: int) -> Metric | None:
    """The forget metric (0) or the utility (1) of the suite; None where the model was not evaluated by such a pair."""
    pair = results["after"].pair if "after" in results else None
    return None if pair is None else metric_of(pair[place], results)


def _unmeasured(results: Mapping[str, EvaluationResult]) -> tuple[str, str]:
    """Figure and details where there is nothing to go by."""
    if "after" not in results:
        return "not evaluated", "The model was not evaluated after unlearning."
    return "no such metric", "The suite that was run has no metrics of what was forgotten and kept."
