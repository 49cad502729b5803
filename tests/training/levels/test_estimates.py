"""What levels are computed with: the n-gram, the line, the shape of rows, the split. By hand; no model, no run."""

import datasets
import numpy as np
import pytest
import torch

from fixtures.bad_input import TorchStream
from fixtures.examples import assert_four_parts
from hf_unlearn.data import calibration_rows, measurement_rows
from hf_unlearn.model.score_rows import RowLogps
from hf_unlearn.training.levels import shape as shape_module
from hf_unlearn.training.levels.estimate import estimate_levels, moved_levels
from hf_unlearn.training.levels.fits import choose_fit, left_out
from hf_unlearn.training.levels.ngram import NGram
from hf_unlearn.training.levels.ngram_columns import FOUR, copied_columns
from hf_unlearn.training.levels.profile import Profile
from hf_unlearn.training.levels.regression import Line, agreement, dealt_out
from hf_unlearn.training.levels.shape import Shape, TokenMixture, in_order_of
from hf_unlearn.training.levels.token_fits import fit_curve
from oracles.ngram import NgramOracle


def test_the_4_gram_of_a_language_of_three_words():
    """Counted on "a b a b" and "a b c", with a, b, c = 0, 1, 2.

    P1: a and b 3 times, c once, so N = 7, T = 3: P1(a) = P1(b) = (3 + 3 / 3) / 10 = .4, P1(c) = (1 + 1) / 10 = .2.
    After a: b 3 times, N = 3, T = 1: P2(b|a) = (3 + .4) / 4 = .85.
    After b: a and c once, N = T = 2: P2(a|b) = (1 + 2 * .4) / 4 = .45, P2(c|b) = (1 + 2 * .2) / 4 = .35,
        P2(b|b) = 2 * .4 / 4 = .2. After c nothing: P2(.|c) = P1.
    After a b: a and c once, N = T = 2: P3(a|ab) = (1 + 2 * .45) / 4 = .475, P3(c|ab) = (1 + 2 * .35) / 4 = .425.
    After b a: b once: P3(b|ba) = (1 + .85) / 2 = .925. After a b a: b once: P4(b|aba) = (1 + .925) / 2 = .9625.
    """
    a, b, c = range(3)
    ngram = NGram.count([np.array([a, b, a, b]), np.array([a, b, c])], vocabulary=3)
    for row, by_hand in {
        (a, b, a, b): [0.4, 0.85, 0.475, 0.9625],
        (a, b, c): [0.4, 0.85, 0.425],
        (b, b, a): [0.4, 0.2, 0.45],  # "b b" was never seen
        (c, a, b, a): [0.2, 0.4, 0.85, 0.475],  # nothing followed c; "c a" and "c a b" were never seen
    }.items():
        assert np.exp(ngram.logps([np.array(row)])) == pytest.approx(by_hand, rel=1e-12)
    both = ngram.logps([np.array([a, b, c]), np.array([a, b, a, b])])  # no row sees the one before it
    assert np.exp(both) == pytest.approx([0.4, 0.85, 0.425, 0.4, 0.85, 0.475, 0.9625])
    assert np.exp(ngram.logps([np.array([c, w]) for w in (a, b, c)])[1::2]).sum() == pytest.approx(1)


def test_the_4_gram_is_nltks():
    draw = np.random.default_rng(0)
    rows = [draw.zipf(1.5, size) % 9 for size in draw.integers(1, 12, 30)]
    others = [draw.zipf(1.5, size) % 11 for size in draw.integers(1, 12, 20)]  # 9 and 10 were never seen
    oracle = NgramOracle([row.tolist() for row in rows], vocabulary=11)
    expected = [oracle.logp(row.tolist(), place) for row in others for place in range(len(row))]
    assert NGram.count(rows, vocabulary=11).logps(others) == pytest.approx(expected, rel=1e-12)


