"""Scores of sets: short rows in larger batches, of no more tokens than so many of the longest; in the rows' order."""

import pytest
import torch
from accelerate import Accelerator

from fixtures.models import tiny_model
from hf_unlearn.data.collator import DataCollatorForUnlearning
from hf_unlearn.model.score_rows import RowLogps, RowScorer

LENGTHS = [3, 12, 2, 4, 4, 3, 12, 5, 2, 2, 11, 3]
ROWS = [
    {"input_ids": [3 + (7 * row + place) % 40 for place in range(length)], "answer_start": 1 + row % (length - 1)}
    for row, length in enumerate(LENGTHS)
]
for row in ROWS:
    row["labels"] = [-100] * row["answer_start"] + row["input_ids"][row["answer_start"] :]


def scorer_of(batch_size: int) -> RowScorer:
    return RowScorer(DataCollatorForUnlearning(0), Accelerator(cpu=True), batch_size)


def test_short_rows_fill_a_batch_as_long_ones_do():
    model, shapes = tiny_model().eval(), []
    model.model.register_forward_hook(lambda m, i, output: shapes.append(tuple(output[0].shape[:2])))
    together = scorer_of(2)(model, ROWS, "")
    # After what is tried once of a model: two rows of 12, of 11 and 5, six of up to 4, and what is left.
    assert shapes[-4:] == [(2, 12), (2, 11), (6, 4), (2, 2)]
    alone = [scorer_of(1)(model, [row], "") for row in ROWS]
    assert together.lengths.tolist() == [
        length - row["answer_start"] for length, row in zip(LENGTHS, ROWS, strict=True)
    ]
    torch.testing.assert_close(together.logps, torch.cat([row.logps for row in alone]), rtol=0, atol=1e-5)
    likeliest = scorer_of(2).top_k(model, ROWS, 3, "")
    right = torch.cat([scorer_of(1).top_k(model, [row], 3, "").ids for row in ROWS])
    assert torch.equal(likeliest.ids, right) and torch.equal(likeliest.lengths, together.lengths)


@pytest.mark.parametrize("places", [[2, 0, 1], [1, 1], [0, 3]])
def test_some_rows_of_a_set(places):
    rows = [[-1.0], [-2.0, -3.0], [], [-4.0, -5.0, -6.0]]
    stored = RowLogps(torch.tensor([value for row in rows for value in row]), torch.tensor([len(row) for row in rows]))
    chosen = stored.select(places)
    assert chosen.logps.tolist() == [value for place in places for value in rows[place]]
    assert chosen.lengths.tolist() == [len(rows[place]) for place in places]
