"""Runs in series: skipped when whole, gone on with, told when they fail, ended when interrupted. No real processes."""

import json
import os
import signal
from pathlib import Path

import pytest

from fixtures.examples import assert_four_parts
from hf_unlearn.results.record import RunRecord
from hf_unlearn.tasks.series import PlannedRun, processes, run_series


@pytest.fixture
def started(monkeypatch):
    """The command lines that were started; those of `failing` folders end with status 2 and leave no record."""
    lines = []

    class Process:
        failing = ()

        def __init__(self, words):
            assert words[1:4] == ["-m", "hf_unlearn.cli", "train"]
            lines.append(words[4:])
            self.folder = Path(words[words.index("--output_dir") + 1])

        def wait(self, timeout=None):
            if self.folder.name in self.failing:
                return 2
            RunRecord(self.folder.name).save(self.folder)
            return 0

    monkeypatch.setattr(processes.subprocess, "Popen", Process)
    return lines, Process


def planned(folder: Path, *names: str, words: tuple[str, ...] = ("--config", "methods/npo")) -> list[PlannedRun]:
    return [PlannedRun(folder / name, (*words, "--seed", str(i))) for i, name in enumerate(names)]


def test_each_run_once_and_what_failed_again(tmp_path, started, capfd):
    lines, process = started
    process.failing = ("b",)
    runs = planned(tmp_path, "a", "b", "c")
    assert run_series(runs) == [tmp_path / "a", tmp_path / "c"]
    assert [words[-1] for words in lines] == [str(tmp_path / name) for name in "abc"]
    assert lines[0] == ["--config", "methods/npo", "--seed", "0", "--output_dir", str(tmp_path / "a")]
    told = capfd.readouterr().err
    assert told.splitlines()[-1].startswith("1 of 3 runs failed: b (exit status 2).")
    process.failing = ()
    lines.clear()
    assert run_series(runs) == [run.folder for run in runs]
    assert [words[-1] for words in lines] == [str(tmp_path / "b")]  # the others were whole
    assert "[1/3] a: done already" in capfd.readouterr().err


def test_a_killed_run_goes_on_from_its_checkpoint_or_anew(tmp_path, started, monkeypatch):
    lines, _ = started
    runs = planned(tmp_path, "saved", "unsaved", "phased")
    for run in runs:
        run.mark(done=False)  # as far as a kill let it come
    (tmp_path / "phased" / "phases").mkdir()
    steps = {"saved": [4], "unsaved": [], "phased": []}
    monkeypatch.setattr("hf_unlearn.training.checkpoints.selection.whole_steps", lambda folder: steps[folder.name])
    run_series(runs)
    resumed = [words[-2:] == ["--resume_from_checkpoint", "true"] for words in lines]
    assert resumed == [True, False, True]


def begun(run: PlannedRun) -> None:
    run.mark(done=False)
    (run.folder / "checkpoint-4").mkdir()


def test_a_run_that_kept_nothing_may_be_another_one_now(tmp_path, started):
    """As when a loss of one's own failed at its first step, and was corrected."""
    lines, process = started
    process.failing = ("run",)
    (tmp_path / "my_loss.py").write_text("a")
    run = PlannedRun(tmp_path / "run", ("--plugins", str(tmp_path / "my_loss.py")))
    assert run_series([run]) == []
    (tmp_path / "my_loss.py").write_text("b")
    process.failing = ()
    assert run_series([run]) == [run.folder] and len(lines) == 2


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda run: RunRecord("x").save(run.folder), "a run that no series has started"),
        (lambda run: begun(PlannedRun(run.folder, ("--config", "methods/simnpo"))), "methods/simnpo then"),
        (lambda run: (begun(run), Path(run.arguments[-1]).write_text("b")), "read another own.yaml"),
        (lambda run: (run.folder.mkdir(), (run.folder / "series.json").write_text("[1")), "cannot be read"),
        (lambda run: (run.folder.mkdir(), (run.folder / "series.json").write_text("[1]")), "of another kind"),
    ],
)
def test_a_folder_with_another_run_is_refused_before_any_is_started(tmp_path, started, change, got):
    (tmp_path / "own.yaml").write_text("a")
    runs = [*planned(tmp_path, "first"), PlannedRun(tmp_path / "run", ("--config", str(tmp_path / "own.yaml")))]
    change(runs[1])
    with pytest.raises(ValueError) as error:
        run_series(runs)
    assert_four_parts(str(error.value), got, "pass another --output_dir")
    assert started[0] == []
    with pytest.raises(ValueError) as error:
        run_series([runs[0], runs[0]])
    assert_four_parts(str(error.value), "first twice")


def test_an_interrupted_series_ends_its_run_and_goes_on_later(tmp_path, started, monkeypatch):
    lines, process = started
    ended, waited = [], []

    def wait(self, timeout=None):
        waited.append(timeout)
        if len(waited) == 1:
            os.kill(os.getpid(), signal.SIGTERM)  # as a scheduler ends a job
        if len(waited) == 2:
            raise processes.subprocess.TimeoutExpired("hf-unlearn", timeout)

    with monkeypatch.context() as patched:
        patched.setattr(process, "wait", wait)
        for name in ("terminate", "kill"):
            patched.setattr(process, name, lambda self, name=name: ended.append(name), raising=False)
        with pytest.raises(KeyboardInterrupt):
            run_series(planned(tmp_path, "a", "b"))
    assert ended == ["terminate"] and len(waited) == 3 and len(lines) == 1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert json.loads((tmp_path / "a" / "series.json").read_text())["done"] is False
    assert run_series(planned(tmp_path, "a", "b")) == [tmp_path / "a", tmp_path / "b"]
