"""Runs of phases: the same weights as the parts by hand, one record and card, resume at a border and inside."""

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from fixtures.examples import assert_four_parts, results, save_model
from fixtures.shrinking import Shrink
from hf_unlearn import UnlearningTrainer
from hf_unlearn.cli import main
from hf_unlearn.edits import EDITS, apply
from hf_unlearn.lab import load_lab
from hf_unlearn.plugins import load
from hf_unlearn.results.record import load_record
from hf_unlearn.tasks import make_task, parse_task
from hf_unlearn.tasks.phases.plan import plan_phases

SHRINK = {"edit": {"name": "shrink", "factor": 0.7}}
TRAIN = {"train": {"max_steps": 3, "learning_rate": 1e-3}}
METHOD = ["--forget_loss", "unseen_level", "--levels", "ngram", "--forget_nll_bound", "none", "--retain_loss", "kl"]
METHOD += [
    "--per_device_train_batch_size",
    "2",
    "--logging_steps",
    "1",
    "--use_cpu",
    "--plugins",
    "fixtures.shrinking",
]
METHOD += ["--save_steps", "1", "--measure", "false", "--learning_rate", "5e-4", "--report_to", "none"]


@pytest.fixture(scope="module", autouse=True)
def without_the_plugin_afterwards():
    """What runs in this process later, the reference pages among it, is to know this package's own edits alone."""
    yield
    load._loaded.pop("fixtures.shrinking", None)
    EDITS._joined.discard("fixtures.shrinking")
    EDITS._sources.pop("shrink", None)
    EDITS.pop("shrink", None)


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> list[str]:
    """Arguments that name a small model and rows."""
    folder, lab = tmp_path_factory.mktemp("rows"), load_lab()
    save_model(lab, folder / "model")
    words = ["--model_name_or_path", str(folder / "model")]
    for name in ("forget", "retain", "holdout"):
        lab.datasets[name].select(range(16)).to_json(folder / f"{name}.jsonl")
        words += [f"--{name}_dataset", str(folder / f"{name}.jsonl")]
    return words


def run(rows: list[str], folder: Path, phases: list, *more: str) -> int:
    words = [*rows, *METHOD, "--phases", json.dumps(phases), "--output_dir", str(folder), *more]
    return main(["train", "--task", "custom", *words])


