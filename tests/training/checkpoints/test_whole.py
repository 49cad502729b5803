"""Checkpoints are whole or absent: cut-off ones are left out, none is lost to rotation, a full disk or a kill."""

import json
import os
import resource
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from transformers import TrainerCallback, TrainerState
from transformers.trainer_utils import get_last_checkpoint

from fixtures.models import make_trainer, tiny_model, weights
from hf_unlearn.results.files import atomic_write_text
from hf_unlearn.results.record import RECORD_FILE
from hf_unlearn.training.checkpoints.mark import MARK_FILE, checkpoints_in, fault_of, has_optimizer, write_mark
from hf_unlearn.training.checkpoints.moves import UNFINISHED, move_files, recover, rotate
from hf_unlearn.training.checkpoints.run_starts import RunStarts
from hf_unlearn.training.checkpoints.selection import last_checkpoint

PARTS = r"Expected (.|\n)*Got: (.|\n)*Why it matters: (.|\n)*What to do: "
SAVING = dict(max_steps=4, save_strategy="steps", save_steps=1, optim="adamw_torch", forget_loss="npo")


def trained(folder: Path, resume=None, **arguments):
    trainer = make_trainer(folder, tiny_model(), **SAVING | arguments)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run with a kept state and checkpoints of steps 1 to 4, and its final weights."""
    folder = tmp_path_factory.mktemp("whole")
    trainer = trained(folder, step_wrappers="weight_averaging")
    return folder, weights(trainer.model)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_checkpoint_that_is_cut_off_is_told_with_and_without_a_mark(whole, tmp_path):
    good = whole[0] / "out" / "checkpoint-3"
    assert fault_of(good) is None and not (good.parent / UNFINISHED).exists()
    damages = {
        "model.safetensors": cut,
        "optimizer.pt": cut,
        "scheduler.pt": Path.unlink,
        "rng_state.pth": Path.unlink,
        "trainer_state.json": cut,
        "unlearning/state.safetensors": cut,
    }
    for marked in (True, False):
        for name, damage in damages.items():
            copy = shutil.copytree(good, tmp_path / str(marked) / "checkpoint-3", dirs_exist_ok=True)
            if not marked:  # as an earlier version wrote it
                (copy / MARK_FILE).unlink()
                assert fault_of(copy) is None
            damage(copy / name)
            fault = fault_of(copy)
            assert fault is not None, (name, marked)
            assert Path(name).name in fault or (not marked and "missing" in fault)
            shutil.rmtree(copy)


@pytest.mark.parametrize("marked", [True, False])
def test_resume_takes_the_last_whole_one_and_ends_the_same(whole, tmp_path, caplog, marked):
    out = shutil.copytree(whole[0], tmp_path / "run") / "out"
    shutil.rmtree(out / "checkpoint-4")
    cut(out / "checkpoint-3" / ("model.safetensors" if marked else "optimizer.pt"))
    (out / "checkpoint-5").mkdir()  # all that a kill may leave of one
    if not marked:
        for path in out.glob(f"*/{MARK_FILE}"):
            path.unlink()
        (out / ".run.json").unlink()
    (out / UNFINISHED / "checkpoint-4").mkdir(parents=True)
    (out / f".{RECORD_FILE}.123").touch()
    trainer = trained(tmp_path / "run", resume=True, step_wrappers="weight_averaging")
    assert trainer.record.resumed_from == 2
    assert "checkpoint-3 is left out: it is not whole (" in caplog.text
    for name, weight in weights(trainer.model).items():
        assert torch.equal(weight, whole[1][name]), name
    assert not (out / UNFINISHED).exists() and not list(out.glob(f".{RECORD_FILE}.*"))
    with pytest.raises(ValueError, match=PARTS):  # by its name, too
        trained(tmp_path / "run", resume=str(out / "checkpoint-5"), step_wrappers="weight_averaging")


@pytest.mark.parametrize("length", [dict(max_steps=4), dict(max_steps=5), dict(max_steps=-1, num_train_epochs=2)])
def test_a_finished_run_that_is_resumed_takes_no_step(tmp_path, length):
    finished = trained(tmp_path, **length)
    resumed = trained(tmp_path, resume=True, **length)
    assert resumed.state.global_step == finished.state.global_step == finished.state.max_steps
    for name, weight in weights(resumed.model).items():
        assert torch.equal(weight, weights(finished.model)[name]), name


@pytest.mark.parametrize("lora", [False, True])
def test_a_checkpoint_without_an_optimizer_is_said_when_it_is_resumed(whole, tmp_path, caplog, lora):
    adapter = dict(peft_config=LoraConfig(r=2, target_modules=["q_proj"])) if lora else {}
    trained(tmp_path, max_steps=2, save_only_model=True, **adapter)
    resumed = trained(tmp_path, resume=True, max_steps=3, **adapter)
    assert resumed.record.resumed_from == 2 and "save_only_model=True: the optimizer, the learning" in caplog.text
    caplog.clear()
    trained(tmp_path, resume=True, max_steps=3, **adapter)  # from the one that this run has written
    assert "save_only_model" not in caplog.text and has_optimizer(whole[0] / "out" / "checkpoint-1")


def test_the_state_is_saved_whole_or_not_at_all(whole, monkeypatch):
    trainer = make_trainer(whole[0], tiny_model(), **SAVING)
    path = whole[0] / "out" / "trainer_state.json"
    trainer.save_state()
    before = path.read_bytes()
    assert json.loads(before)["global_step"] == 0

    def cut_off(self, place):
        Path(place).write_text("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TrainerState, "save_to_json", cut_off)
    with pytest.raises(OSError):
        trainer.save_state()
    assert path.read_bytes() == before and not list(path.parent.glob(".trainer_state*"))
    path.unlink()


class Dies(TrainerCallback):
    """Ends a run as a kill does, but for the process."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def test_a_new_run_in_an_old_folder_never_goes_on_as_the_old_one(tmp_path, caplog):
    trained(tmp_path, save_steps=2)
    old = {step: (path / "model.safetensors").read_bytes() for step, path in checkpoints_in(tmp_path / "out").items()}
    for dies, found in ((1, None), (4, 3)):
        caplog.clear()
        trainer = make_trainer(tmp_path, tiny_model(), **SAVING | dict(save_steps=3, seed=7), callbacks=[Dies(dies)])
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        assert "holds checkpoints of an earlier run (steps 2, 4" in caplog.text
        if found is None:
            with pytest.raises(ValueError, match="checkpoint-4: it is of an earlier run"):
                last_checkpoint(tmp_path / "out")
        else:
            assert last_checkpoint(tmp_path / "out").name == f"checkpoint-{found}"
    resumed = trained(tmp_path, resume=True, save_steps=3, seed=7, save_total_limit=1)
    assert resumed.record.resumed_from == 3
    # Its own are rotated; of the old ones it replaces that of the step which it saves itself, the last.
    assert list(checkpoints_in(tmp_path / "out")) == [2, 4]
    assert (tmp_path / "out/checkpoint-2/model.safetensors").read_bytes() == old[2]
    assert (tmp_path / "out/checkpoint-4/model.safetensors").read_bytes() != old[4]
    assert get_last_checkpoint(str(tmp_path / "out")).endswith("checkpoint-4")


