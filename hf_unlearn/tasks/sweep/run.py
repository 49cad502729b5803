"""A sweep from plan to report: prepared once, its runs one after another, the best one again with fresh seeds."""

import math
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.storages import fail_stale_trials
from optuna.trial import TrialState

from ...data.holdout_split import CALIBRATION
from ...errors import input_error
from ...evaluation import load_result
from ...results.files import read_json
from . import study as studies
from .choice import ScoredTrial, choose
from .final import FinalRuns, final_runs
from .job import JobFailed, run_job
from .objectives import Objective, find_objectives
from .plan import SweepPlan
from .space import rounded

TRIALS, PREPARED = "trials", "prepared"
_FITTED = ("fitted", "fitted-oracle")  # folders of a task that fits a model first, as a run calls them
_POLL = 2.0  # seconds


@dataclass(frozen=True)
class Sweep:
    """A sweep that has ended.

    Attributes:
        plan: of it.
        objectives: that its runs were compared by.
        trials: its runs.
        best: by `choice.RULE`.
        final: the best and the unchanged recipe, run again with fresh seeds.
        measured: rows of each set by which was chosen.
    """

    plan: SweepPlan
    objectives: list[Objective]
    trials: list[ScoredTrial]
    best: ScoredTrial
    final: FinalRuns
    measured: dict[str, int]


def run_sweep(plan: SweepPlan, tell: Callable[[str], None]) -> Sweep:
    """Do what is left of a sweep.

    Any number of processes may do so at once: each takes the next run that nobody is at, and waits for the others' at
    the end.

    Args:
        plan: of the sweep.
        tell: is given a line for people at each step.

    Raises:
        ValueError: another sweep is in the folder, or rows, model or arguments will not do.
        OSError: a process of its own died where none may.
    """
    with warnings.catch_warnings():
        # optuna calls its heartbeat experimental, at each look at the runs.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _swept(plan, tell)


def _swept(plan: SweepPlan, tell: Callable[[str], None]) -> Sweep:
    plan.folder.mkdir(parents=True, exist_ok=True)
    studies.require_same(plan)
    prepared = _prepare(plan, tell)
    objectives = _objectives(plan, prepared)
    study = studies.open_study(plan, objectives)
    tell("Compared are " + "; ".join(f"{one.name}: {one.words}" for one in objectives) + ".")
    _run_trials(plan, study, objectives, tell)
    trials = studies.scored_trials(study)
    best = choose(trials, objectives)
    final = final_runs(plan, best, objectives, tell, levels=prepared["levels"])
    return Sweep(plan, objectives, trials, best, final, prepared["measured"])


def _prepare(plan: SweepPlan, tell: Callable[[str], None]) -> dict[str, Any]:
    """Measure the model before unlearning and its oracle, by one process for all."""
    folder = plan.folder / PREPARED
    job = {"task": plan.task, "values": plan.trial_values({}), "words": ["--output_dir", str(folder)]}
    with FileLock(plan.folder / "prepare.lock"):
        if not (folder / "prepared.json").is_file():
            tell(f"Measuring the model before unlearning on the {CALIBRATION} rows ...")
        try:
            run_job("prepare", folder, job)
        except JobFailed as error:
            raise OSError(f"the model could not be measured ({error}); log: {folder / 'log.txt'}") from None
    prepared: dict[str, Any] = read_json(folder / "prepared.json")
    return prepared


def _objectives(plan: SweepPlan, prepared: dict[str, Any]) -> list[Objective]:
    folder = plan.folder / PREPARED
    oracle = load_result(folder / "evaluation_oracle.json") if prepared["oracle"] else None
    before = load_result(folder / "evaluation_before.json")
    return find_objectives(before, oracle, levels=prepared["levels"], asked=plan.objectives)


