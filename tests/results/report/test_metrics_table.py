"""The table of metrics, and the overview of several runs: groups, bars, rows that tell nothing apart, means."""

import math

import pytest

from fixtures.report import evaluation, harmful_evaluations, record
from hf_unlearn.metrics import METRIC_DESCRIPTIONS
from hf_unlearn.results.report import Run, overview, sections
from hf_unlearn.results.report.metrics_table import metrics_table


def labels(table):
    return {group.name: [row.label for row in group.rows] for group in table.groups}


def test_metrics_are_grouped_by_the_rows_they_speak_of():
    table = metrics_table(harmful_evaluations(), everything=True)
    assert list(labels(table)) == ["Forget rows", "Retain rows"]
    assert labels(table)["Retain rows"] == ["retain answers right", "retain NLL (nats per token)"]
    assert table.equal == [("empty, repetitive or gibberish", "0.0%")] and table.size == 7
    assert metrics_table({}) is None


def test_a_row_tells_nothing_apart_when_all_agree_but_what_the_verdict_rests_on_is_shown():
    made = {
        name: evaluation(harmful_rate=1.0, retain_accuracy=(value, 0.8, 1.0), refusal_rate=0.25, empty_rate=0.25)
        for name, value in {"before": 0.9, "after": 0.9, "oracle": 0.9}.items()
    }
    made["after"].metrics["harm_efficacy"] = evaluation(x=0.0).metrics["x"]
    made["after"].metrics["forget_quality"] = evaluation(x=0.5).metrics["x"]
    made["after"].metrics["empty_rate"] = evaluation(x=0.26).metrics["x"]
    table = metrics_table(made, everything=True)
    shown = [label for group in labels(table).values() for label in group]
    assert "harmful answers" in shown and "retain answers right" in shown and "empty answers" in shown
    # Known of one model alone, 0 says nothing; another value does.
    assert len(table.equal) == 2 and "refusals" in dict(table.equal) and len(shown) == 4


def test_bars_are_of_a_share_to_one_and_of_other_values_to_the_largest():
    made = {
        "before": evaluation(harmful_rate=(0.5, 0.4, 0.6), forget_nll=(1.0, 0.9, 1.1), min_k_privleak=-20.0),
        "after": evaluation(harmful_rate=math.nan, forget_nll=(4.0, 3.0, 5.0), min_k_privleak=3.0),
    }
    rows = {row.label: row.cells for group in metrics_table(made).groups for row in group.rows}
    share, bare = rows["harmful answers"]
    assert (share.mark.value, share.mark.low, share.mark.width) == pytest.approx((50, 40, 20)) and bare.mark is None
    assert share.hint == "95% interval 40.0, 60.0; n = 120" and bare.value == "nan%" and bare.hint == "n = 120"
    low, high = rows["forget NLL (nats per token)"]
    assert (low.mark.value, high.mark.value, high.mark.low) == pytest.approx((20, 80, 60))
    assert [cell.mark for cell in rows["privacy leak (min-k, percent)"]] == [None, None]  # some lie below 0


def test_every_packaged_metric_has_a_label_that_no_other_has():
    titles = [described.label for described in METRIC_DESCRIPTIONS.packaged.values()]
    assert all(titles) and len(set(titles)) == len(titles)
    # Read by itself, when its neighbours are folded or in another group.
    assert not [title for title in titles if title.startswith("the same")]


@pytest.fixture
def undrawn(monkeypatch):
    """What a plot shows in words: to draw it takes longer than all that is tested here."""
    monkeypatch.setattr(sections, "inline_svg", lambda panel, prefix: panel.summary)


def shown(name, number, harm, method="npo", seed=0):
    made = record(name, evaluations=harmful_evaluations((harm, 0.0, 1.0)), log=[], seed=seed)
    made.objective.terms[0].name = method
    return sections.section_of(number, Run(made, made.evaluations, title=name), name, alone=False)


def test_runs_of_a_method_have_a_mean_and_a_range(undrawn):
    several = [shown("a", 1, 0.0), shown("b", 2, 0.03, seed=1), shown("c", 3, 0.9, "dpo")]
    npo, dpo = overview.method_groups(several)
    assert (npo.method, npo.suite, len(npo.sections), len(dpo.sections)) == ("npo", "harmful", 2, 1)
    assert (npo.forgetting.value, npo.forgetting.spread) == ("1.5%", "0.0 to 3.0")
    assert npo.forgetting.label == "harmful answers" and npo.utility.value == "96.5%"
    assert npo.answers == [
        ("Removed?", "yes 2 of 2"),
        ("Rest intact?", "yes 2 of 2"),
        ("Stays gone?", "not tested 2 of 2"),
    ]
    assert dpo.answers[0] == ("Removed?", "no 1 of 1") and dpo.forgetting.value == "90.0%"
    assert overview.measured(several[1], 0).spread == "0.0, 100.0"


def test_runs_are_put_beside_others_of_their_method(undrawn):
    runs = [section.run for section in (shown("a", 1, 0.0), shown("b", 2, 0.0, "dpo"), shown("c", 3, 0.0))]
    assert [run.title for run in overview.by_method(runs)] == ["a", "c", "b"]
    runs[2].record.model.id = "another/model"  # a mean over both would say nothing
    assert [run.title for run in overview.by_method(runs)] == ["a", "b", "c"]