def test_a_shorter_ngram_of_the_same_counts():
    draw = np.random.default_rng(1)
    rows, others = ([draw.zipf(1.5, size) % 9 for size in draw.integers(1, 12, 20)] for _ in range(2))
    longest = NGram.count(rows, 9, order=6)
    for order in (1, 2, 4, 6):
        assert np.array_equal(longest.shortened(order).logps(others), NGram.count(rows, 9, order).logps(others))


def test_what_a_row_copies_from_itself():
    """Row 7 8 7 8 9 8: 7 and 8 come back, the second 8 after a 7 as before, the third one after something else."""
    rows = [
        {"input_ids": [7, 8, 7, 8, 9, 8], "labels": [-100, -100, 7, 8, 9, 8]},
        {"input_ids": [8, 7, 7, 7], "labels": [8, 7, 7, 7]},  # no row sees the one before it; the first is no target
    ]
    assert copied_columns(rows).tolist() == [[1, 0], [1, 1], [0, 0], [1, 0], [0, 0], [1, 0], [1, 1]]


def test_the_line_and_its_quality_by_hand():
    """Through (1, 2), (2, 4), (3, 7): b = (1 * 7/3 + 1 * 8/3) / 2 = 5/2, a = 13/3 - 5 = -2/3.

    Left out one by one: 1 for 2 (through the others b = 3, a = -2), 4.5 for 4 (b = 2.5, a = -.5), 6 for 7 (b = 2).
    """
    profile, nll = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 7.0])
    line = Line.fit(profile, nll)
    assert (line.intercept, line.slope) == pytest.approx((-2 / 3, 5 / 2))
    assert line(np.array([0.0, 4.0])) == pytest.approx([0.0, 28 / 3])  # an NLL is never below 0
    one, unseen = np.ones(3, int), unseen_rows([2.0], [4.0], [7.0])
    predicted = left_out("line", Profile(profile, one), unseen).rows
    assert predicted.tolist() == pytest.approx([1, 4.5, 6])
    told = agreement(predicted, nll)
    assert (told.spearman, told.error) == pytest.approx((1, 2.5 / 3))
    assert told.pearson == pytest.approx(np.corrcoef([1, 4.5, 6], nll)[0, 1])
    assert Line.fit(np.ones(3), nll) == Line(pytest.approx(13 / 3), 0.0)
    assert left_out("line", Profile(profile[:2], one[:2]), unseen.select([0, 1])) is None
    assert agreement(np.ones(3), nll).spearman is None


def test_the_curve_by_hand():
    """4-gram NLLs 1, 2, 3 with 1, 5, 2, the last of twice the weight: the 5 and the 2s pool at (5 + 2 * 2) / 3 = 3."""
    columns = np.zeros((3, 6))
    columns[:, FOUR] = [1, 2, 3]
    curve = fit_curve(columns, np.array([1.0, 5.0, 2.0]), np.array([1.0, 1.0, 2.0]))
    columns[:, FOUR] = [0, 1.5, 9]  # below, between and beyond what was seen
    assert curve(columns).tolist() == pytest.approx([1, 2, 3])


def bent_rows(count: int, of_token) -> tuple[Profile, RowLogps]:
    """Rows of ten tokens whose NLL is a function of their columns, with the means of rows half hidden by noise."""
    draw = np.random.default_rng(0)
    columns = np.hstack([draw.uniform(0, 10, (count * 10, 4)), draw.integers(0, 2, (count * 10, 2))])
    nll = of_token(columns) + draw.normal(0, 0.2, len(columns))
    rows = columns[:, FOUR].reshape(count, 10).mean(1)
    return Profile(rows, np.full(count, 10), columns), RowLogps(-torch.from_numpy(nll), torch.full((count,), 10))