def _run_trials(
    plan: SweepPlan, study: optuna.Study, objectives: list[Objective], tell: Callable[[str], None]
) -> None:
    """Take runs until the budget is used up, and wait for those of other processes."""
    end = math.inf if plan.minutes is None else time.monotonic() + 60 * plan.minutes
    trial = _Trial(plan, objectives, tell)
    while True:
        fail_stale_trials(study)
        states = [one.state for one in studies.counted(study)]
        left = plan.runs is None or len(states) < plan.runs
        # The unchanged recipe is run whatever the time: without it there is nothing to compare with.
        if left and (time.monotonic() < end or not states):
            study.optimize(trial, n_trials=1, catch=(JobFailed, ValueError))
            _require_unchanged_runs(study)
        elif TrialState.RUNNING in states:
            time.sleep(_POLL)  # of another process, or of a dead one until it is known to be dead
        else:
            return


class _Trial:
    """One run of a sweep, as optuna calls it."""

    def __init__(self, plan: SweepPlan, objectives: list[Objective], tell: Callable[[str], None]) -> None:
        self._plan, self._objectives, self._tell = plan, objectives, tell

    def __call__(self, trial: optuna.Trial) -> tuple[float, ...]:
        plan, started = self._plan, time.monotonic()
        drawn = {parameter.path: parameter.suggest(trial) for parameter in plan.space}
        unchanged = trial.user_attrs.get(studies.UNCHANGED, False)
        folder = plan.folder / TRIALS / f"{trial.number:04d}"
        _link_fitted(plan.folder / PREPARED, folder)
        job = {
            "task": plan.task,
            "values": plan.trial_values({} if unchanged else drawn),
            "words": ["--output_dir", str(folder)],
            "prepared": str(plan.folder / PREPARED),
        }
        which = (
            "the unchanged recipe"
            if unchanged
            else ", ".join(f"{name} {rounded(value)}" for name, value in drawn.items())
        )
        try:
            run_job("trial", folder, job)
            figures = self._figures(trial, folder)
        except (JobFailed, ValueError) as error:
            trial.set_user_attr(studies.FAILURE, str(error).splitlines()[0][:300])
            self._tell(f"Run {trial.number}: {which}: failed ({str(error).splitlines()[0][:200]})")
            raise
        seconds = time.monotonic() - started
        trial.set_user_attr(studies.SECONDS, round(seconds, 1))
        told = ", ".join(f"{one.name} {figure:.3f}" for one, figure in zip(self._objectives, figures, strict=True))
        self._tell(f"Run {trial.number}: {which}: {told} ({seconds:.0f} s)")
        return figures

    def _figures(self, trial: optuna.Trial, folder: Path) -> tuple[float, ...]:
        """What a run is compared by; one whose figures are no numbers has failed."""
        result = load_result(folder / "evaluation_after.json")
        figures = tuple(one.figure(result) for one in self._objectives)
        if not all(math.isfinite(figure) for figure in figures):
            raise JobFailed("figures that are not finite: the model is broken")
        finite = {name: value for name, value in result.values().items() if math.isfinite(value)}
        trial.set_user_attr(studies.METRICS, finite)
        trial.set_user_attr(studies.STOPPED, read_json(folder / "end.json")["stop_reason"])
        return figures


def _link_fitted(prepared: Path, folder: Path) -> None:
    """Let a run find the model that was fitted for all of them, in place of fitting it again."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in _FITTED:
        if (prepared / name).is_dir():
            (folder / name).symlink_to((prepared / name).absolute(), target_is_directory=True)


def _require_unchanged_runs(study: optuna.Study) -> None:
    """Raise where the recipe itself fails: runs with other values have nothing to be compared with."""
    failed = [trial for trial in studies.scored_trials(study) if trial.unchanged and trial.failure is not None]
    if failed:
        raise input_error(
            expected="a recipe that runs as it is",
            got=f"one that fails: {failed[0].failure}",
            why="the runs of a sweep are compared with it",
            fix="run it by itself first, hf-unlearn train; the log is in the sweep's folder, under trials",
        )


def tell_stderr(line: str) -> None:
    """A line for people, beside the result."""
    print(line, file=sys.stderr, flush=True)
