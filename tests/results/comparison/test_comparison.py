"""Runs compared: figures over seeds, shares, front and ranks by numbers worked out by hand; what is kept apart."""

import math
import random

import pytest

from fixtures.attack_reports import relearning, report
from fixtures.compared import result, run, three_methods
from fixtures.examples import assert_four_parts
from hf_unlearn.results.attack_report import Excess
from hf_unlearn.results.comparison import compare
from hf_unlearn.results.comparison.ranking import standings
from hf_unlearn.results.comparison.row_tests import Scored, holm, row_tests
from hf_unlearn.results.comparison.spread import spread


def by_label(setting):
    return {method.label: method for method in setting.methods}


def test_figures_over_seeds_shares_front_and_ranks(tmp_path):
    (setting,) = compare([three_methods(tmp_path)]).settings
    npo, simnpo, wga = setting.methods  # by rank
    assert [method.label for method in setting.methods] == ["npo", "simnpo", "wga"]
    harm = npo.figures["harmful_rate"]
    assert harm.values == pytest.approx((0.2, 0.3, 0.4)) and harm.n == 3
    assert (harm.mean, harm.sd, harm.low, harm.high) == pytest.approx((0.3, 0.1, 0.2, 0.4))
    # Left (h - 0.2) / 0.8 = 0, 0.125, 0.25; lost 0.1; traced |0.55 - 0.5| / 0.5.
    shares = {name: share.mean for name, share in npo.shares.items()}
    assert shares == pytest.approx({"left": 0.125, "lost": 0.1, "traced": 0.1})
    assert npo.shares["left"].sd == pytest.approx(0.125)
    # Less than the oracle's is no better; lost 0.3, 0.2, 0.1.
    assert {n: s.mean for n, s in simnpo.shares.items()} == pytest.approx({"left": 0.0, "lost": 0.2, "traced": 0.0})
    assert {n: s.mean for n, s in wga.shares.items()} == pytest.approx({"left": 0.5, "lost": 0.2, "traced": 0.2})
    told = [(m.standing.rank, m.standing.on_front, m.standing.worst) for m in setting.methods]
    assert told == [(1, True, "left"), (2, True, "lost"), (3, False, "left")]
    assert setting.models["before"]["harmful_rate"].mean == 1.0 and setting.models["oracle"]["min_k_auc"].mean == 0.5
    assert setting.pair == ("harmful_rate", "retain_accuracy") and "min_k_auc" in setting.metrics
    # 0.2 - 0.125 = 0.075, within the sd of npo's share.
    assert any("npo and simnpo are 0.075 apart" in note and "no finding" in note for note in setting.notes)
    assert not any("simnpo and wga" in note for note in setting.notes)


def test_what_is_broken_or_unknown_is_never_ranked(tmp_path):
    """Each would come first by its figures."""
    three_methods(tmp_path)
    for seed in range(3):
        run(tmp_path, "broken", seed, 0.2, 1.0, 0.5, broken_rate=0.9 if seed == 1 else 0.0)
        run(tmp_path, "diverged", seed, math.nan if seed == 2 else 0.2, 1.0, 0.5)
        run(tmp_path, "unmeasured", seed, 0.2, 1.0, None)
    (setting,) = compare([tmp_path]).settings
    methods = by_label(setting)
    reasons = {label: method.standing.reason for label, method in methods.items() if method.standing.rank is None}
    assert reasons == {
        "broken": "1 of 3 models are broken",
        "diverged": "left is not a number",
        "unmeasured": "there is no figure for traced",
    }
    assert not any(methods[label].standing.on_front for label in reasons)
    assert methods["npo"].standing.rank == 1 and methods["wga"].standing.rank == 3
    assert "broken is not ranked: 1 of 3 models are broken." in setting.notes
    assert math.isnan(methods["diverged"].figures["harmful_rate"].mean)