def marked(folder: Path, step: int, lineage: RunStarts) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / RECORD_FILE).touch()
    write_mark(path, step, list(map(list, lineage.starts)), "", "")
    return path


def test_rotation_keeps_the_newest_the_best_and_what_is_not_its_own(tmp_path):
    run, other = RunStarts.anew(), RunStarts.anew()
    marked(tmp_path, 100, other)  # a later step, of another run: by number it would be the one to keep
    paths = {step: marked(tmp_path, step, run) for step in (1, 2, 3, 4)}
    rotate(tmp_path, run, 1, paths[4], str(paths[2]))
    assert list(checkpoints_in(tmp_path)) == [2, 4, 100]
    rotate(tmp_path, run, None, paths[4], None)
    rotate(tmp_path, run, 2, paths[4], None)
    assert list(checkpoints_in(tmp_path)) == [2, 4, 100]
    # Back to step 2: what came after it is of no run that goes on.
    back = RunStarts(((run.starts[0][0], 2), *RunStarts.anew().starts))
    back.write(tmp_path)
    assert last_checkpoint(tmp_path).name == "checkpoint-2"


def test_a_checkpoint_whose_last_move_was_cut_off_is_moved(tmp_path):
    staged = marked(tmp_path / UNFINISHED, 7, RunStarts.anew())
    marked(tmp_path / UNFINISHED, 8, RunStarts.anew()).joinpath(MARK_FILE).unlink()
    recover(tmp_path)
    assert list(checkpoints_in(tmp_path)) == [7] and not staged.exists() and not (tmp_path / UNFINISHED).exists()


@pytest.mark.parametrize("room", [20_000, 200_000])  # for the model, and for it without the optimizer
def test_a_full_disk_costs_no_checkpoint_and_leaves_nothing(whole, tmp_path, room):
    trained(tmp_path, max_steps=1)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    begun = make_trainer(tmp_path, tiny_model(), **SAVING)
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))  # no file may be longer: as a full disk, to a writer
    try:
        with pytest.raises(OSError, match=PARTS) as caught:
            begun.train(resume_from_checkpoint=True)
        if room < 200_000:
            with pytest.raises(OSError, match=PARTS):
                begun.save_model()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert "the last whole checkpoint is checkpoint-1" in str(caught.value)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before
    assert trained(tmp_path, resume=True).state.global_step == 4


def test_a_text_that_finds_no_room_leaves_the_former_one(tmp_path, monkeypatch):
    path = atomic_write_text(tmp_path / "a.json", "{}")

    def full(self, text, encoding):
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError):
        atomic_write_text(path, "[]")
    assert os.listdir(tmp_path) == ["a.json"] and json.loads(path.read_bytes()) == {}


def test_a_model_in_place_is_whole_or_without_a_record(tmp_path, monkeypatch):
    place, source = tmp_path / "out", tmp_path / "out" / UNFINISHED
    source.mkdir(parents=True)
    for folder, names in {
        place: [RECORD_FILE, "model-00001-of-00002.safetensors", "model.safetensors.index.json", "notes.txt"],
        source: ["README.md", "config.json", "model.safetensors"],
    }.items():
        for name in names:
            (folder / name).write_text(str(folder))
    moves = []
    replace = Path.replace

    def watched(self, target):
        moves.append((self.name, (place / RECORD_FILE).exists()))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    move_files(source, place)
    assert moves == [("config.json", False), ("model.safetensors", False)]
    left = [UNFINISHED, "config.json", "model.safetensors", "notes.txt"]
    assert sorted(path.name for path in place.iterdir()) == left
