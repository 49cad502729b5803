"""A saved result of another package's suite is read as that package meant it, and results of before as they were."""

import json
from dataclasses import replace

import pytest

from fixtures.muse_rows import mapping
from fixtures.report import figure, record
from fixtures.rwku_rows import mapping as rwku_mapping
from fixtures.wmdp_rows import MMLU, ROWS
from hf_unlearn.evaluation import EvaluationResult, RuleJudge, Suite, SuiteOutput, comparison_table, load_result
from hf_unlearn.evaluation.suites import copyright, custom, harmful, muse, rwku, tofu, unlearn_qa, wmdp
from hf_unlearn.lab import load_lab, shows_behaviour
from hf_unlearn.metrics import MetricDescription
from hf_unlearn.results.evaluation_result import PACKAGED_PAIRS
from hf_unlearn.results.model_card import render_card
from hf_unlearn.results.record import load_record
from hf_unlearn.results.verdict import verdict, verdict_rules

ECHOES = MetricDescription("echo", "verses echoed", format=".0%", greater_is_better=False, rows="forget")
SOUNDS = MetricDescription("sound", "verses that still sound", format=".2f", greater_is_better=True, rows="retain")
NOISE = MetricDescription("noise", "noisy verses", format=".0%", damage="verses are noise")


def verses(echo, sound, noise=(0.0, 0.0, 0.03), **more):
    """A result of a suite that this package has never heard of."""
    return EvaluationResult(
        suite="verses",
        metrics={"echo": figure(*echo), "sound": figure(*sound), "noise": figure(*noise)},
        headline=("echo", "sound"),
        forget_metric="echo",
        utility_metric="sound",
        descriptions={described.name: described for described in (ECHOES, SOUNDS, NOISE)},
        package="hf-unlearn-verses 1.2",
        **more,
    )


BEFORE = verses((0.8, 0.7, 0.9), (4.0, 3.9, 4.1))
AFTER = verses((0.05, 0.02, 0.1), (3.9, 3.8, 4.0))


def made(after, folder):
    """The record of a run with it, read back from its file."""
    record(evaluations={"before": BEFORE, "after": after}).save(folder)
    return load_record(folder)


def test_a_result_comes_back_with_what_it_says_of_itself(tmp_path):
    AFTER.save(tmp_path / "after.json")
    assert load_result(tmp_path / "after.json") == AFTER


def test_its_table_has_its_labels_and_formats():
    table = comparison_table({"before": BEFORE, "after": AFTER})
    assert [line.split("  ")[0] for line in table.splitlines()[2:]] == ["verses echoed", "verses that still sound"]
    assert "5% [2, 10]" in table and "3.90 [3.80, 4.00]" in table


@pytest.mark.parametrize(
    ("after", "level", "words"),
    [
        (AFTER, "forgotten, kept", "verses echoed fell from 80% [70, 90] to 5% [2, 10], clear of the interval"),
        (verses((0.05, 0.02, 0.1), (3.8, 3.7, 3.9)), "forgotten, at a cost", "verses that still sound fell from 4.00"),
        (verses((0.7, 0.6, 0.8), (4.0, 3.9, 4.1)), "not forgotten", "not clear of the interval before"),
        (verses((0.0, 0.0, 0.1), (4.0, 3.9, 4.1), (0.5, 0.4, 0.6)), "broken", "50% [40, 60] of its verses are noise"),
    ],
    ids=["kept", "5% of another score lost", "not forgotten", "broken"],
)
def test_it_has_a_verdict(after, level, words, tmp_path):
    """4.0 to 3.9 is 2.5% of a score that is no percentage, 4.0 to 3.8 is 5%."""
    found = verdict(made(after, tmp_path))
    assert found.level == level and words in found.sentence


def test_card_and_rules_name_it(tmp_path):
    card = render_card(made(AFTER, tmp_path))
    assert "Suite `verses` of the package `hf-unlearn-verses 1.2`" in card
    assert "hf-unlearn-verses==1.2" in card and "name: verses echoed" in card and "verses echoed 80% -> 5%" in card
    assert "verses: verses echoed, verses that still sound" in verdict_rules([AFTER])[-1]
    assert "verses" not in verdict_rules()[-1] and verdict_rules()[-1].startswith("Metrics (forget, utility) by suite")


def test_a_result_of_before_is_read_by_its_suites_name(tmp_path):
    """And written as it was: figures that were drawn are still those of the record."""
    old = EvaluationResult("harmful", {"harmful_rate": figure(0.5)})
    assert old.pair == ("harmful_rate", "retain_accuracy")
    assert not old.to_dict().keys() & {"forget_metric", "utility_metric", "descriptions", "package"}
    assert replace(old, suite="verses").pair is None


def test_the_packaged_suites_have_the_pairs_that_results_of_before_are_read_with():
    lab, people = load_lab(), load_lab(world="people").datasets
    named = {"forget10": "forget", "forget10_perturbed": "forget_perturbed", "retain90": "retain"}
    rows = {name: lab.datasets[name].select(range(4)) for name in ("forget", "retain")}
    suites = [
        custom.custom(**rows),
        copyright.copyright(**rows),
        harmful.harmful(**rows, judge=RuleJudge("lab rules", shows_behaviour)),
        tofu.tofu(people | {name: people[own] for name, own in named.items()}),
        muse.muse(mapping()),
        wmdp.wmdp(ROWS, MMLU),
        rwku.rwku(rwku_mapping()),
        unlearn_qa.unlearn_qa(**rows),
    ]
    assert {suite.name: (suite.forget_metric, suite.utility_metric) for suite in suites} == PACKAGED_PAIRS
    assert all(suite.package == "" and suite.carried_descriptions(suite.headline) == {} for suite in suites)


def _suite(**pair):
    rows = [{"prompt": "a", "completion": "b"}]
    return Suite("verses", {"forget": rows}, lambda evidence: SuiteOutput({}), descriptions=(ECHOES, SOUNDS), **pair)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ({"forget_metric": "echo"}, "forget_metric and utility_metric of the suite verses, or neither"),
        ({"forget_metric": "sound", "utility_metric": "sound"}, "forget_metric of the suite verses, of which less"),
        (
            {"forget_metric": "echo", "utility_metric": "retain_nll"},
            "utility_metric of the suite verses, of which more",
        ),
    ],
)
def test_half_a_pair_and_one_that_is_wanted_the_other_way_are_refused(pair, words):
    with pytest.raises(ValueError, match=words):
        _suite(**pair)
    assert _suite(forget_metric="echo", utility_metric="unknown").carried_descriptions(["echo", "forget_nll"]) == {
        "echo": ECHOES
    }


def test_a_result_with_a_format_of_another_kind_is_no_result(tmp_path):
    AFTER.save(tmp_path / "after.json")
    stored = json.loads((tmp_path / "after.json").read_text())
    stored["descriptions"]["echo"]["format"] = "9999999999"
    (tmp_path / "after.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="a description of a metric"):
        load_result(tmp_path / "after.json")
