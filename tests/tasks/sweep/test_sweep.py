"""`hf-unlearn sweep` from rows in files to a report, its processes' work done in this one. No word on quality."""

import csv
import json
from pathlib import Path

import datasets
import pytest

from fixtures.examples import assert_four_parts
from fixtures.models import FORGET, HOLDOUT, RETAIN, tiny_model, tiny_tokenizer
from hf_unlearn.cli import main
from hf_unlearn.data.holdout_split import evaluated_half
from hf_unlearn.evaluation import load_result
from hf_unlearn.results.record import load_record
from hf_unlearn.tasks.recipe_files import read_recipe
from hf_unlearn.tasks.sweep import final, run
from hf_unlearn.tasks.sweep.job import JobFailed
from hf_unlearn.tasks.sweep.worker import JOBS

SHORT = [
    "--max_steps",
    "3",
    "--per_device_train_batch_size",
    "4",
    "--use_cpu",
    "--max_new_tokens",
    "4",
    "--force",
    "true",
]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    tiny_model().save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    given = ["--task", "custom", "--model_name_or_path", str(folder / "model")]
    for name, rows in (("forget", FORGET), ("retain", RETAIN), ("holdout", HOLDOUT)):
        lines = [json.dumps({part: row[part] for part in ("prompt", "completion")}) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
        given += [f"--{name}_dataset", str(folder / f"{name}.jsonl")]
    return [*given, *SHORT]


@pytest.fixture
def jobs(monkeypatch):
    """The work that was done, in this process; the run of number 1 dies."""
    done = []

    def run_job(kind, folder, job):
        folder.mkdir(parents=True, exist_ok=True)
        done.append(f"{kind} {folder.name}")
        if done[-1] == "trial 0001":
            raise JobFailed("ended by signal 9")
        JOBS[kind](folder, json.loads(json.dumps(job)))

    monkeypatch.setattr(run, "run_job", run_job)
    monkeypatch.setattr(final, "run_job", run_job)
    return done


def test_a_sweep_is_chosen_on_one_half_and_reported_on_the_other(words, jobs, tmp_path, capsys):
    folder = tmp_path / "sweep"
    command = ["sweep", *words, "--preset", "quick", "--runs", "3", "--fresh_seeds", "1", "--output_dir", str(folder)]
    assert main([*command, "--json"]) == 0
    said = capsys.readouterr()
    data = json.loads(said.out)
    assert jobs[:4] == ["prepare prepared", "trial 0000", "trial 0001", "trial 0002"]
    assert [trial["failure"] for trial in data["trials"]] == [None, "ended by signal 9", None]
    assert data["trials"][0]["unchanged"] and data["trials"][0]["values"]["retain_weight"] == 1.0
    assert set(data["objectives"]) == {"forgetting", "utility", "traceability"}
    # The rows of the two halves, by the sets' hashes, and together all.
    before = {
        half: load_result(place / "evaluation_before.json").rows
        for half, place in (("calibration", folder / "prepared"), ("reporting", folder / "runs" / "unchanged-seed1"))
    }
    for name, rows in (("forget", FORGET), ("retain", RETAIN), ("holdout", HOLDOUT)):
        counts = {half: len(evaluated_half(datasets.Dataset.from_list(rows), half)) for half in before}
        assert {half: found[name]["count"] for half, found in before.items()} == counts
        assert sum(counts.values()) == len(rows) and data["rows"]["reporting"][name] == counts["reporting"]
    trial = load_result(folder / "trials" / "0000" / "evaluation_after.json")
    assert trial.rows == before["calibration"] and trial.settings["rows"] == "calibration half"
    reported = load_record(folder / "runs" / "unchanged-seed1")
    assert reported.seed == 1 and reported.planned_steps == 3 and (folder / "pareto.png").stat().st_size > 5000
    recipe = read_recipe(folder / "best.yaml")
    assert recipe["max_steps"] == 3 and {"evaluated_half", "seed"}.isdisjoint(recipe)
    table = list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))
    assert [row["state"] for row in table] == ["done", "failed", "done"] and table[0]["recipe"] == "unchanged"
    assert "Run 1: learning_rate" in said.err and "failed (ended by signal 9)" in said.err
    assert all(row["completion"].strip() not in said.out for row in FORGET)

    jobs.clear()
    assert main(command) == 0  # what is there is kept
    assert jobs == ["prepare prepared"]
    text = capsys.readouterr().out
    assert "0* unchanged" in text or "0 unchanged" in text
    assert data["reporting"]["conclusion"] in text and str(folder / "best.yaml") in text
    _refused(command, tmp_path, capsys)


def _refused(command, folder, capsys):
    """Another recipe and other rows in the same folder."""
    place = command.index("--retain_dataset") + 1
    fewer = folder / "fewer.jsonl"
    fewer.write_text("\n".join(Path(command[place]).read_text().splitlines()[1:]))
    assert main([*command, "--retain_ratio", "2"]) == 2
    assert_four_parts(capsys.readouterr().err.split("sweep: ")[1], "the recipe", "another")
    Path(command[place]).write_text(fewer.read_text())
    assert main(command) == 2
    assert_four_parts(capsys.readouterr().err.split("sweep: ")[1], "the rows", "others")


def test_a_recipe_that_fails_as_it_is_ends_the_sweep(words, monkeypatch, tmp_path, capsys):
    def run_job(kind, folder, job):
        folder.mkdir(parents=True, exist_ok=True)
        if kind == "trial":
            raise JobFailed("exit status 1: out of memory")
        prepared = {"rows": {}, "measured": {}, "oracle": False, "levels": False}
        (folder / "prepared.json").write_text(json.dumps(prepared))

    objectives = [run.Objective("forgetting", "a", 0.0, 1.0, "a"), run.Objective("utility", "b", 1.0, 0.05, "b")]
    monkeypatch.setattr(run, "run_job", run_job)
    monkeypatch.setattr(run, "_objectives", lambda *ignored: objectives)
    assert main(["sweep", *words, "--runs", "3", "--output_dir", str(tmp_path / "sweep")]) == 2
    assert_four_parts(capsys.readouterr().err.split("hf-unlearn sweep: ")[1], "runs as it is", "out of memory")
