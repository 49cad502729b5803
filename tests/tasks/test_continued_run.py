"""Runs in sequence and runs done again, through the command line, on the lab. Not how well they unlearn."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from fixtures.examples import assert_four_parts
from hf_unlearn.cli import main
from hf_unlearn.results.phase_record import PhaseRecord
from hf_unlearn.results.record import load_record
from hf_unlearn.tasks import make_task, parse_task
from hf_unlearn.tasks.command_file import write_command

SHORT = ["--use_cpu", "--limit", "16", "--evaluated_rows", "4", "--max_steps", "2", "--max_new_tokens", "4"]
SHORT += ["--per_device_train_batch_size", "4", "--warmup_steps", "0", "--logging_steps", "1"]
LAB = ["--config", "harmful_lab", *SHORT]
UNMEASURED = ["--measure", "false"]


def train(folder, *words):
    assert main(["train", *LAB, "--output_dir", str(folder), *words]) == 0
    return load_record(folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A whole model, an adapter on it, that adapter trained on, and a new one on it merged."""
    root = tmp_path_factory.mktemp("sequence")
    words = {
        "whole": ["--use_peft", "false", *UNMEASURED],
        "adapter": ["--continue_from", str(root / "whole")],
        "same": ["--continue_from", str(root / "adapter"), "--use_peft", "false", *UNMEASURED],
        "merged": ["--continue_from", str(root / "adapter"), *UNMEASURED],
    }
    return root, {name: train(root / name, *given) for name, given in words.items()}


def test_what_comes_out_of_one_run_goes_into_the_next(runs):
    _, records = runs
    lineage = {name: record.lineage for name, record in records.items()}
    assert lineage["adapter"].weights_in == lineage["whole"].weights_out != lineage["whole"].weights_in
    base = {f"base/{name}": sha for name, sha in lineage["whole"].weights_out.items()}
    for name in ("same", "merged"):
        assert lineage[name].weights_in == lineage["adapter"].weights_out | base
        assert lineage[name].parent == records[name].model.earlier_run == "adapter"
    assert lineage["whole"].parent is None and lineage["adapter"].parent == "whole"


def test_a_model_is_taken_whole_an_adapter_trained_on_or_merged_first(runs):
    root, records = runs
    assert not (root / "same" / "continued_from").exists()
    adapters = [
        json.loads((root / name / "adapter_config.json").read_text()) for name in ("adapter", "same", "merged")
    ]
    bases = [root / "whole", root / "whole", root / "merged" / "continued_from"]
    assert [config["base_model_name_or_path"] for config in adapters] == [str(base) for base in bases]
    before, after = (load_file(root / name / "adapter_model.safetensors") for name in ("adapter", "same"))
    assert before.keys() == after.keys() and any(not before[name].equal(after[name]) for name in before)
    # The base that a push may name is that of an adapter that was trained on, not of a new one on an earlier run's.
    assert [records[name].model.origin for name in ("whole", "adapter", "same", "merged")] == [
        *("lab", "local", "local", "local")
    ]
    assert not any(records[name].public for name in ("adapter", "same", "merged"))


def test_the_run_is_measured_from_where_it_starts_and_the_oracle_stays(runs):
    root, records = runs
    evaluations = records["adapter"].evaluations
    assert set(evaluations) == {"before", "after", "oracle"}
    parsed = parse_task("harmful", [*LAB, "--continue_from", str(root / "whole"), "--output_dir", str(root / "new")])
    task = make_task("harmful", parsed)
    assert task.model == str(root / "whole") and task.oracle.endswith("oracle")
    assert parsed.model.model_name_or_path == str(root / "whole")
    # The present weights of the run before, by its own command.
    assert main(["evaluate", str(root / "whole"), "--use_cpu"]) == 0
    now = load_record(root / "whole").evaluations["after"].metrics
    assert now["forget_nll"].value == pytest.approx(evaluations["before"].metrics["forget_nll"].value, rel=1e-6)


def test_a_folder_alone_gives_what_its_recipe_gives(runs, capsys, monkeypatch, tmp_path):
    root, _ = runs
    folder = shutil.copytree(root / "adapter", tmp_path / "adapter")
    words = [*LAB, "--continue_from", str(root / "whole"), "--output_dir", str(folder)]
    monkeypatch.chdir(tmp_path)
    results = []
    for given in (words, ["--use_cpu", str(folder), "--name", "after"]):
        assert main(["evaluate", *given, "--json"]) == 0
        results.append(json.loads(capsys.readouterr().out) | {"cost": None})
    assert results[0] == results[1] and "forget_nll" in results[0]["metrics"]
    assert main(["evaluate", str(folder), "--config", "harmful_lab"]) == 2
    assert_four_parts(capsys.readouterr().err, "--config beside a run")


