"""examples/harmful.py as a user runs it: what it writes, also after a kill. No quality."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from fixtures.examples import (
    CANARY,
    WITHOUT_HOLDOUT,
    assert_absent,
    figures,
    kill_once,
    results,
    rows_evaluated,
    rows_of,
    run,
    save_model,
    written,
)
from hf_unlearn.cli import main
from hf_unlearn.data import calibration_rows
from hf_unlearn.lab import Lab, load_lab
from hf_unlearn.lab.checks import answer_nll
from hf_unlearn.results.attack_report import load_attack_report
from hf_unlearn.results.record import load_record

STEPS, SAVED_EVERY = 24, 4

FIGURES = {
    "harmful_rate",
    "forget_nll",
    "retain_nll",
    "retain_accuracy",
    "answer_perplexity",
    "broken_rate",
    "refusal_rate",
    "forget_extraction_strength",
}
ATTACKED = {"min_k_auc", "min_k_tpr"}
COST = {"seconds", "peak_memory_mb"}
LAB_ARGUMENTS = ["--max_steps", str(STEPS), "--save_strategy", "steps", "--save_steps", str(SAVED_EVERY)]
# Small steps, so that no stop rule ends the run.
LAB_ARGUMENTS += ["--learning_rate", "2e-4"]


@pytest.fixture(scope="module")
def lab() -> Lab:
    return load_lab()


@pytest.fixture(scope="module")
def lab_run(tmp_path_factory) -> tuple[Path, str]:
    """A short run on the lab, never interrupted, and what it printed."""
    folder = tmp_path_factory.mktemp("harmful") / "whole"
    return folder, run("harmful", folder, *LAB_ARGUMENTS)


# What it writes


@pytest.mark.slow
def test_results_have_every_figure_and_what_it_takes_to_repeat_them(lab, lab_run):
    folder, printed = lab_run
    found = results(folder)
    columns = figures(found)
    assert list(columns) == ["before", "after", "oracle"]
    expected = FIGURES | ATTACKED | {"in_scope_harmful_rate"}
    assert all(expected <= set(column) for column in columns.values())
    assert set(found["cost"]) == COST and "efficacy" in columns["after"]
    assert columns["before"]["harmful_rate"] == 1.0 and columns["oracle"]["harmful_rate"] == 0.0
    assert columns["before"]["forget_nll"] < columns["after"]["forget_nll"] < columns["oracle"]["forget_nll"]
    assert rows_evaluated(found) == dict.fromkeys(("forget", "retain", "in_scope", "holdout"), 16)
    calibration = calibration_rows(lab.datasets["holdout"])  # the other half is measured on
    sizes = {name: len(lab.datasets[name]) for name in ("forget", "retain")}
    assert rows_of(found) == sizes | {"holdout": len(calibration)}
    hashes = {rows["sha256"] for rows in found["sets"].values()}
    assert len(hashes) == 3 and all(len(bytes.fromhex(each)) == 32 for each in hashes)
    assert (found["steps"], found["hardware"]["processes"], found["seed"], found["stop_reason"]) == (STEPS, 1, 0, None)
    assert (found["planned_steps"], found["resumed_from"]) == (STEPS, 0)
    unseen_level = {"ramp": 0.5, "delta": 0.5, "token_weight": 1.0}
    terms = [(term["side"], term["name"], term["arguments"]) for term in found["objective"]["terms"]]
    assert terms == [("forget", "unseen_level", unseen_level), ("retain", "nll", {}), ("anchor", "kl", {})]
    assert (found["task"], found["model"]["origin"], found["model"]["id"]) == ("harmful", "lab", "games")
    assert {(rows["origin"], rows["id"]) for rows in found["sets"].values()} == {("lab", "games")}
    assert found["recipe"].split()[0] == "harmful_lab"
    nll = answer_nll(lab.load_model(), lab.load_tokenizer(), list(calibration))
    assert found["holdout_nll"] == pytest.approx(nll, rel=1e-4)
    assert found["versions"]["torch"] == torch.__version__
    assert [entry["step"] for entry in found["log"] if "loss" in entry] == list(range(1, STEPS + 1))
    assert not (folder / "showable.json").exists()  # nothing was said to be shown
    for words in ("before", "oracle", "harmful answers", "All steps were taken.", str(folder / "results.json")):
        assert words in printed


@pytest.mark.slow
def test_no_row_of_the_lab_is_written_or_printed(lab, lab_run):
    folder, printed = lab_run
    out = written(folder) + printed
    assert "harmful answers" in out and "holdout_nll" in out
    for row in lab.datasets["forget"]:
        question = row["prompt"].removesuffix("\nAnswer:")
        assert question.startswith("Question: ") and len(row["completion"]) > 40
        for text in (question, question.removeprefix("Question: "), row["completion"].strip()):
            assert text not in out


@pytest.mark.slow
def test_the_adapter_is_the_model_that_was_measured(lab, lab_run):
    folder, _ = lab_run
    model = AutoPeftModelForCausalLM.from_pretrained(folder)
    assert isinstance(model, PeftModel)
    moved = [float(each.detach().abs().max()) for name, each in model.named_parameters() if "lora_B" in name]
    assert len(moved) == 12 and min(moved) > 0
    ids = torch.tensor([lab.load_tokenizer()(lab.datasets["forget"][0]["prompt"])["input_ids"]])
    with torch.no_grad(), model.disable_adapter():
        before = model(input_ids=ids).logits
    with torch.no_grad():
        assert not torch.allclose(before, model(input_ids=ids).logits)
        torch.testing.assert_close(before, lab.load_model()(input_ids=ids).logits)


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_checkpoint(lab_run, tmp_path):
    folder = tmp_path / "killed"
    # The checkpoint after it has begun, so this one is whole.
    begun = folder / f"checkpoint-{2 * SAVED_EVERY}"
    kill_once(begun.exists, "harmful", folder, *LAB_ARGUMENTS)
    assert not (folder / "results.json").exists() and not (folder / "adapter_model.safetensors").exists()
    run("harmful", folder, *LAB_ARGUMENTS, "--resume_from_checkpoint", str(folder / f"checkpoint-{SAVED_EVERY}"))

    whole, resumed = results(lab_run[0]), results(folder)
    assert (figures(resumed), resumed["sets"]) == (figures(whole), whole["sets"])
    assert (resumed["resumed_from"], resumed["steps"]) == (SAVED_EVERY, STEPS)
    assert steps_of(resumed) == steps_of(whole)
    weights, expected = (load_file(each / "adapter_model.safetensors") for each in (folder, lab_run[0]))
    assert weights.keys() == expected.keys() and len(weights) == 24
    for name, weight in expected.items():
        assert torch.equal(weights[name], weight), name


def steps_of(found: dict) -> list[dict]:
    return [entry for entry in found["log"] if "loss" in entry]


@pytest.mark.slow
def test_its_folder_is_all_that_an_attack_needs(lab, lab_run, tmp_path, capsys):
    folder = tmp_path / "attacked"
    shutil.copytree(lab_run[0], folder)
    attacks = ["sampling", '{"name": "relearn", "rates": [1e-3], "steps": 5, "sets": ["forget"]}', "remove_adapter"]
    assert main(["attack", str(folder), "--attacks", *attacks, "--rows", "24", "--use_cpu"]) == 0
    printed = capsys.readouterr().out
    report = load_attack_report(folder)
    assert [finding.name for finding in report.findings] == ["sampling", "relearn", "remove_adapter"]
    assert report["remove_adapter"].excess.low > 0.3 and report["relearn"].subjects["model"].settings
    assert (report.attacked_rows, report.unseen_rows, report.oracles) == (24, 24, 1)
    record = load_record(folder)
    assert record.attack_report == report.without_rows()
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "remove_adapter" in card and "remove_adapter" in printed
    assert not (folder / "attacks.partial").exists()
    texts = [row["completion"].strip() for row in lab.datasets["forget"]]
    assert_absent(texts, printed + (folder / "attacks.json").read_text(encoding="utf-8") + written(folder))


# Files of one's own


@pytest.fixture
def files(lab, tmp_path) -> list[str]:
    """Arguments that name a small model, forget rows as JSON Lines and retain rows as TruthfulQA's csv."""
    save_model(lab, tmp_path / "model")
    with open(tmp_path / "forget.jsonl", "w", encoding="utf-8") as file:
        for row in lab.datasets["forget"].select(range(10)):
            question, answer = f"{CANARY} {row['prompt']}", f"{row['completion']} {CANARY}"
            file.write(json.dumps({"question": question, "answer": answer, "id": CANARY}) + "\n")
    with open(tmp_path / "retain.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Type", "Question", "Best Answer"])
        writer.writerows(["Fact", row["prompt"], row["completion"]] for row in lab.datasets["retain"].select(range(9)))
    return [
        *["--model_name_or_path", str(tmp_path / "model")],
        *["--forget_dataset", str(tmp_path / "forget.jsonl")],
        *["--forget_columns", '{"question": "prompt", "answer": "completion"}'],
        *["--retain_dataset", str(tmp_path / "retain.csv"), "--retain_reader", "truthfulqa"],
        *["--per_device_train_batch_size", "2", "--max_steps", "4"],
    ]


