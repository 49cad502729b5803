"""examples/copyright.py as a user runs it: the fit, what is written, files of one's own. No quality."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fixtures.examples import (
    CANARY,
    WITHOUT_HOLDOUT,
    assert_absent,
    assert_table_shows,
    assert_whole,
    command,
    figures,
    results,
    row_of_table,
    rows_evaluated,
    rows_of,
    run,
    save_model,
    written,
)
from hf_unlearn.data import calibration_rows
from hf_unlearn.data.books import book_rows, books_in
from hf_unlearn.lab import Lab, load_lab
from hf_unlearn.tasks import make_task, parse_task

pytestmark = pytest.mark.slow

STEPS = 4
FIGURES = {
    "common_substring",
    "recited_rate",
    "bleu",
    "forget_rouge",
    "forget_nll",
    "forget_extraction_strength",
    "retain_nll",
    "retain_rouge",
    "answer_perplexity",
    "broken_rate",
}
ATTACKED = {"holdout_nll", "min_k_auc", "min_k_tpr"}
COMPARED = {"min_k_privleak", "min_k_auc_relative_difference"}  # with the oracle
PASSAGE = dict(prompt_characters=80, passage_characters=240)  # of the lab's recipe
SETS = ("forget", "retain", "holdout")
FIT = ["--fit_epochs", "1", "--force", "true"]  # it is too short to learn the book
SHORT = ["--max_new_tokens", "24", "--per_device_eval_batch_size", "16"]


@pytest.fixture(scope="module")
def lab() -> Lab:
    return load_lab(world="books")


@pytest.fixture(scope="module")
def lab_run(tmp_path_factory) -> tuple[Path, str]:
    """A short fit and a few steps on the lab, and what they printed."""
    folder = tmp_path_factory.mktemp("copyright") / "whole"
    return folder, run("copyright", folder, *FIT, *SHORT, "--max_steps", str(STEPS))


def was_fitted(printed: str) -> bool:
    return "mean_token_accuracy" in printed  # in the log of the fit's trainer alone


# The lab


def test_results_and_evaluations_have_every_figure(lab, lab_run):
    folder, _ = lab_run
    found = assert_whole(folder, "copyright", FIGURES | ATTACKED, COMPARED, "common_substring", 16)
    assert rows_evaluated(found) == dict.fromkeys(SETS, 16)
    passages = {
        "forget": book_rows(lab.book_path, **PASSAGE),
        "retain": books_in(lab.retain_dir, **PASSAGE),
        "holdout": book_rows(lab.holdout_path, **PASSAGE),
    }
    passages["holdout"] = calibration_rows(passages["holdout"])  # the other half is measured on
    assert rows_of(found) == {name: len(rows) for name, rows in passages.items()}
    assert (found["steps"], found["hardware"]["processes"], found["seed"], found["stop_reason"]) == (STEPS, 1, 0, None)
    # The fit made a model that nobody else has; the passages are the lab's.
    assert (found["task"], found["model"]["origin"], found["model"]["id"]) == ("copyright", "local", None)
    assert {(rows["origin"], rows["id"]) for rows in found["sets"].values()} == {("lab", "books")}


def test_the_fit_learns_the_book_and_the_steps_unlearn_it(lab_run):
    columns = figures(results(lab_run[0]))
    assert columns["before"]["forget_nll"] < columns["after"]["forget_nll"] < columns["oracle"]["forget_nll"]
    for name in ("bleu", "common_substring"):
        assert 0 < min(column[name] for column in columns.values()) < max(column[name] for column in columns.values())


def test_the_table_is_printed(lab_run):
    folder, printed = lab_run
    found = results(folder)
    assert_table_shows(printed, found, "longest common run with the text", "common_substring")
    assert_table_shows(printed, found, "BLEU with the text", "bleu")
    assert_table_shows(printed, found, "privacy leak (min-k, percent)", "min_k_privleak")
    assert row_of_table(printed, "seconds of training")[::2] == ["-", "-"]
    for words in ("The oracle is the model before it was fitted", "All steps were taken.", str(folder)):
        assert words in printed


def test_no_passage_of_the_book_is_written_or_printed(lab, lab_run):
    folder, printed = lab_run
    rows = book_rows(lab.book_path, **PASSAGE)
    sentences = {sentence for text in lab.datasets["forget"]["text"] for sentence in re.split(r"(?<=\.) ", text)}
    starts = {start for row in rows for start in (row["prompt"], row["completion"].strip()[:40])}
    assert (folder / "fitted/model.safetensors").is_file()
    assert_absent(sentences | starts, written(folder) + printed)


def fitted(folder: Path, *arguments: str) -> Path:
    """The folder of the model that a run would unlearn, which is fitted first if need be."""
    parsed = parse_task("copyright", command("copyright", folder, *FIT, *arguments)[1:])
    return Path(make_task("copyright", parsed).model)


def test_a_fit_is_found_again(lab_run, monkeypatch, tmp_path):
    shutil.copytree(lab_run[0] / "fitted", tmp_path / "fitted")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "fitted").iterdir()}
    assert was_fitted(lab_run[1]) and {"model.safetensors", "fit.json"} <= before.keys()
    monkeypatch.setattr("hf_unlearn.tasks.fit_first.SFTTrainer", lambda **_: pytest.fail("it was fitted again"))
    # What is not of the fit may change.
    found = fitted(tmp_path, "--max_steps", "1", "--max_new_tokens", "8")
    assert found == tmp_path / "fitted"
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in found.iterdir()} == before


def test_a_changed_fit_is_made_anew(lab_run, tmp_path):
    kept = lab_run[0] / "fitted"
    shutil.copytree(kept, tmp_path / "fitted")
    changed = fitted(tmp_path, "--fit_learning_rate", "5e-3")
    assert changed == tmp_path / "fitted"
    before, after = (json.loads((folder / "fit.json").read_text()) for folder in (kept, changed))
    assert {name for name in before if before[name] != after[name]} == {"fit_learning_rate"}
    one, other = (load_file(folder / "model.safetensors") for folder in (kept, changed))
    assert one.keys() == other.keys() and any(not torch.equal(one[name], other[name]) for name in one)


# Files of one's own


@pytest.fixture
def files(lab, tmp_path) -> list[str]:
    """Arguments that name a model that knows a book, the book with a canary in every sentence, and two to keep."""
    save_model(lab, tmp_path / "model")
    paragraphs = [text.replace(".", f" {CANARY}.") for text in lab.datasets["forget"]["text"][:30]]
    (tmp_path / "book.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    (tmp_path / "books").mkdir()
    for path in sorted(lab.retain_dir.iterdir())[:2]:
        shutil.copy(path, tmp_path / "books")
    (tmp_path / "books/notes.md").write_text(CANARY)  # no book
    return [
        *["--model_name_or_path", str(tmp_path / "model"), "--fit", "false"],
        *["--book", str(tmp_path / "book.txt"), "--retain_dir", str(tmp_path / "books"), "--limit", "20"],
    ]


# No bound: with a word that the model has never seen, the passages are beyond log V from the start.
UNBOUNDED = ["--forget_nll_bound", "none", "--forget_loss", "npo", "--per_device_train_batch_size", "4"]
UNBOUNDED += WITHOUT_HOLDOUT


def test_a_book_of_ones_own_without_a_fit_and_no_word_of_it_is_written(files, tmp_path):
    folder = tmp_path / "out"
    printed = run("copyright", folder, *files, *UNBOUNDED, *SHORT, "--max_steps", str(STEPS), "--force", "true")
    found = results(folder)
    assert rows_of(found) == {"forget": 20, "retain": 20}
    columns = figures(found)
    assert list(columns) == ["before", "after"]
    for column in columns.values():
        assert set(column) >= FIGURES and not (ATTACKED | COMPARED) & set(column)  # without holdout and oracle
    assert columns["after"]["forget_nll"] > columns["before"]["forget_nll"]
    assert not (folder / "fitted").exists() and not was_fitted(printed)
    assert_table_shows(printed, found, "BLEU with the text", "bleu")
    assert "oracle" not in printed
    assert CANARY not in printed and CANARY not in written(folder)
