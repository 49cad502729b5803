"""The answer index that a batch carries: through loaders, copies and changes of the batch, and parts of it."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from fixtures.models import make_trainer, step_logs, tiny_model
from hf_unlearn import UnlearningTrainer
from hf_unlearn.data import DataCollatorForUnlearning, Role
from hf_unlearn.data.answer_positions import read_answer_index
from hf_unlearn.data.batch import (
    IndexingCollator,
    answer_index,
    count_answers,
    indexed,
    select_roles,
)
from hf_unlearn.model.output_head import output_head
from hf_unlearn.model.scoring import score, score_answers
from model.test_output_head import batch_of, plain


def row(*ids: int, prompt: int = 1, **more: Any) -> dict[str, Any]:
    return {"input_ids": list(ids), "labels": [-100] * prompt + list(ids[prompt:]), **more}


ITEMS = [
    row(5, 6, 7, 8, row=4, alternate=row(5, 9), retain=[row(10, 11, 12, 13, 14, 15, prompt=3, row=7)], mismatch=[]),
    row(20, 21, row=0, alternate=row(20, 22, 23), retain=[row(30, 31, row=2)], mismatch=[row(20, 40, 41, prompt=2)]),
]


def collated(side: str = "right", padding_free: bool = False) -> dict[str, Any]:
    return IndexingCollator(DataCollatorForUnlearning(0, padding_side=side, padding_free=padding_free))(ITEMS)


def test_the_index_of_a_batch_by_hand():
    index = collated()["answer_index"]
    # Rows: forget 0, 1; retain 2, 3; alternates 4, 5; one mismatch 6. Six columns; t predicts t + 1.
    assert index.positions.tolist() == [0, 1, 2, 6, 12 + 2, 12 + 3, 12 + 4, 18, 24, 30, 31, 36 + 1]
    assert index.targets.tolist() == [6, 7, 8, 21, 13, 14, 15, 31, 9, 22, 23, 41]
    assert index.host_lengths == (3, 1, 3, 1, 1, 2, 1) and index.lengths.tolist() == list(index.host_lengths)
    assert index.rows[:4] == (2, 2, 2, 1) and index.tokens[:4] == (4, 4, 3, 1) and sum(index.rows) == 7
    assert index.columns[:4] == ((0, 4), (0, 6), (0, 3), (0, 3)) and set(index.columns[4:]) == {(0, 0)}
    assert index.row_numbers == (4, 0, 7, 2, -1, -1, -1) and index.longest == 6 and index.shape == (7, 6)
    assert collated("left")["answer_index"].columns[:4] == ((2, 6), (0, 6), (3, 6), (3, 6))


@pytest.mark.parametrize("padding_free", [False, True])
@pytest.mark.parametrize("side", ["right", "left"])
def test_every_choice_of_roles_has_the_index_of_its_rows(side, padding_free):
    batch = collated(side, padding_free)
    present = [Role.FORGET, Role.RETAIN, Role.ALTERNATE, Role.MISMATCH]
    for chosen in range(1, 16):
        roles = {role for i, role in enumerate(present) if chosen >> i & 1}
        part = select_roles(batch, roles)
        found = part["answer_index"]
        fresh = read_answer_index({key: value for key, value in part.items() if key != "answer_index"})
        for name in ("positions", "targets", "lengths"):
            assert torch.equal(getattr(found, name), getattr(fresh, name)), (roles, name)
        for name in ("rows", "tokens", "columns", "row_numbers", "host_lengths", "packed", "shape"):
            assert getattr(found, name) == getattr(fresh, name), (roles, name)
        assert found.longest >= fresh.longest
        again = select_roles(part, {min(roles)})  # a part of a part
        assert torch.equal(again["answer_index"].positions, read_answer_index(again).positions)
        # What a role's rows hold is what they held.
        for role in roles:
            tokens = found.targets[found.token_slice(role)]
            assert tokens.tolist() == batch["answer_index"].targets[batch["answer_index"].token_slice(role)].tolist()
            counts = count_answers(part)[role]
            assert counts.tolist() == count_answers(batch)[role].tolist() == [len(tokens), found.rows[role]]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda batch: pickle.loads(pickle.dumps(batch))])
def test_a_copy_of_a_batch_has_its_index(copied):
    batch, collate = collated(), IndexingCollator(DataCollatorForUnlearning(0))
    original = batch["answer_index"]
    for index in (copied(batch)["answer_index"], copied(collate)(ITEMS)["answer_index"]):
        assert torch.equal(index.positions, original.positions) and index.rows == original.rows


def changed(batch: dict[str, Any], change: str) -> dict[str, Any]:
    def each(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if change == "rows":
            return value[:3]
        return value if value.ndim == 1 else pad(value, (2, 0)) if change == "left" else pad(value, (0, 3))

    new = {key: each(value) for key, value in batch.items()}
    if change != "rows":
        new["labels"] = torch.where(new["attention_mask"].bool(), new["labels"], -100)
    return new


@pytest.mark.parametrize("change", ["rows", "left", "right"])
def test_a_index_that_came_before_a_change_of_the_batch_is_not_used(change):
    model, batch = plain(), batch_of()
    batch["answer_index"] = read_answer_index(batch)
    new = changed(batch, change)
    stale, fresh = answer_index(batch), {key: value for key, value in new.items() if key != "answer_index"}
    assert not torch.equal(answer_index(new).positions, stale.positions)
    found, expected = (score(model, output_head(model), each)[0] for each in (new, fresh))
    torch.testing.assert_close(found.forget.logps, expected.forget.logps, rtol=0, atol=0)
    torch.testing.assert_close(found.retain.logps, expected.retain.logps, rtol=0, atol=0)


class Widening(UnlearningTrainer):
    """A user's own, which pads every batch to a multiple of 32 columns."""

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        length = inputs["labels"].shape[1]
        by = -length % 32
        wide = {k: pad(v, (0, by)) if isinstance(v, Tensor) and v.ndim == 2 else v for k, v in inputs.items()}
        wide["labels"][:, length:] = -100
        return super().training_step(model, wide, num_items_in_batch)