def changed(folder):
    """Other weights in a run's folder."""
    (file,) = folder.glob("*.safetensors")
    weights = load_file(file)
    name = sorted(weights)[0]
    weights[name] = weights[name] + torch.eye(*weights[name].shape)[: weights[name].shape[0]] * 1e-3
    save_file(weights, file, metadata={"format": "pt"})


def suppressed(folder):
    record = load_record(folder)
    record.phases = [PhaseRecord("suppress", "steering")]
    record.save(folder)


def unfinished(folder):
    record = load_record(folder)
    record.steps = 1
    record.save(folder)
    (folder / "trainer_state.json").unlink()


REFUSED = {
    "weights that changed": (changed, "others: adapter_model.safetensors"),
    "weights that are gone": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "adapter_model"),
    "no model": (lambda folder: (folder / "adapter_config.json").unlink(), "where there is none"),
    "no record": (lambda folder: (folder / "results.json").unlink(), "results.json"),
    "a run under way": (unfinished, "after step 1 of 2"),
    "a suppression": (suppressed, "suppressed at inference"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_continued_from_is_refused(runs, tmp_path, capsys, case):
    change, words = REFUSED[case]
    folder = shutil.copytree(runs[0] / "adapter", tmp_path / "adapter")
    change(folder)
    assert main(["train", *LAB, "--output_dir", str(tmp_path / "out"), "--continue_from", str(folder)]) == 2
    assert_four_parts(capsys.readouterr().err, words)
    assert not (tmp_path / "out").exists()


def test_a_run_beside_a_model_and_into_its_own_folder(runs, tmp_path, capsys):
    folder = str(runs[0] / "whole")
    both = ["--continue_from", folder, "--model_name_or_path", "org/name", "--output_dir", str(tmp_path / "out")]
    assert main(["train", *LAB, *both]) == 2
    assert_four_parts(capsys.readouterr().err, "--continue_from without --model_name_or_path")
    assert main(["train", *LAB, *both[:2], "--output_dir", folder]) == 2
    assert_four_parts(capsys.readouterr().err, "write over")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("task: custom\nmodel_name_or_path: org/name\n")
    parsed = parse_task("custom", ["--config", str(recipe), *both[:2], *both[4:]])  # a recipe's model yields
    assert parsed.script.continue_from == folder


def test_a_run_done_again_is_the_same_bit_for_bit_and_another_seed_is_told(runs, tmp_path, capsys):
    folder = shutil.copytree(runs[0] / "adapter", tmp_path / "adapter")
    assert main(["rerun", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["weights"] == {"equal": True, "largest": 0.0, "mean": 0.0, "tensor": None} and told["same"]
    assert told["again"] == str(tmp_path / "adapter-rerun") and not told["missing"]
    assert {figure["model"] for figure in told["figures"]} == {"before", "after", "oracle"}
    assert all(figure["then"] == figure["now"] for figure in told["figures"])
    assert set(told["differences"]) <= {"code"}

    stored = json.loads((folder / "command.json").read_text())
    stored["words"] += ["--seed", "7", *UNMEASURED]
    (folder / "command.json").write_text(json.dumps(stored))
    assert main(["rerun", str(folder), "--output_dir", str(tmp_path / "other")]) == 1
    told = capsys.readouterr().out
    assert "Weights: not equal. Largest difference" in told and "seed: 0 then, 7 now" in told
    assert "Not measured again: after" in told and told.rstrip().endswith("did not come out the same.")
    assert main(["rerun", str(folder), "--output_dir", str(folder)]) == 2
    assert_four_parts(capsys.readouterr().err, "as both")


def test_an_oracle_goes_on_with_the_rows_that_it_never_saw(runs, tmp_path):
    """A model that was trained without the rows of one run may know those of the next."""
    root, _ = runs
    folder = shutil.copytree(root / "whole", tmp_path / "earlier")
    for name in ("forget", "other", "retain"):
        rows = [{"prompt": f"{name} {i}?", "completion": f" {i}"} for i in range(4)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def task_of(rows):
        words = [
            "--retain_dataset",
            str(tmp_path / "retain.jsonl"),
            "--output_dir",
            str(tmp_path / "out"),
            "--use_cpu",
        ]
        words += ["--continue_from", str(folder), "--forget_dataset", str(tmp_path / f"{rows}.jsonl")]
        parsed = parse_task("custom", words)
        return parsed, make_task("custom", parsed)

    parsed, task = task_of("forget")
    assert (task.oracle, task.checkpoint) == (None, None)  # the lab's, in which these rows are not
    task.oracle, task.oracle_is, task.checkpoint = str(root / "adapter"), "made for this", "org/base"
    write_command("custom", parsed, folder, models=task)
    same, other = task_of("forget")[1], task_of("other")[1]
    assert (same.oracle, same.oracle_is, same.checkpoint) == (str(root / "adapter"), "made for this", "org/base")
    assert (other.oracle, other.checkpoint, other.model) == (None, None, str(folder))
