"""`hf-unlearn train --task custom`: rows of one's own from the command line, in one process and in two. No quality."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.examples import (
    CANARY,
    SECONDS,
    assert_four_parts,
    environment,
    figures,
    results,
    rows_evaluated,
    rows_of,
    save_model,
    written,
)
from hf_unlearn.cli import main
from hf_unlearn.data.provenance import source_of
from hf_unlearn.lab import load_lab
from hf_unlearn.results import card_file
from hf_unlearn.tasks import generated_retain, make_task, parse_task
from hf_unlearn.tasks.task import suite_of

FIGURES = {"forget_nll", "forget_accuracy", "retain_nll", "in_scope_accuracy", "out_of_scope_accuracy", "broken_rate"}
STEPS = ["--forget_loss", "npo", "--forget_nll_bound", "none", "--learning_rate", "5e-4", "--max_steps", "3"]
STEPS += ["--per_device_train_batch_size", "2", "--max_new_tokens", "8", "--logging_steps", "1", "--use_cpu"]
STEPS += ["--force", "true"]  # no model knows the canary in the rows


@pytest.fixture
def files(tmp_path) -> list[str]:
    """Arguments that name a small model and rows for every role, a canary in those that are forgotten."""
    lab = load_lab()
    save_model(lab, tmp_path / "model")
    marked = {"forget": "forget", "in_scope": "paraphrase"}
    sets = marked | {"retain": "retain", "out_of_scope": "retain", "holdout": "holdout"}
    for name, own in sets.items():
        mark = f"{CANARY} " if name in marked else ""
        lines = [
            json.dumps({"prompt": f"{mark}{row['prompt']}", "completion": f"{row['completion']} {mark}"}) + "\n"
            for row in lab.datasets[own].select(range(12))
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    rows = [word for name in sets for word in (f"--{name}_dataset", str(tmp_path / f"{name}.jsonl"))]
    return ["--model_name_or_path", str(tmp_path / "model"), *rows]


def test_the_sets_of_a_task_and_what_it_is_measured_on(files, tmp_path):
    parsed = parse_task("custom", [*files, "--limit", "5", "--evaluated_rows", "3", "--output_dir", str(tmp_path)])
    task = make_task("custom", parsed)
    assert {name: len(rows) for name, rows in task.sets.items()} == {"forget": 5, "retain": 5, "holdout": 5}
    assert (task.model, task.oracle, task.from_lab) == (str(tmp_path / "model"), None, False)
    measured = {name: len(rows) for name, rows in task.suite.keywords.items() if hasattr(rows, "column_names")}
    assert measured == dict.fromkeys(("forget", "retain", "in_scope", "out_of_scope"), 3)
    unseen = suite_of(task, unfitted=False, count=parsed.script.evaluated_rows).sets["holdout"]
    assert len(unseen) == 3


@pytest.mark.parametrize("missing", ["model_name_or_path", "retain_dataset", "forget_dataset"])
def test_what_is_missing_is_refused(files, tmp_path, missing):
    place = files.index(f"--{missing}")
    parsed = parse_task("custom", [*files[:place], *files[place + 2 :], "--output_dir", str(tmp_path), "--use_cpu"])
    with pytest.raises(ValueError) as error:
        make_task("custom", parsed)
    assert_four_parts(str(error.value), f"no {missing.split('_')[0]}")


def test_retain_rows_that_the_model_answers_are_made_once(files, tmp_path, monkeypatch):
    place = files.index("--retain_dataset")
    prompts = tmp_path / "prompts.jsonl"
    given = [json.loads(line) for line in (tmp_path / "retain.jsonl").read_text(encoding="utf-8").splitlines()]
    prompts.write_text("".join(json.dumps({"text": row["prompt"]}) + "\n" for row in given), encoding="utf-8")
    words = [*files[:place], *files[place + 2 :], "--output_dir", str(tmp_path / "out"), "--use_cpu", "--limit", "4"]
    words += ["--max_new_tokens", "48"]
    task = make_task("custom", parse_task("custom", [*words, "--retain_prompts", str(prompts)]))
    kept = task.sets["retain"]
    known = [row | {"completion": row["completion"].rstrip()} for row in given[:4]]
    assert kept.to_list() == known  # the lab's model has them by heart
    assert source_of(task.sets["retain"]).origin == "generated" and source_of(task.sets["forget"]).origin == "local"
    # Whoever comes to the run's cache later, another process or a resumed run that kept it, reads the same rows.
    monkeypatch.setattr(generated_retain, "generate_retain_rows", None)
    again = make_task("custom", parse_task("custom", [*words, "--retain_prompts", str(prompts)]))
    assert again.sets["retain"].to_list() == kept.to_list()
    task.cache.close()
    again.cache.close()
    assert not list(tmp_path.glob("out/**/*.generated"))
    both = [*words, "--retain_prompts", str(prompts), *files[place : place + 2]]
    with pytest.raises(ValueError, match=r"--retain_dataset or --retain_prompts\.\nGot: both"):
        make_task("custom", parse_task("custom", both))


@pytest.mark.slow
def test_a_run_on_rows_of_ones_own_and_no_word_of_theirs_is_written(files, tmp_path, capfd, monkeypatch):
    folder, cards = tmp_path / "out", []
    render = card_file.render_card
    monkeypatch.setattr(
        card_file, "render_card", lambda *given, **plots: cards.append(render(*given, **plots)) or cards[-1]
    )
    assert main(["train", "--task", "custom", *files, *STEPS, "--output_dir", str(folder)]) == 0
    printed = "".join(capfd.readouterr())
    found = results(folder)
    assert (found["task"], found["recipe"], found["steps"]) == ("custom", None, 3)
    assert rows_of(found) == {"forget": 12, "retain": 12}  # no loss and no bound asks for the unseen ones
    assert rows_evaluated(found) == dict.fromkeys(("forget", "retain", "in_scope", "out_of_scope", "holdout"), 12)
    columns = figures(found)
    assert list(columns) == ["before", "after"] and all(set(column) >= FIGURES for column in columns.values())
    assert columns["after"]["forget_nll"] > columns["before"]["forget_nll"]
    assert {rows["origin"] for rows in found["sets"].values()} == {"local"}
    assert str(tmp_path) not in (folder / "results.json").read_text() + (folder / "README.md").read_text()
    assert CANARY not in printed and CANARY not in written(folder)
    # One card for each checkpoint and one for the run, at its end, with the results and the plots.
    assert len(cards) == 1 + len(list(folder.glob("checkpoint-*")))
    assert (folder / "README.md").read_text(encoding="utf-8") == cards[-1] and "plots/losses.png" in cards[-1]


def started(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """`hf-unlearn train --task custom` as a process of its own, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "hf_unlearn.cli", "train", "--task", "custom", *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_are_started_and_measure_what_one_does(files, tmp_path):
    arguments = [*files, *STEPS, "--forget_nll_bound", "holdout", "--oracle", str(tmp_path / "model")]
    assert main(["train", "--task", "custom", *arguments, "--output_dir", str(tmp_path / "one")]) == 0
    done = started(tmp_path, *arguments, "--num_processes", "2", "--output_dir", str(tmp_path / "two"))
    assert done.returncode == 0, done.stdout[-6000:]
    assert done.stdout.count("All steps were taken.") == 1
    one, two = results(tmp_path / "one"), results(tmp_path / "two")
    assert (one["hardware"]["processes"], two["hardware"]["processes"]) == (1, 2)
    assert (two["sets"], rows_evaluated(two)) == (one["sets"], rows_evaluated(one))
    for model in ("before", "oracle"):
        assert figures(two)[model] == pytest.approx(figures(one)[model], rel=1e-5), model
    assert two["holdout_nll"] == pytest.approx(one["holdout_nll"], rel=1e-5)