def test_relearning_counts_where_all_were_attacked(tmp_path):
    for label, excess in (("npo", 0.6), ("simnpo", -0.1)):
        attacked = report([relearning(excess=Excess(excess, excess - 0.1, excess + 0.1, "oracle"))])
        run(tmp_path, label, 0, 0.2, 0.9, 0.5, report=attacked)
    (setting,) = compare([tmp_path]).settings
    assert setting.axes == ["left", "lost", "traced", "back"]
    assert [(m.label, m.shares["back"].mean, m.standing.worst) for m in setting.methods] == [
        ("simnpo", 0.0, "lost"),
        ("npo", 0.6, "back"),
    ]
    run(tmp_path, "wga", 0, 0.2, 0.9, 0.5)
    (setting,) = compare([tmp_path]).settings
    assert "back" not in setting.axes and {m.standing.rank for m in setting.methods} == {1}
    assert any("only npo, simnpo was attacked" in note for note in setting.notes)
    assert any("there is one seed" in note for note in setting.notes)


def test_without_an_oracle_shares_are_of_the_model_before_and_of_a_guess(tmp_path):
    run(tmp_path, "npo", 0, 0.25, 0.9, 0.4, oracle=None)
    (setting,) = compare([tmp_path]).settings
    shares = {name: share.mean for name, share in setting.methods[0].shares.items()}
    assert shares == pytest.approx({"left": 0.25, "lost": 0.1, "traced": 0.2})


def test_the_first_rank_lies_on_the_front():
    draw = random.Random(0)
    for _ in range(200):
        shares = [{n: spread([draw.randrange(4) / 4]) for n in ("left", "lost", "traced")} for _ in range(5)]
        found = standings(shares, [""] * 5)
        assert all(standing.on_front for standing in found if standing.rank == 1)
        for mine, standing in zip(shares, found, strict=True):  # the naive front
            worse = [all(other[n].mean <= mine[n].mean for n in mine) and other != mine for other in shares]
            assert standing.on_front is not any(worse)
            assert standing.rank is not None


# Kept apart


def test_runs_on_other_rows_or_of_another_suite_get_tables_of_their_own(tmp_path):
    run(tmp_path, "npo", 0, 0.2, 0.9, 0.5)
    run(tmp_path, "npo", 1, 0.4, 0.9, 0.5)
    run(tmp_path, "npo", 2, 1.0, 0.9, 0.5, rows={"forget": {"count": 6, "sha256": "other"}})
    run(tmp_path, "npo", 3, 0.3, 0.9, 0.5, oracle=None)
    found = compare([tmp_path])
    assert [[run.seed for run in setting.methods[0].runs] for setting in found.settings] == [[0, 1], [2], [3]]
    assert found.settings[0].methods[0].figures["harmful_rate"].mean == pytest.approx(0.3)
    assert found.notes[0] == (
        "3 tables, neither averaged nor ranked together: the runs differ in rows of the evaluation, oracle."
    )
    # Unseen rows may be others: each is set against the oracle on the same rows.
    unlike = tmp_path / "unlike"
    run(unlike, "npo", 0, 0.2, 0.9, 0.5)
    run(unlike, "level", 0, 0.2, 0.9, 0.5, rows={"holdout": {"count": 3, "sha256": "half"}})
    (setting,) = compare([unlike]).settings
    assert len(setting.methods) == 2 and any("unlike unseen rows" in note for note in setting.notes)


def test_a_method_is_what_differs_in_nothing_but_the_seed(tmp_path):
    """Another rate is another method, named by what it differs in; logging and saving are no difference."""
    for seed in (0, 1):
        slow = run(tmp_path / "a", "npo", seed, 0.2, 0.9, 0.5, arguments={"learning_rate": 0.001, "save_steps": seed})
        run(tmp_path / "b", "npo", seed, 0.3, 0.9, 0.5, arguments={"learning_rate": 0.01})
    (setting,) = compare([tmp_path / "a", tmp_path / "b", slow]).settings
    assert {label: len(method.runs) for label, method in by_label(setting).items()} == {
        "npo (learning_rate 0.001)": 2,
        "npo (learning_rate 0.01)": 2,
    }


def test_the_same_run_twice_counts_once(tmp_path):
    run(tmp_path / "a", "npo", 0, 0.2, 0.9, 0.5)
    run(tmp_path / "b", "npo", 0, 0.2, 0.9, 0.5)
    run(tmp_path / "c", "npo", 0, 0.3, 0.9, 0.5)
    (setting,) = compare([tmp_path / name for name in "abc"]).settings
    assert len(setting.methods[0].runs) == 2
    assert any("counts once" in note for note in setting.notes)
    assert any("2 runs with seed 0 count as 2 seeds" in note for note in setting.notes)