def test_a_trainer_that_pads_its_batches_trains_the_same(tmp_path):
    logs = []
    for kind in (UnlearningTrainer, Widening):
        trainer = make_trainer(tmp_path, tiny_model(), trainer_class=kind, retain_loss="kl", max_steps=3)
        trainer.train()
        logs.append(step_logs(trainer))
    for one, other in zip(*logs, strict=True):
        for name in ("loss", "grad_norm", "retain/kl", "forget_nll"):
            assert other[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6), name
    assert logs[0][-1]["retain/kl"] > 1e-3


@pytest.mark.parametrize("padding_free", [False, True])
def test_a_row_without_answers_is_no_row_of_a_mean(padding_free):
    silent = row(50, 51, 52, prompt=3, retain=[row(60, 61)], mismatch=[])
    batch = IndexingCollator(DataCollatorForUnlearning(0, padding_free=padding_free))([ITEMS[0], silent])
    assert batch["answer_index"].host_lengths[:2] == (3, 0)
    assert count_answers(batch)[Role.FORGET].tolist() == [3, 1] and count_answers(batch)[Role.RETAIN].tolist() == [
        4,
        2,
    ]


@pytest.mark.parametrize("padding_free", [False, True])
def test_rows_without_roles_have_the_index_of_the_same_rows_as_forget_rows(padding_free):
    rows = [row(5, 6, 7, 8, row=4), row(10, 11, 12, prompt=3), row(20, 21)]
    collator = DataCollatorForUnlearning(0, padding_free=padding_free)
    alone, forget = indexed(collator.collate_rows(rows)), IndexingCollator(collator)(rows)
    assert alone.keys() == forget.keys() - {"role", "source"}
    assert all(torch.equal(alone[key], forget[key]) for key in alone.keys() - {"answer_index"})
    one, other = alone["answer_index"], forget["answer_index"]
    assert one.targets.tolist() == other.targets.tolist() == [6, 7, 8, 21]
    assert torch.equal(one.positions, other.positions) and torch.equal(one.lengths, other.lengths)
    assert (one.row_numbers, one.host_lengths, one.longest) == ((4, -1, -1), (3, 0, 1), 4)
    assert sum(one.rows) == sum(one.tokens) == 0 and one.token_slice(None) == slice(0, 4)


def test_rows_are_scored_whatever_they_are_there_for():
    model, batch = plain(), batch_of()
    rows, _ = score_answers(model, output_head(model), batch)
    by_role, _ = score(model, output_head(model), batch)
    scores = [scores for _, scores in by_role.items()]
    assert len(scores) > 1 and rows.logps.abs().max() > 0
    assert torch.equal(rows.logps, torch.cat([each.logps for each in scores]))
    assert torch.equal(rows.nll_sum(), torch.cat([each.nll_sum() for each in scores]))
    assert torch.equal(rows.row, batch["row"]) and set(rows.source.tolist()) == {-1}
