"""Rows that are read straight from Arrow's memory: the same as datasets reads them, however the set is stored."""

import pickle

import datasets
import pytest

from hf_unlearn.data.row_items import RowReader, read_rows

ROWS = datasets.Dataset.from_list(
    [{"input_ids": list(range(i, 2 * i + 1)), "labels": [-100] * i + [7], "answer_start": i} for i in range(12)]
)
SETS = {
    "as it is": ROWS,
    "shuffled and selected": ROWS.shuffle(seed=3).select(range(2, 9)),
    "a part in one piece": ROWS.select(range(4, 10)),
    "several chunks": datasets.concatenate_datasets([ROWS.select(range(5)), ROWS.select(range(5, 12))]),
    "some columns": ROWS.select_columns(["labels"]),
    "with a gap": datasets.Dataset.from_list([{"input_ids": [1, 2]}, {"input_ids": None}, {"input_ids": [3]}]),
    "with text": datasets.Dataset.from_list([{"input_ids": [i], "text": "word"} for i in range(3)]),
    "with a format": ROWS.with_format("python", columns=["labels"]),
    "a list": ROWS.to_list(),
}


@pytest.mark.parametrize("name", SETS)
def test_rows_are_those_that_the_set_gives(name):
    rows = SETS[name]
    read = RowReader(rows)
    for indices in ([0], [2, 0, 2, 1], [], list(range(len(rows)))):
        for copy in (read, pickle.loads(pickle.dumps(read))):
            assert copy(indices) == read_rows(rows, indices)