@pytest.mark.parametrize(
    ("way", "of_token"),
    {
        "line": lambda columns: 5 + columns[:, FOUR] / 2,
        "curve": lambda columns: 1 + np.exp(columns[:, FOUR] / 5),
        "trees": lambda columns: 1 + 5 * columns[:, -1],
    }.items(),
)
def test_tokens_are_bent_where_that_tells_rows_left_out(way, of_token):
    profile, unseen = bent_rows(40 if way == "curve" else 100, of_token)
    chosen = choose_fit(profile, unseen, fewest=25)
    assert chosen.fit.way == way and chosen.agreement.error < 0.2
    others, nll = bent_rows(160, of_token)  # the first hundred of them are others too: the draw is of another size
    assert np.abs(chosen.fit(others) - nll.nll_per_token().numpy()).mean() < 0.2
    # Rows left out lie as far off as rows of another set.
    assert np.abs(chosen.residuals).mean() == pytest.approx(chosen.agreement.error, rel=0.1)
    assert choose_fit(profile, unseen, fewest=101).fit.way == "line"


ROWS = [{"input_ids": [1, 5 + place], "labels": [-100, 5 + place]} for place in range(3)]


def test_residuals_are_dealt_out_by_key():
    # Quantiles 1/6, 1/2, 5/6 of 0, 1, 4: 1/3, 1 and 3.
    residuals = np.array([4.0, 0.0, 1.0])
    assert dealt_out(residuals, ["b", "a", "c"]).tolist() == pytest.approx([1, 1 / 3, 3])
    assert dealt_out(residuals, ["c", "b", "a"]).tolist() == pytest.approx([3, 1, 1 / 3])  # whatever the place
    assert sorted(dealt_out(residuals, [str(i) for i in range(3)])) == pytest.approx([1 / 3, 1, 3])


def unseen_rows(*rows: list[float]) -> RowLogps:
    """Unseen rows whose tokens have these NLLs."""
    return RowLogps(-torch.tensor([nll for row in rows for nll in row]), torch.tensor([len(row) for row in rows]))


def test_the_shape_of_unseen_rows_by_hand():
    # As multiples of their means, 3 and 4: 0, 1, 2 and .5, 1.5.
    shape = Shape(unseen_rows([0.0, 3.0, 6.0], [6.0, 2.0]))
    assert shape(1).tolist() == pytest.approx([1.0])
    # Halves: of the first row the 0 and half of the 1, then the other half and the 2.
    assert shape(2).tolist() == pytest.approx([(0.5 / 1.5 + 0.5) / 2, (2.5 / 1.5 + 1.5) / 2])
    # Thirds: of the second row the .5, half of each, the 1.5.
    assert shape(3).tolist() == pytest.approx([(0 + 0.5) / 2, (1 + 1) / 2, (2 + 1.5) / 2])
    assert shape(6).tolist() == pytest.approx([0.25, 0.25, 0.75, 1.25, 1.75, 1.75])
    alike = Shape(unseen_rows([1.0, 3.0], [30.0, 10.0]))  # the order of tokens and the level of rows do not matter
    assert alike(2).tolist() == pytest.approx([0.5, 1.5])
    certain = Shape(unseen_rows([0.0, 0.0]))
    assert certain(3).tolist() == [1.0, 1.0, 1.0]
    assert Shape(unseen_rows([0.0, 0.0], [2.0, 6.0]))(2).tolist() == pytest.approx([0.5, 1.5])


def test_the_mixture_of_unseen_tokens_by_hand(monkeypatch):
    """Predictions 1, 2, 3, 4 with NLLs 0, 6, 3, 9, and two of like prediction for a token.

    A token predicted 2 lies between 1 and 2 (0 and 6), one predicted 9 at 3 and 4 (3 and 9): 0, 3, 6, 9 in two halves.
    """
    monkeypatch.setattr(shape_module, "LIKE", 2)
    mixture = TokenMixture(np.array([4.0, 1.0, 3.0, 2.0]), np.array([9.0, 0.0, 3.0, 6.0]))
    assert mixture(np.array([9.0, 2.0])).tolist() == pytest.approx([1.5 / 4.5, 7.5 / 4.5])
    assert mixture(np.array([0.0])).tolist() == [1.0]
    few = TokenMixture(np.array([1.0]), np.array([2.0]))
    assert few(np.array([5.0, 7.0])).tolist() == [1.0, 1.0]
    assert TokenMixture(np.zeros(3), np.zeros(3))(np.ones(2)).tolist() == [1.0, 1.0]


