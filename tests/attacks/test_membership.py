"""Membership: planted rows are told from never-seen ones, from both sides; who never knew them gives chance."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fixtures.planted import attacked_rows, planted_model, planted_oracle, planted_rows, planted_target
from fixtures.suppressed import outcome
from hf_unlearn.attacks import Membership
from hf_unlearn.attacks.placement import placed, placed_by_classifier
from hf_unlearn.attacks.rows import halves
from hf_unlearn.data.tokenized_row import trained_ids
from hf_unlearn.metrics import loss_features, membership_auc, zlib_scores
from hf_unlearn.metrics.unseen import drawn_folds


def test_placements_by_hand():
    """Below 3 lie 1 and 2 of {1, 2, 3, 4}, and 3 is a tie: 2.5 of 4. A score that is no number stands below all."""
    rows = replace(attacked_rows(), rows=[{}] * 3, tuned=np.array([True, False, False]))
    rows = replace(rows, unseen=rows.unseen[:8])
    scores = np.array([3.0, 0.0, np.nan])
    unseen = np.empty(8)
    for half in (halves(rows.unseen), ~halves(rows.unseen)):  # each half of the rows faces a half of its own
        unseen[half] = [1.0, 2.0, 3.0, 4.0]
    assert placed(scores, unseen, rows).tolist() == [0.625, 0, 0]
    assert placed(-scores, -unseen, rows).tolist() == [0.375, 1, 0]
    # A control's row is placed among the others of its half, never itself.
    control = replace(rows, rows=[{}] * 4, tuned=np.array([True, True, True, False]), control=True)
    assert placed(np.array([1.0, 2.0, 2.0, 9.0]), unseen, control).tolist() == [0, 0.75, 0.75, 0.5]


def test_the_mean_is_the_auc():
    target, rows = planted_target(planted_oracle()), attacked_rows()
    leaks = {tuple(leak.setting.values()): leak.rows for leak in Membership(k=0.5).run(target, rows)}
    assert next(iter(leaks)) == ("guess",) and set(leaks["guess",]) == {0.5}
    scores = []
    for group in (rows.rows, rows.unseen):
        texts = [target.text(trained_ids(row["labels"])) for row in group]
        scores.append(zlib_scores(target.logps(group), texts))
    sides = halves(rows.unseen)
    for half, side in ((rows.tuned, sides), (~rows.tuned, ~sides)):
        auc = membership_auc(scores[0][half], scores[1][side]).value
        assert leaks["zlib", "likelier"][half].mean() == pytest.approx(auc, abs=1e-12)
    assert leaks["zlib", "unlikelier"] == pytest.approx(1 - leaks["zlib", "likelier"])


def test_chance_is_a_half_for_classifiers_of_few_rows():
    """Folds compared with each other would come out below a half, and a control below the attacked rows."""
    generator = np.random.default_rng(0)
    rows, control = attacked_rows(), attacked_rows(control=True)
    means = []
    for _ in range(12):
        own, unseen = generator.normal(size=(2, 24, 16))
        means.append(
            [
                placed_by_classifier(own, unseen, rows, drawn_folds).mean(),
                placed_by_classifier(unseen, unseen, control, drawn_folds).mean(),
            ]
        )
    assert np.mean(means, axis=0) == pytest.approx([0.5, 0.5], abs=0.12)
    shifted = placed_by_classifier(own + 2, unseen, rows, drawn_folds)
    assert shifted.mean() > 0.9


def test_finds_planted_rows_and_rows_that_were_pushed_too_far():
    sets = planted_rows()
    untouched, leak = outcome(Membership(), planted_target(planted_model()), attacked_rows())
    assert untouched == 0.5 and leak > 0.9
    # Rows that were made unlikely are found by it: here what was never seen stands for them, beside known rows.
    pushed = replace(attacked_rows(), rows=sets["unseen"], unseen=sets["retain"], tuned=attacked_rows().tuned)
    assert outcome(Membership(), planted_target(planted_model()), pushed)[1] > 0.9


def test_finds_nothing_where_nothing_was_learnt():
    oracle = planted_target(planted_oracle())
    assert outcome(Membership(), oracle, attacked_rows())[1] < 0.8  # 12 rows: half of chance's 95% is about 0.2
    for model in (planted_model(), planted_oracle()):
        assert outcome(Membership(), planted_target(model), attacked_rows(control=True))[1] < 0.7


def test_a_broken_model_is_told_by_its_scores():
    """Log-probabilities that are no numbers end in no error of a classifier."""
    broken = planted_model()
    with torch.no_grad():
        broken.lm_head.weight[3] = torch.nan
    leaks = list(Membership().run(planted_target(broken), attacked_rows()))
    assert "classifier" not in [leak.setting["by"] for leak in leaks]
    assert all(np.isfinite(leak.rows).all() for leak in leaks)


def test_equal_runs_refusals_and_features():
    target, rows = planted_target(planted_oracle()), attacked_rows()
    first, second = (np.array([leak.rows for leak in Membership().run(target, rows)]) for _ in range(2))
    assert (first == second).all()
    logps = target.logps(rows.rows)
    features, member = loss_features(logps, ["a"] * 24), np.arange(24) < 12
    order = np.random.default_rng(0).permutation(24)  # the rows decide on folds, not their order
    assert (drawn_folds(features, member)[order] == drawn_folds(features[order], member[order])).all()
    assert "never seen" in (Membership().unfit(target, replace(rows, unseen=())) or "")
    assert "never seen" in (Membership().unfit(target, replace(rows, unseen=rows.unseen[:7])) or "")
    with pytest.raises(ValueError, match="k of membership must be above 0 and up to 1"):
        Membership(k=0.0)
