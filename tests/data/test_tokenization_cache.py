"""A set is tokenised once: what is read from the cache, what is not, and in how many processes. Not the ids."""

import errno
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from fixtures.examples import assert_four_parts
from fixtures.tokenizer import make_tokenizer
from hf_unlearn.data.encoding import RowEncoder
from hf_unlearn.data.lengths import longest_row
from hf_unlearn.data.prepare import RowOptions, tokenize_train_sets
from hf_unlearn.data.row_cache import RowCache
from hf_unlearn.data.tokenization import tokenize_rows

ROWS = [{"prompt": f"who is {i}?", "completion": " fox" + " x" * (i % 7)} for i in range(60)]


@pytest.fixture
def on_disk(tmp_path) -> datasets.Dataset:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return datasets.load_dataset(
        "json", data_files=str(tmp_path / "rows.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """Rows that each call of the encoder was given, in this process. Its pickle, the cache's key, stays as it is."""
    counts: list[int] = []
    original = RowEncoder.__call__

    def counted(self: RowEncoder, batch: Any, indices: Any) -> Any:
        counts.append(len(indices))
        return original(self, batch, indices)

    monkeypatch.setattr(RowEncoder, "__call__", counted)
    return counts


@pytest.fixture
def tokenized(tmp_path) -> Callable[..., datasets.Dataset]:
    """Tokenises with the cache of a run."""
    cache = RowCache(tmp_path / "run" / ".rows")
    options = dict(tokenizer=make_tokenizer(), set_name="forget", max_length=32, cache=cache)
    return lambda rows, **changed: tokenize_rows(rows, **options | changed)


def test_a_second_run_reads_what_the_first_has_written(on_disk, encoded, tokenized):
    first = tokenized(on_disk)
    assert encoded == [60] and len(first.cache_files) == 1
    again = tokenized(on_disk, tokenizer=make_tokenizer())  # loaded anew
    assert encoded == [60] and again[:] == first[:]
    assert tokenized(on_disk.select(range(5)))[:] == tokenized(on_disk.select(range(5)))[:] == first[:5]
    assert encoded == [60, 5]


def test_a_tokenizer_that_was_used_is_the_same(on_disk, encoded, tokenized):
    """Padding and truncation of a call stay in a fast tokenizer's state, and its ids here do not depend on them."""
    tokenizer = make_tokenizer()
    first = tokenized(on_disk, tokenizer=tokenizer)
    tokenizer(["a", "a longer text"], padding=True)
    tokenizer(["a longer text"], truncation=True, max_length=3, padding="max_length")
    assert tokenized(on_disk, tokenizer=tokenizer)[:] == first[:]
    assert encoded == [60]


@pytest.mark.parametrize("changed", [{"max_length": 16}, {"template": "{prompt}\n{completion}"}])
def test_what_changes_the_ids_is_not_read_from_the_cache(on_disk, encoded, changed, tokenized):
    assert tokenized(on_disk)[:] != tokenized(on_disk, **changed)[:]
    assert encoded == [60, 60]


def test_rows_in_memory_are_encoded_by_each_run(encoded, tokenized):
    """datasets writes no file for a set that has none."""
    rows = datasets.Dataset.from_list(ROWS)
    assert tokenized(rows)[:] == tokenized(rows)[:]
    assert encoded == [60, 60]


def test_a_stream_is_encoded_as_it_is_read(on_disk, encoded, tokenized):
    stream = tokenized(on_disk.to_iterable_dataset())
    assert encoded == []
    assert next(iter(stream))["input_ids"] == tokenized(on_disk)[0]["input_ids"]


def test_several_processes_share_the_rows(on_disk, encoded, tokenized):
    shared = tokenized(on_disk, num_proc=2)
    assert encoded == [], "none of it in this process"
    names = sorted(Path(file["filename"]).name for file in shared.cache_files)
    assert [name[-21:] for name in names] == [f"_0000{i}_of_00002.arrow"[-21:] for i in range(2)]
    assert tokenized(on_disk.map(lambda row: row))[:] == shared[:]


@pytest.mark.parametrize("processes", [None, 2])
def test_a_full_disk_is_told_and_what_was_begun_is_not_read(on_disk, tokenized, tmp_path, processes):
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # no file may be longer: as a full disk, to a writer
    try:
        with pytest.raises(OSError) as error:
            tokenized(on_disk, num_proc=processes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert_four_parts(error.value.strerror, "token ids of the forget set", str(tmp_path / "run" / ".rows"))
    assert error.value.errno == errno.ENOSPC
    assert tokenized(on_disk, num_proc=processes)[:] == tokenized(on_disk, cache=None)[:]


def test_rows_of_two_sets_are_compared_and_measured_whatever_lies_under_them(on_disk, encoded, tokenized):
    """Digests and lengths are read from Arrow's memory: of parts, of parts of parts and of sets put together."""
    options = RowOptions(make_tokenizer(), 32, None, None)
    both = datasets.concatenate_datasets([on_disk.select([9, 3]), datasets.Dataset.from_list(ROWS[20:25])])
    kinds = dict(alternates=(), retain=True, holdout=False)
    sets = tokenize_train_sets({"forget": both, "retain": on_disk.select([50, 40])}, options, **kinds)
    assert longest_row(sets.forget) == max(len(row["input_ids"]) for row in sets.forget)
    assert longest_row(sets.retain) == max(len(row["input_ids"]) for row in sets.retain)
    for shared in (9, 3, 24):
        with pytest.raises(ValueError, match=r"1 retain rows that are forget rows, the first at index 1"):
            tokenize_train_sets({"forget": both, "retain": on_disk.select([50, shared])}, options, **kinds)
