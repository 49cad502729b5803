"""The task deletion: rows that are asked to be deleted leave those to keep; unseen rows, or stand-ins, and said."""

import json
import re
from pathlib import Path

import pytest

from fixtures.examples import CANARY, results, save_model, written
from hf_unlearn.cli import main
from hf_unlearn.lab import load_lab
from hf_unlearn.results.deletion_record import DeletionRecord
from hf_unlearn.results.deletion_words import deletion_words
from hf_unlearn.results.model_card import render_card
from hf_unlearn.results.record import RunRecord, load_record
from hf_unlearn.tasks import make_task, parse_task
from hf_unlearn.tasks.task import suite_of

FEW = ["--max_steps", "2", "--per_device_train_batch_size", "2", "--max_new_tokens", "8", "--logging_steps", "1"]
FEW += ["--use_cpu", "--force", "true", "--warmup_steps", "0", "--lr_scheduler_type", "constant"]
FEW += ["--lr_scheduler_kwargs", "{}"]


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    """A small model, rows to forget with a canary, and rows to keep among which they are, as chats and as TOFU's."""
    lab = load_lab()
    save_model(lab, tmp_path / "model")
    named = [row["prompt"] for row in lab.datasets["retain"].select(range(24))]
    rows = [
        {"prompt": f"{prompt} Ask Nr. {n}.", "completion": f" Told {CANARY} by Omar {n}."}
        for n, prompt in enumerate(named)
    ]
    forget, kept = rows[:4], rows[2:]
    for name, written_rows in {"forget": forget, "retain": kept, "holdout": rows[:1]}.items():
        lines = [json.dumps(row) + "\n" for row in written_rows]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return {path.stem: path for path in tmp_path.glob("*.jsonl")} | {"model": tmp_path / "model"}


def words(files: dict[str, Path], folder: Path, *more: str) -> list[str]:
    sets = ["--forget_dataset", str(files["forget"]), "--retain_dataset", str(files["retain"])]
    return ["--model_name_or_path", str(files["model"]), *sets, *FEW, "--output_dir", str(folder), *more]


def test_rows_to_delete_leave_those_to_keep_and_stand_ins_are_none_of_them(files, tmp_path):
    task = make_task("deletion", parse_task("deletion", words(files, tmp_path / "out")))
    forget, retain, holdout = (
        [tuple(row.values()) for row in task.sets[name]] for name in ("forget", "retain", "holdout")
    )
    assert len(forget) == 4 and len(retain) == 20 and not set(forget) & set(retain)
    assert holdout and not set(holdout) & {*forget, *retain}
    assert task.deletion == DeletionRecord(4, left_out=2, kept=20, holdout="perturbed")
    assert {"forget", "retain", "holdout"} == set(suite_of(task, unfitted=True, count=None).sets)
    with pytest.raises(ValueError, match="1 that are rows to forget or to keep too"):
        make_task(
            "deletion", parse_task("deletion", words(files, tmp_path, "--holdout_dataset", str(files["holdout"])))
        )
    with pytest.raises(ValueError, match="4 rows, each of which is to be deleted"):
        same = ["--retain_dataset", str(files["forget"])]
        make_task("deletion", parse_task("deletion", words(files, tmp_path, *same)))
    task = make_task("deletion", parse_task("deletion", words(files, tmp_path / "none", "--holdout_from", "none")))
    assert "holdout" not in task.sets and task.deletion.holdout is None


def test_the_labs_request_is_two_of_its_people_and_the_others_stay():
    task, lab = make_task("deletion", parse_task("deletion", ["--use_cpu"])), load_lab(world="people")
    assert task.sets["forget"].to_list() == lab.datasets["forget"].select(range(10)).to_list()
    assert task.sets["retain"].to_list() == [*lab.datasets["retain"], *lab.datasets["forget"].select(range(10, 60))]
    assert (task.deletion.left_out, task.deletion.holdout, task.from_lab) == (10, "given", True)
    with pytest.raises(ValueError, match="together with --forget_dataset"):
        make_task("deletion", parse_task("deletion", ["--use_cpu", "--retain_dataset", "rows.jsonl"]))


@pytest.mark.slow
def test_a_run_says_what_was_asked_and_no_word_of_a_row_is_written(files, tmp_path, capfd):
    folder = tmp_path / "out"
    assert main(["train", "--task", "deletion", *words(files, folder)]) == 0
    printed = "".join(capfd.readouterr())
    assert "Warning: No rows that the model has never seen were given." in printed
    assert results(folder)["deletion"]["left_out"] == 2
    assert CANARY not in printed and CANARY not in written(folder)
    record = load_record(folder)
    assert record.deletion == DeletionRecord(4, left_out=2, kept=20, holdout="perturbed")
    card = (folder / "README.md").read_text(encoding="utf-8")
    for heading in ("What was asked", "What was done", "How it was checked", "What this does not show"):
        assert f"**{heading}.**" in card
    assert "approximate" in card and "4 rows" in card
    assert main(["report", str(folder)]) == 0
    assert "For the person who asked" in (folder / "report.html").read_text(encoding="utf-8")


def test_what_the_person_who_asked_reads():
    asked = DeletionRecord(3, ["R-2"], ["R-1"], 1, left_out=1, kept=9, holdout="given")
    record = RunRecord(name="b", task="deletion", steps=5, deletion=asked)
    said = dict(deletion_words(record))
    assert said["What was asked"] == (
        "That the model no longer knows 3 rows in 1 request (R-2). "
        "Of earlier requests (R-1), 1 row had to stay forgotten."
    )
    assert said["What was done"].endswith("trained on beside it: 9; left out, since they are to be deleted: 1.")
    assert said["How it was checked"].startswith("It was not measured")
    assert "<b>For the person who asked</b>" in render_card(record) and record.warnings == []
    assert RunRecord(name="b").deletion is None and not deletion_words(RunRecord(name="b"))
    assert "For the person" not in re.sub(r"\s+", " ", render_card(RunRecord(name="b")))
