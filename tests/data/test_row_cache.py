"""Where rows and token ids lie on disk, who can look there, and when they go."""

import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from fixtures.bad_input import CANARY, build, rows, sets
from fixtures.examples import assert_four_parts
from fixtures.models import tiny_tokenizer
from hf_unlearn.data.prepare import RowOptions
from hf_unlearn.data.row_cache import RowCache
from hf_unlearn.data.sources import load_rows


def written(tmp_path: Path) -> Path:
    file = tmp_path / "forget.jsonl"
    datasets.Dataset.from_list(rows("forget", 4)).to_json(str(file))
    return file


def holding(folder: Path, text: str) -> list[Path]:
    """Files below a folder that hold a text."""
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.fixture
def shared_cache(tmp_path, monkeypatch):
    """The cache of `datasets`, empty."""
    folder = tmp_path / "datasets_cache"
    folder.mkdir()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    return folder


def test_rows_are_in_a_private_folder_while_the_run_lasts_and_nowhere_else(tmp_path, shared_cache):
    file, cache = written(tmp_path), RowCache(tmp_path / "out" / ".rows")
    loaded = load_rows(file, cache_dir=cache.folder)
    tokens = RowOptions(tiny_tokenizer(), 64, None, 1, cache).tokenize(loaded, "forget")
    files = [Path(entry["filename"]) for entry in (*loaded.cache_files, *tokens.cache_files)]
    assert len(files) == 2 and all(path.is_relative_to(cache.folder) for path in files)
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert [path.name for path in holding(tmp_path, CANARY) if path != file] == [files[0].name]
    # Another user of the same folder finds the tokens, and keeps them from being removed.
    other = RowCache(tmp_path / "out" / ".rows")
    again = RowOptions(tiny_tokenizer(), 64, None, 1, other).tokenize(
        load_rows(file, cache_dir=other.folder), "forget"
    )
    assert again.cache_files == tokens.cache_files
    cache.close()
    assert files[1].is_file()
    other.close()
    assert not (tmp_path / "out" / ".rows").exists() and not list(shared_cache.iterdir())
    assert tokens[0]["input_ids"] == again[0]["input_ids"]  # who has them open reads on


@pytest.mark.parametrize("source", ["jsonl", "csv", "txt", "parquet"])
def test_files_of_a_script_leave_nothing_on_disk(tmp_path, shared_cache, source):
    text = [f"{CANARY} {i}" for i in range(3)]
    file = tmp_path / f"rows.{source}"
    rows = datasets.Dataset.from_dict({"text": text})
    if source == "txt":
        file.write_text("\n".join(text))
    else:
        getattr(rows, {"jsonl": "to_json"}.get(source, f"to_{source}"))(str(file))
    loaded = load_rows(file, seed=3)
    assert sorted(loaded["text"]) == text and loaded.cache_files == []
    assert holding(tmp_path, CANARY) in ([file], [])  # parquet is compressed


@pytest.mark.parametrize("source", ["jsonl", "csv", "txt", "parquet"])
def test_a_full_disk_is_told_with_its_folder_and_nothing_of_it_is_read(tmp_path, shared_cache, source):
    text = [f"{CANARY} {i} {'x' * 40}" for i in range(200)]
    file, cache = tmp_path / f"rows.{source}", RowCache(tmp_path / "out" / ".rows")
    made = datasets.Dataset.from_dict({"text": text})
    file.write_text("\n".join(text)) if source == "txt" else getattr(made, f"to_{source.removesuffix('l')}")(str(file))
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    folder = cache.folder
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))  # no file may be longer: as a full disk, to a writer
    try:
        with pytest.raises(OSError) as error:
            load_rows(file, cache_dir=folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert_four_parts(error.value.strerror, str(folder), str(file))
    assert CANARY not in str(error.value)
    assert load_rows(file, cache_dir=folder)["text"][:] == text
    cache.close()


def test_the_trainer_of_a_script_puts_tokens_into_its_run_and_warns_of_what_stays(tmp_path, shared_cache, caplog):
    stored = datasets.load_dataset("json", data_files=str(written(tmp_path)), split="train")
    trainer = build(tmp_path / "out", train_dataset={**sets(), "forget": stored}, keep_cache=True)
    (file,) = trainer.train_sets.forget.cache_files
    assert Path(file["filename"]).parent == tmp_path / "out" / ".rows"
    assert "they stay" in caplog.text and str(shared_cache) in caplog.text
    del trainer
    assert Path(file["filename"]).is_file()


def test_what_a_killed_run_leaves_goes_at_the_next_start(tmp_path):
    folder = tmp_path / ".rows"
    script = (
        "import sys, time; from hf_unlearn.data.row_cache import RowCache; c = RowCache(sys.argv[1]);"
        "(c.folder / 'left.arrow').touch(); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "ready\n"
        beside = RowCache(folder)
        assert (beside.folder / "left.arrow").is_file()  # the other one lives
        beside.close()
        assert (folder / "left.arrow").is_file()
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    after = RowCache(folder)
    assert not (after.folder / "left.arrow").exists()
    after.close()
    assert not folder.exists()
