"""Levels of a run: measured before its first step, read by the bound, kept in caches and records, or refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

from fixtures.bad_input import TorchStream
from fixtures.examples import assert_user_error
from fixtures.models import RETAIN, make_trainer, tiny_model, tiny_tokenizer, train_sets
from fixtures.tokenizer import make_tokenizer
from hf_unlearn import UnlearningConfig
from hf_unlearn.data import calibration_rows
from hf_unlearn.data.digests import row_digest
from hf_unlearn.results.model_card import render_card
from hf_unlearn.results.record import load_record
from hf_unlearn.results.record_words import FIT_WORDS
from hf_unlearn.training.levels import ngram
from hf_unlearn.training.levels.profile import same_tokens
from oracles import naive
from oracles.ngram import NgramOracle

UNSEEN = [{"prompt": f"where is dog {i}?", "completion": f" room {i * i}" + " w" * (i % 5)} for i in range(60)]
SETS = train_sets() | {"holdout": datasets.Dataset.from_list(UNSEEN)}


def trainer_of(folder: Path, model: Any = None, *, sets: dict[str, Any] | None = None, **arguments: Any) -> Any:
    arguments = {"forget_nll_bound": "levels", "forget_loss": "grad_ascent"} | arguments
    return make_trainer(folder, tiny_model() if model is None else model, sets=sets or SETS, **arguments)


def measured(trainer: Any) -> Any:
    """The levels of a trainer's model, without training it."""
    trainer._measure(trainer.model, sharded=False)
    assert torch.equal(trainer.baseline.bound, trainer.baseline.levels.rows)
    return trainer.baseline.levels