@pytest.fixture(scope="module")
def whole(rows, tmp_path_factory) -> Path:
    """The folder of a run that was not interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    assert run(rows, folder, [SHRINK, TRAIN]) == 0
    return folder


def test_phases_are_the_parts_by_hand(rows, whole, tmp_path):
    parsed = parse_task("custom", [*rows, *METHOD, "--output_dir", str(tmp_path), *("--max_steps", "3")])
    parsed.args.learning_rate = 1e-3
    task, lab = make_task("custom", parsed), load_lab()
    before, tokenizer = lab.load_model(), lab.load_tokenizer()
    edited = apply(
        Shrink(factor=0.7), lab.load_model(), task.sets, tokenizer=tokenizer, accelerator=Accelerator(cpu=True)
    )
    trainer = UnlearningTrainer(
        model=edited.model, args=parsed.args, train_dataset=task.sets, processing_class=tokenizer, ref_model=before
    )
    trainer.train()
    weights = load_file(whole / "model.safetensors")
    own = {name: weight for name, weight in trainer.model.state_dict().items() if name in weights}
    assert own.keys() == weights.keys() and all(torch.equal(own[name], weights[name]) for name in weights)
    # The levels are those of unseen rows under the model before unlearning, not under the edited one.
    record = load_record(whole)
    assert record.levels.mean == pytest.approx(trainer.baseline.levels.quality.mean)
    args = parse_task("custom", [*rows, *METHOD, "--output_dir", str(tmp_path / "plain"), "--max_steps", "1"]).args
    plain = UnlearningTrainer(lab.load_model(), args, train_dataset=task.sets, processing_class=tokenizer)
    plain.train()
    assert plain.baseline.levels.quality.mean == pytest.approx(record.levels.mean)
    assert edited.after.unseen != pytest.approx(edited.before.unseen, abs=1e-3)


def test_a_training_that_reads_no_reference_has_none(rows, tmp_path):
    phases = [
        SHRINK,
        {"train": {"max_steps": 1, "forget_loss": "grad_ascent", "levels": "none", "retain_loss": "nll"}},
    ]
    assert run(rows, tmp_path / "out", phases) == 0
    assert load_record(tmp_path / "out").phases[1].reference == "none"


def test_a_suppression_is_distilled_into_the_weights(rows, tmp_path):
    distil = {"forget_loss": "distil", "levels": "none", "max_steps": 2}
    phases = [{"suppress": {"name": "divergence_decoding", "alpha": 8.0}}, {"train": distil}]
    assert run(rows, tmp_path / "out", phases) == 0
    record = load_record(tmp_path / "out")
    assert [phase.kind for phase in record.phases] == ["suppress", "train"] and record.reference == "copy"
    assert not (tmp_path / "out" / "suppression").exists()  # the weights answer by themselves
    first, last = record.log[0], record.log[-2]
    assert first["forget/distil"] > 0 and last["forget/distil"] < first["forget/distil"]


def test_a_suppressed_run_that_was_done_is_the_same_when_it_is_resumed(rows, tmp_path):
    phases = [SHRINK, {"suppress": "divergence_decoding"}]
    assert run(rows, tmp_path / "out", phases) == 0
    files = ("model.safetensors", "suppression/suppressor.safetensors", "suppression/suppressor.json")
    before = {name: (tmp_path / "out" / name).read_bytes() for name in files}
    assert not list((tmp_path / "out" / "phases").glob("*/suppression"))
    assert run(rows, tmp_path / "out", phases, "--resume_from_checkpoint", "true") == 0
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files} == before


def test_one_record_and_one_card(whole):
    record = load_record(whole)
    edit, training = record.phases
    assert (edit.kind, edit.name, training.kind, training.name) == ("edit", "shrink", "train", "unseen_level")
    assert edit.report.edit.arguments == {"factor": 0.7} and edit.report.rows["holdout"] < 16
    assert [term.name for term in record.objective.terms] == ["unseen_level", "kl"] and record.steps == 3
    assert record.cost["seconds"] == pytest.approx(edit.cost["seconds"] + training.cost["seconds"])
    assert record.methods == ["shrink", "unseen_level"] and record.arguments["learning_rate"] == 1e-3
    card = (whole / "README.md").read_text(encoding="utf-8")
    assert "after editing its weights and fine-tuning with hf_unlearn" in card
    assert "| 1 | edit shrink" in card and "| 2 | training unseen_level | see Objective |" in card
    assert "Of the last training." in card and "phases:\n- edit:" in card
    # Copies of the weights and the trainings' own records are gone.
    assert not list(whole.glob("phases/*/weights")) and not list(whole.glob("phases/*/results.json"))


@pytest.mark.parametrize("step", [0, 2])
def test_an_interrupted_run_goes_on(rows, whole, tmp_path, monkeypatch, step):
    class Killed(BaseException):
        pass

    def killed(self, *given, **named):
        if self.state.global_step == step:
            raise Killed
        return taken(self, *given, **named)

    taken = UnlearningTrainer.training_step
    monkeypatch.setattr(UnlearningTrainer, "training_step", killed)
    with pytest.raises(Killed):
        run(rows, tmp_path / "out", [SHRINK, TRAIN])
    monkeypatch.setattr(UnlearningTrainer, "training_step", taken)
    monkeypatch.setattr(Shrink, "run", None)  # it is not done again
    other = [{"edit": {"name": "shrink", "factor": 0.6}}, TRAIN]
    assert run(rows, tmp_path / "out", other, "--resume_from_checkpoint", "true") == 2
    assert run(rows, tmp_path / "out", [SHRINK, TRAIN], "--resume_from_checkpoint", "true") == 0
    weights, again = load_file(whole / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert results(tmp_path / "out")["phases"][1]["resumed_from"] == step


@pytest.mark.parametrize(
    ("phases", "said"),
    [
        ({"edit": "shrink"}, "phases as a list"),
        ([], "phases as a list"),
        ([{"edit": "shrink", "train": {}}], "an entry with edit, train"),
        ([{"edt": "shrink"}], "phase 1 must be a known name"),
        ([{"train": {"output_dir": "x"}}], "output_dir, which is the run's"),
        ([{"train": {"learning_rat": 1}}], "learning_rat"),
        ([{"edit": {"name": "shrink", "factr": 1}}], "an argument of shrink in phase 1"),
    ],
)
def test_refuses_what_is_no_list_of_phases(rows, tmp_path, phases, said):
    words = [*rows, *METHOD, "--phases", json.dumps(phases), "--output_dir", str(tmp_path)]
    with pytest.raises(ValueError) as error:
        plan_phases("custom", parse_task("custom", words))
    assert said in str(error.value)


def test_refuses_models_that_are_split_over_ranks(rows, tmp_path, monkeypatch):
    parsed = parse_task("custom", [*rows, *METHOD, "--phases", '[{"edit": "shrink"}]', "--output_dir", str(tmp_path)])
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError) as error:
        plan_phases("custom", parsed)
    assert_four_parts(str(error.value), "a launch with FSDP")


def test_a_single_edit_from_the_command_line(rows, tmp_path, capsys):
    words = [*rows, *METHOD, "--output_dir", str(tmp_path / "out")]
    assert main(["edit", "--task", "custom", *words, "--edit", '{"name": "shrink", "factor": 0.9}']) == 0
    assert "Phase 1, edit shrink (fixtures.shrinking): forget" in capsys.readouterr().out
    record = load_record(tmp_path / "out")
    assert record.objective.terms == [] and record.steps == 0 and record.model.trained == 0
    assert "<b>Objective</b>" not in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert main(["edit", "--task", "custom", *words, "--edit", "shrink", "--phases", "[]"]) == 2
    assert_four_parts(capsys.readouterr().err.partition("edit: ")[2], "--phases beside it")
    assert main(["edit", "--task", "custom", *words]) == 2
    assert_four_parts(capsys.readouterr().err.partition("edit: ")[2], "--edit, or --config with a recipe")
