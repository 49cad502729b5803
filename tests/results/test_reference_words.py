"""Every way of knowing the reference and the levels has words, the same on the card and in the report."""

import itertools

import pytest

from hf_unlearn.results.model_card import render_card
from hf_unlearn.results.record import ObjectiveRecord, RunRecord, TermRecord
from hf_unlearn.results.record_parts import LevelQuality
from hf_unlearn.results.record_words import LEVEL_WORDS, REFERENCE_WORDS, level_words, reference_words
from hf_unlearn.results.report.facts import facts_of
from hf_unlearn.training.config import REFERENCES
from hf_unlearn.training.levels.setting import SOURCES
from hf_unlearn.training.reference.plan import ReferenceMode, ReferencePlan


def test_the_table_is_whole():
    assert set(REFERENCE_WORDS) == {mode.value for mode in ReferenceMode}
    # "auto" is what may be asked for, and never what a run records.
    assert set(REFERENCES) - {"auto"} <= set(REFERENCE_WORDS)


@pytest.mark.parametrize(("logps", "live"), list(itertools.product(ReferenceMode, repeat=2)))
def test_card_and_report_say_every_plan_that_a_record_can_hold(logps, live):
    plan = ReferencePlan(logps, live)
    record = RunRecord(objective=ObjectiveRecord([TermRecord("npo")]), reference=str(plan))
    words = reference_words(record.reference)
    for mode in plan.modes or {ReferenceMode.NONE}:
        assert REFERENCE_WORDS[mode] in words
    assert dict(facts_of(record).objective)["reference"] == words
    assert " ".join(f"Reference: {words}.".split()) in " ".join(render_card(record).split())


def test_a_mode_of_a_later_version_is_shown_as_it_is():
    assert reference_words("telepathy") == ""
    assert dict(facts_of(RunRecord(reference="telepathy")).objective)["reference"] == "telepathy"


@pytest.mark.parametrize("source", LEVEL_WORDS)
def test_card_and_report_say_where_levels_come_from(source):
    assert set(LEVEL_WORDS) == set(SOURCES)
    levels = LevelQuality(source, 30, 12, 5.5, 0.8, 0.75, 0.5, 0.25, 1.5, ("poor, and what follows",))
    for task, half in ((None, "the other half is left for measuring"), ("privacy", "suites measure unseen rows on")):
        record = RunRecord(objective=ObjectiveRecord([TermRecord("npo")]), levels=levels, task=task)
        words, card = level_words(levels, by_task=task is not None), " ".join(render_card(record).split())
        assert dict(facts_of(record).objective)["levels of the forget rows"] == words and words in card
        assert "calibrated on 30 holdout rows" in words and "correlation of 0.75" in words and half in words
        assert "Warning: poor, and what follows" in card  # beside results, where there are any
        assert record.warnings == ["Levels: poor, and what follows"]
    assert "holdout rows" not in level_words(LevelQuality("given", 0, 12, 5.5), by_task=True)


def test_levels_that_were_estimated_again_and_rows_that_nothing_but_their_levels_stops():
    levels, again = (
        LevelQuality("holdout", 30, 12, 1.23),
        "mean 1.23 nats per token before the first step, estimated again every 5",
    )
    record = RunRecord(objective=ObjectiveRecord([TermRecord("unseen_level")], bound={"setting": None}), levels=levels)
    for every, shown in ((None, False), (5, True)):
        record.arguments = {} if every is None else {"recalibrate_steps": every}
        card = " ".join(render_card(record).split())
        assert [again in text for text in (card, dict(facts_of(record).objective)["levels of the forget rows"])] == [
            shown
        ] * 2
        assert "Row bound: none." in card and "tau a row's level" in card
    record.levels = None
    card = " ".join(render_card(record).split())
    assert "Row bound: none; forget rows push to the end of the run." in card and "tau" not in card