def test_values_in_the_order_of_what_is_predicted():
    assert in_order_of(np.array([2.0, 7.0, 1.0]), np.array([0.5, 1.0, 1.5])).tolist() == [1.0, 1.5, 0.5]
    assert in_order_of(np.array([3.0, 1.0, 3.0]), np.array([0.0, 1.0, 2.0])).tolist() == [1.0, 0.0, 2.0]


def test_tokens_of_bent_levels_have_the_mean_of_the_row_and_move_with_it():
    calibration, unseen = bent_rows(50, lambda columns: 1 + np.exp(columns[:, FOUR] / 5))
    forget = calibration.select([0, 1, 2])
    levels = estimate_levels("ngram", forget, calibration, unseen, ROWS, tokens=True)
    assert levels.quality.fit == "curve"
    rows = levels.token_values.reshape(3, 10)
    assert torch.allclose(rows.mean(1), levels.rows) and levels.token_order
    ascending = rows.sort(1).values
    easiest_first = torch.from_numpy(forget.tokens[:, FOUR]).reshape(3, 10).argsort(1)
    assert torch.equal(rows.gather(1, easiest_first), ascending)
    shapes = ascending / levels.rows[:, None]
    assert not torch.allclose(shapes[0], shapes[1], atol=0.05)  # each its own
    moved = moved_levels(levels, forget.lengths, unseen_rows([2.0]), unseen_rows([3.0]))
    assert torch.allclose(moved.rows, levels.rows + 1)
    assert torch.allclose(moved.token_values.reshape(3, 10) / moved.rows[:, None], rows / levels.rows[:, None])
    assert moved.token_order


def test_levels_move_by_what_the_same_rows_have_drifted():
    before, now = unseen_rows([1.0, 3.0], [5.0]), unseen_rows([2.0, 6.0], [4.0])  # means 2, 5 and then 4, 4
    one = np.ones(60, int)
    profile, lengths = np.arange(60) % 4 + 1.0, np.array([2, 1, 2])
    forget = Profile(np.array([1.0, 2.0, 3.0]), lengths)
    first = estimate_levels(
        "ngram", forget, Profile(profile, one), unseen_rows(*([nll] for nll in profile)), ROWS, tokens=True
    )
    assert first.rows.tolist() == pytest.approx([1, 2, 3]) and first.token_values.tolist() == pytest.approx(
        [1, 1, 2, 3, 3]  # rows of one token have no shape
    )
    moved = moved_levels(first, lengths, before, now)
    assert moved.rows.tolist() == pytest.approx([1.5, 2.5, 3.5]) and moved.quality == first.quality
    low, high = Shape(now)(2)
    assert moved.token_values.tolist() == pytest.approx([1.5 * low, 1.5 * high, 2.5, 3.5 * low, 3.5 * high])
    assert moved_levels(first, lengths, unseen_rows([9.0]), unseen_rows([1.0])).rows.tolist() == [0.0, 0.0, 0.0]


def estimated(profile: np.ndarray, nll: np.ndarray, source: str = "ngram"):
    """Levels of three forget rows of one token, from unseen rows of one token each."""
    one = np.ones(len(nll), int)
    unseen = RowLogps(-torch.from_numpy(nll).float(), torch.from_numpy(one))
    profiles = Profile(np.array([1.0, 2.0, 3.0]), np.ones(3, int)), Profile(profile, one)
    return estimate_levels(source, *profiles, unseen, ROWS, tokens=True)