def row_nll(model: Any, rows: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array([float(-naive.token_logps(model, row).detach().mean()) for row in rows])


def around_the_line(
    rows: Sequence[Any], forget: np.ndarray, calibration: np.ndarray, unseen: np.ndarray
) -> list[float]:
    """Levels by another least squares than the package's; residuals in the order of the rows' hashes."""
    slope, intercept = np.polyfit(calibration, unseen, 1)
    residuals = np.sort(unseen - intercept - slope * calibration)
    order = sorted(range(len(rows)), key=lambda place: row_digest(rows[place]))
    # Between the two of the sorted residuals at whose places, from 0 to 1, the quantile lies.
    quantiles = np.interp((np.arange(len(rows)) + 0.5) / len(rows), np.linspace(0, 1, len(residuals)), residuals)
    dealt = dict(zip(order, quantiles, strict=True))
    return [max(0.0, intercept + slope * profile + dealt[place]) for place, profile in enumerate(forget)]


def saved(folder: Path, model: Any, tokenizer: Any) -> str:
    """A model with its tokenizer, in a folder."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_levels_of_the_4_gram_are_those_of_the_naive_loop(tmp_path):
    trainer = trainer_of(tmp_path, levels="ngram")
    levels, sets = measured(trainer), trainer.train_sets
    assert len(sets.holdout) == len(calibration_rows(UNSEEN)) < len(UNSEEN)
    assert levels.quality.fit == "line"  # too few rows for another
    oracle = NgramOracle([row["input_ids"] for row in sets.retain], vocabulary=261)
    profiles = [
        np.array([-np.mean([oracle.logp(row["input_ids"], t + 1) for t, _ in naive.shift_check(row)]) for row in rows])
        for rows in (sets.forget, sets.holdout)
    ]
    expected = around_the_line(sets.forget, *profiles, row_nll(trainer.model, sets.holdout))
    assert levels.rows.tolist() == pytest.approx(expected, rel=1e-5)
    assert levels.quality.calibration_rows == len(sets.holdout) and levels.quality.forget_rows == 12
    assert levels.token_values is None  # which no loss reads


def test_levels_reach_the_record_and_the_card(tmp_path):
    trainer = trainer_of(tmp_path, levels="ngram", retain_loss="none")
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    record = load_record(tmp_path / "saved")
    assert record.levels == trainer.baseline.levels.quality and record.sets["retain"].rows == len(RETAIN)
    assert record.sets["holdout"].rows == record.levels.calibration_rows
    card = render_card(record)
    words = FIT_WORDS.get(record.levels.fit, "")
    assert f"counted on the retain rows{words}; mean {record.levels.mean:.2f} nats per token; calibrated on" in card
    assert "They are one half of the holdout set; the other half is left for measuring." in card
    for warning in record.levels.warnings:
        assert warning[:40] in card


def test_levels_without_a_profile_and_levels_that_are_given(tmp_path):
    trainer = trainer_of(tmp_path, levels="holdout")
    levels, sets = measured(trainer), trainer.train_sets
    assert levels.quality.slope == 0 and levels.quality.spearman is None
    unseen = row_nll(trainer.model, sets.holdout)
    assert float(levels.rows.mean()) == pytest.approx(unseen.mean(), rel=0.02)
    assert sorted(levels.rows.tolist()) == pytest.approx(np.quantile(unseen, (np.arange(12) + 0.5) / 12), rel=1e-5)
    given = {str(row): 3 + row / 4 for row in reversed(range(12))}
    trainer = trainer_of(tmp_path, levels=given, sets=train_sets())
    assert measured(trainer).rows.tolist() == [3 + row / 4 for row in range(12)]
    assert trainer.train_sets.holdout is None and trainer.baseline.levels.quality.source == "given"
    text = UnlearningConfig(output_dir=str(tmp_path), levels='{"0": 1.5, "1": 2}', report_to="none")
    assert text.levels == {0: 1.5, 1: 2.0}


@pytest.mark.parametrize("source", ["ngram", "holdout"])
def test_levels_of_tokens_have_the_shape_of_unseen_rows_and_the_mean_of_the_row(tmp_path, source):
    loss = {"name": "unseen_level", "token_weight": 0.1}
    arguments = dict(levels=source, forget_nll_bound=None, forget_loss=loss)
    trainer, turned = (
        trainer_of(tmp_path, sets={**SETS, "forget": SETS["forget"].select(order)}, **arguments)
        for order in (range(12), range(11, -1, -1))
    )
    trainer._measure(trainer.model, sharded=False)
    turned._measure(turned.model, sharded=False)
    levels, other = trainer.baseline.levels, turned.baseline.levels
    lengths = [len(naive.shift_check(row)) for row in trainer.train_sets.forget]
    assert levels.token_starts.tolist() == np.cumsum([0, *lengths]).tolist()
    rows = levels.token_values.split(lengths)
    assert [row.tolist() for row in rows][::-1] == [part.tolist() for part in other.token_values.split(lengths[::-1])]
    unseen = [-naive.token_logps(trainer.model, row).detach().double() for row in trainer.train_sets.holdout]
    for row, level in zip(rows, levels.rows, strict=True):
        assert float(row.mean()) == pytest.approx(float(level), rel=1e-5) and row.tolist() == sorted(row.tolist())
        # Every token of an unseen row is cut into as many parts as this row has tokens, and the other way round.
        parts = [(tokens.sort().values / tokens.mean()).repeat_interleave(len(row)) for tokens in unseen]
        shapes = torch.stack([part.reshape(len(row), -1).mean(1) for part in parts])
        assert row.tolist() == pytest.approx((level * shapes.mean(0)).tolist(), rel=1e-4)


def test_levels_by_a_model_of_the_same_tokenizer_and_of_another(tmp_path):
    other, merged = tiny_model("opt", seed=3), make_tokenizer((("Ġ", "r"), ("o", "o")))
    trainer = trainer_of(tmp_path, levels=saved(tmp_path / "same", other, tiny_tokenizer("</s>")))
    sets, levels = trainer.train_sets, measured(trainer)
    unseen = row_nll(trainer.model, sets.holdout)
    expected = around_the_line(sets.forget, row_nll(other, sets.forget), row_nll(other, sets.holdout), unseen)
    assert levels.rows.tolist() == pytest.approx(expected, rel=1e-4) and levels.quality.source == "model"

    other = tiny_model("opt", seed=3, vocabulary=len(merged))
    trainer = trainer_of(tmp_path, levels=saved(tmp_path / "other", other, merged))
    levels, profiled = measured(trainer), trainer._prepared.sets.profiled
    profiles, shorter = [], 0
    for theirs, own in ((profiled.forget, sets.forget), (profiled.calibration, sets.holdout)):
        lengths = [[len(naive.shift_check(row)) for row in rows] for rows in (theirs, own)]
        shorter += sum(one < other for one, other in zip(*lengths, strict=True))
        # The answer's text in their tokens, over as many tokens as it has in ours.
        profiles.append(row_nll(other, theirs) * np.array(lengths[0]) / np.array(lengths[1]))
    assert shorter > 10, "the tokenizers cut alike"
    assert levels.rows.tolist() == pytest.approx(around_the_line(sets.forget, *profiles, unseen), rel=1e-4)


def test_tokenizers_with_the_same_tokens():
    more = tiny_tokenizer()
    more.add_tokens(["<new>"])
    assert same_tokens(tiny_tokenizer(), tiny_tokenizer("</s>")) and same_tokens(tiny_tokenizer(), more)
    assert not same_tokens(tiny_tokenizer(), make_tokenizer((("a", "b"),)))


def test_levels_are_read_from_the_cache_where_all_agrees(tmp_path, monkeypatch):
    counted = []
    count = ngram.NGram.count
    monkeypatch.setattr(ngram.NGram, "count", lambda *a, **k: counted.append(1) or count(*a, **k))
    first = measured(trainer_of(tmp_path, levels="ngram"))
    files = {path.name for path in (tmp_path / "reference").iterdir()}
    assert len(files) == 9 and len(counted) == 1  # NLLs of the holdout; four n-grams of forget and holdout rows
    again = measured(trainer_of(tmp_path, levels="ngram"))
    assert torch.equal(again.rows, first.rows) and again.quality == first.quality
    assert len(counted) == 1 and {path.name for path in (tmp_path / "reference").iterdir()} == files

    def new_files(**changes: Any) -> int:
        """Files that a run with something else adds."""
        known = {path.name for path in (tmp_path / "reference").iterdir()}
        measured(trainer_of(tmp_path, levels="ngram", **changes))
        return len({path.name for path in (tmp_path / "reference").iterdir()} - known)

    assert new_files(model=tiny_model(seed=5)) == 1  # the NLLs; the n-gram knows of no weights
    assert new_files(sets={**SETS, "retain": SETS["retain"].select(range(20))}) == 8  # the n-grams of both sets
    assert new_files(sets={**SETS, "forget": SETS["forget"].select(range(8))}) == 4
    assert new_files(sets={**SETS, "holdout": SETS["holdout"].select(range(50))}) == 5  # NLLs and n-grams
    longer = tiny_tokenizer()
    longer.add_tokens(["<new>"])
    larger = tiny_model(vocabulary=262)
    assert new_files(model=larger, tokenizer=longer) == 9
    assert new_files(sets={**SETS, "holdout": SETS["holdout"].shuffle(seed=0)}) == 5  # another order, other numbers


def test_a_model_that_is_made_anew_is_measured_anew(tmp_path):
    seeds = iter((0, 4))
    trainer = make_trainer(
        tmp_path,
        None,
        sets=SETS,
        model_init=lambda: tiny_model(seed=next(seeds)),
        levels="ngram",
        forget_nll_bound="levels",
        forget_loss="grad_ascent",
    )
    trainer.train()
    other = measured(trainer_of(tmp_path, tiny_model(seed=4), levels="ngram"))
    first = measured(trainer_of(tmp_path, levels="ngram"))
    assert torch.equal(trainer.baseline.levels.rows, other.rows) and not torch.equal(other.rows, first.rows)


def test_few_holdout_rows_are_warned_of(tmp_path):
    levels = measured(trainer_of(tmp_path, sets=train_sets(), levels="ngram"))
    assert levels.quality.calibration_rows < 10 and "give 50 holdout rows" in levels.quality.warnings[0]


IDS = [{"input_ids": [1, 9, 10 + i], "labels": [-100, -100, 10 + i]} for i in range(12)]


def _cases(folder: Path) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """What is refused -> arguments of the trainer, words of the error."""
    foreign = saved(folder / "foreign", tiny_model(vocabulary=262), make_tokenizer((("a", "b"),)))
    own = saved(folder / "own", tiny_model(), tiny_tokenizer())
    held = {"levels": "holdout"}
    return {
        "nothing reads them": (held | {"forget_nll_bound": 3.0}, ["reads levels", "forget_nll_bound='levels'"]),
        "a bound without levels": ({"levels": None}, ["levels together with forget_nll_bound='levels'"]),
        "no holdout": (
            {"levels": "ngram", "sets": {k: v for k, v in SETS.items() if k != "holdout"}},
            ["train_dataset['holdout']", "levels='ngram'"],
        ),
        "one unseen row": (held | {"sets": {**SETS, "holdout": UNSEEN[:1]}}, ["holdout rows enough"]),
        "no retain rows": (
            {"levels": "ngram", "retain_loss": "none", "sets": {k: v for k, v in SETS.items() if k != "retain"}},
            ["train_dataset['retain'], for levels='ngram'"],
        ),
        "a forget stream": (
            held | {"sets": {**SETS, "forget": TorchStream(train_sets()["forget"])}},
            ["the forget set"],
        ),
        "a retain stream": (
            {"levels": "ngram", "sets": {**SETS, "retain": TorchStream(SETS["retain"])}},
            ["the retain set with a length"],
        ),
        "a holdout stream": (
            held | {"sets": {**SETS, "holdout": TorchStream(UNSEEN)}},
            ["the holdout set with a length"],
        ),
        "a row without a level": ({"levels": dict.fromkeys(range(11), 2.0)}, ["12 forget rows", "row 11"]),
        "a level without a row": ({"levels": dict.fromkeys(range(13), 2.0)}, ["12 forget rows", "row 12"]),
        "no number of a row": ({"levels": {"first": 2.0}}, ["levels must be by index", "'first'"]),
        "a level below 0": ({"levels": {"0": -2.0}}, ["levels[0] must be a finite number above 0"]),
        "no text": ({"levels": ["ngram"]}, ["levels must be"]),
        "a slip": ({"levels": "ngrma"}, ["'ngrma'", "did you mean 'ngram'?"]),
        "its own model": ({"levels": own, "model": own}, ["a model that never saw", "the model that is to forget"]),
        "token ids": (
            {"levels": foreign, "sets": {**SETS, "forget": IDS}},
            ["forget rows with their text", "another tokenizer"],
        ),
    }


def test_levels_that_cannot_be_had_are_refused(tmp_path):
    for name, (arguments, words) in _cases(tmp_path).items():
        with pytest.raises(ValueError) as caught:
            trainer_of(tmp_path, **arguments)
        message = str(caught.value)
        assert [word for word in words if word not in message] == [], (name, message)
        assert_user_error(message)