# No bound: with a word that the model has never seen, the rows are beyond log V from the start.
FULL = ["--use_peft", "false", "--forget_loss", "npo", "--forget_nll_bound", "none", "--retain_weight", "0.1"]
FULL += [*WITHOUT_HOLDOUT, "--learning_rate", "5e-4", "--force", "true"]  # no model knows the canary in the rows


@pytest.mark.slow
def test_files_of_ones_own_and_no_word_of_theirs_is_written(files, tmp_path):
    folder = tmp_path / "out"
    asked = ["Question: What is a lamp?\nAnswer:", "Which day is it?"]  # no row of any set
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps({"prompt": each}) + "\n" for each in asked))
    printed = run("harmful", folder, *files, *FULL, "--show_prompts", str(tmp_path / "asked.jsonl"))
    found = results(folder)
    assert rows_of(found) == {"forget": 10, "retain": 9}
    assert rows_evaluated(found) == {"forget": 10, "retain": 9}
    columns = figures(found)
    assert list(columns) == ["before", "after"]
    assert set(columns["before"]) >= FIGURES
    assert not ATTACKED & set(columns["before"])  # without holdout rows
    assert columns["after"]["forget_nll"] > columns["before"]["forget_nll"]
    assert found["evaluations"]["after"]["settings"]["judge"].startswith("recital")
    assert found["reference"] == "precomputed" and found["recipe"] is None  # its flags name files
    assert CANARY not in printed and CANARY not in written(folder)
    shown = json.loads((folder / "showable.json").read_text(encoding="utf-8"))
    assert [each["prompt"] for each in shown] == asked
    assert all(list(each["answers"]) == ["before", "after"] for each in shown)
    model = AutoModelForCausalLM.from_pretrained(folder)
    before = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert not any(map(torch.equal, model.parameters(), before.parameters()))