def test_levels_that_are_poorly_known_say_so():
    draw = np.random.default_rng(0)
    profile = draw.normal(3, 1, 60)
    good = estimated(profile, 1 + 2 * profile + draw.normal(0, 0.1, 60))
    assert good.quality.warnings == () and good.rows.tolist() == pytest.approx([3, 5, 7], abs=0.25)
    assert good.quality.spearman > 0.98 and good.quality.mean == pytest.approx(float(good.rows.mean()))
    assert good.token_starts.tolist() == [0, 1, 2, 3] and torch.equal(good.token_values, good.rows)
    poor = estimated(profile, 5 + draw.normal(0, 1, 60))
    assert len(poor.quality.warnings) == 1 and "row is the harder one is not known" in poor.quality.warnings[0]
    assert float(poor.rows.mean()) == pytest.approx(5, abs=0.5)

    few = estimated(profile[:20], 1 + 2 * profile[:20])
    assert len(few.quality.warnings) == 1 and "20 unseen rows" in few.quality.warnings[0]
    assert len(estimated(profile[:2], profile[:2]).quality.warnings) == 2
    assert estimated(np.zeros(60), profile, "holdout").quality.warnings == ()  # it claims no profile


PAIRS = [{"prompt": f"who is {i}?", "completion": f" fox {i * i}"} for i in range(400)]


def test_a_row_is_in_one_half_wherever_it_stands_and_however_it_is_spelled():
    def measured(rows) -> list[int]:
        rows = datasets.Dataset.from_list(rows)
        half = measurement_rows(rows.add_column("place", range(len(rows))))
        return [int(place) for place in half["place"]]

    places = measured(PAIRS)
    assert 150 < len(places) < 250
    assert [row["place"] for row in calibration_rows([{**row, "place": i} for i, row in enumerate(PAIRS)])] == sorted(
        set(range(400)) - set(places)
    )
    assert measured(PAIRS[:50]) == [place for place in places if place < 50]  # the other rows do not matter
    assert [399 - place for place in reversed(measured(PAIRS[::-1]))] == places
    spelled = [{"question": row["prompt"], "answer": row["completion"].strip()} for row in PAIRS]
    chats = [
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": row["prompt"]}]},
                {"role": "assistant", "content": [{"type": "text", "text": row["completion"]}]},
            ]
        }
        for row in PAIRS
    ]
    split = [
        {name: [{"role": "user", "content": row[name]}] for name in ("prompt", "completion")} | {"text": "x"}
        for row in PAIRS
    ]
    assert measured(spelled) == measured(chats) == measured(split) == places
    ids = [{"input_ids": [1, i], "labels": [-100, i]} for i in range(40)]
    assert measured(ids) == measured([row | {"text": "any"} for row in ids]) != []


def test_a_stream_has_the_same_halves():
    whole = datasets.Dataset.from_list(PAIRS[:40])
    half = [row["prompt"] for row in calibration_rows(whole)]
    for stream in (whole.to_iterable_dataset(), TorchStream(PAIRS[:40])):
        assert [row["prompt"] for row in calibration_rows(stream)] == half != []


def test_rows_without_text_have_no_half():
    with pytest.raises(ValueError, match="prompt and completion") as caught:
        calibration_rows([{"title": "a", "body": "b"}])
    assert_four_parts(str(caught.value))
    assert len(calibration_rows(datasets.Dataset.from_list([]))) == 0  # refused where rows are paired


def test_an_ngram_of_rows_that_are_shorter_than_its_order():
    short = NGram.count([np.array([0, 1]), np.array([1, 2])], 3, order=4)
    alike = NGram.count([np.array([0, 1]), np.array([1, 2])], 3, order=2)
    rows = [np.array([0, 1, 2, 0]), np.array([2])]
    assert len(short.lengths) == 2 and np.array_equal(short.logps(rows), alike.logps(rows))