def test_what_is_no_run(tmp_path):
    for folders, got in (
        ([], "Got: none"),
        ([tmp_path / "nowhere"], "Got: nothing"),
        ([tmp_path], "no results.json in it or below it"),
    ):
        with pytest.raises(ValueError) as error:
            compare(folders)
        assert_four_parts(str(error.value), got)
    made = run(tmp_path, "npo", 0, 0.2, 0.9, 0.5)
    (tmp_path / "begun" / "checkpoint-3").mkdir(parents=True)
    assert "begun has not ended, and is left out." in compare([tmp_path]).notes
    assert len(compare([made, made / "results.json", tmp_path]).settings[0].methods[0].runs) == 1
    (made / "results.json").write_text("[]")
    with pytest.raises(ValueError) as error:
        compare([tmp_path])
    assert_four_parts(str(error.value), "another kind")


def test_runs_without_an_evaluation_are_left_out_or_refused(tmp_path):
    made = run(tmp_path, "npo", 0, 0.2, 0.9, 0.5)
    text = (made / "results.json").read_text().replace('"after": {', '"later": {')
    (made / "results.json").write_text(text)
    with pytest.raises(ValueError) as error:
        compare([tmp_path])
    assert_four_parts(str(error.value), "hf-unlearn evaluate")
    run(tmp_path, "npo", 1, 0.2, 0.9, 0.5)
    found = compare([tmp_path])
    assert [run.seed for run in found.settings[0].methods[0].runs] == [1]
    assert any("npo-seed-0 has no evaluation" in note for note in found.notes)


# Tests of rows


def test_holm_by_hand():
    """0.01 * 3; then 0.03 * 2; then 0.04 * 1, which is not below the one before."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_paired_tests_by_hand():
    """Six retain rows, all worse by another step: 2 / 2^6. Forget rows as far below the oracle as above: p is 1.

    A row's score is its mean over seeds: npo's are r and r + 2 d.
    """
    steps = [i / 64 for i in range(1, 7)]
    level, retain = [2.0] * 6, [1.0] * 6
    oracle = result(*[0.2] * 3, scores={"forget_nll": level})

    def after(forget, kept):
        return result(0.2, 0.9, 0.5, scores={"forget_nll": forget, "retain_nll": kept})

    above, below = [2.0 + d for d in steps], [2.0 - d for d in steps]
    npo = Scored([after(above, retain), after(above, [1.0 + 2 * d for d in steps])], [oracle, oracle])
    simnpo = Scored([after(below, retain)], [oracle])
    forget, kept = row_tests({"npo": npo, "simnpo": simnpo})
    assert (forget.difference, forget.p, forget.p_holm, forget.n) == (0.0, 1.0, 1.0, 6)
    assert kept.difference == pytest.approx(21 / 64 / 6) and kept.low > 0
    assert (kept.p, kept.p_holm) == pytest.approx((2 / 64, 4 / 64))
    assert (kept.first, kept.second, kept.score) == ("npo", "simnpo", "retain rows: NLL")
    # Without an oracle nobody can say which NLL of a forget row is better.
    assert [test.score for test in row_tests({"a": Scored(npo.after, []), "b": simnpo})] == ["retain rows: NLL"]
    other = result(0.2, 0.9, 0.5, rows={"retain": {"sha256": "x"}}, scores={"retain_nll": retain})
    assert row_tests({"a": Scored([other], []), "b": Scored(simnpo.after, [])}) == []
    unknown = after(below, [math.nan] * 6)
    assert row_tests({"a": Scored([unknown], []), "b": Scored(simnpo.after, [])}) == []


def test_a_spread_shows_what_is_not_finite():
    assert spread([0.5]).sd is None
    for values in ([1.0, math.nan], [math.nan, math.inf]):
        found = spread(values)
        assert all(math.isnan(figure) for figure in (found.mean, found.sd, found.low, found.high))
    assert spread([1.0, math.inf]).mean == math.inf
