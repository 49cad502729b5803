"""The study of a sweep: optuna's, in a SQLite file, which any number of processes share and which outlives a kill."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from ...errors import input_error
from .choice import ScoredTrial
from .objectives import Objective
from .plan import SweepPlan
from .space import rounded, value_at

STUDY_FILE = "study.db"
# Seconds between two signs of life of a run, and after which one without is taken for dead and done again.
HEARTBEAT, GRACE = 10, 45
_RETRIES = 2
_NAME = "sweep"
UNCHANGED, FAILURE, METRICS, SECONDS, STOPPED = "unchanged", "failure", "metrics", "seconds", "stop_reason"
_WORDS = {"recipe": "recipe", "space": "search space", "objectives": "objectives"}


def open_study(plan: SweepPlan, objectives: Sequence[Objective]) -> optuna.Study:
    """The study in the folder of a sweep, made where there is none; the unchanged recipe is its first run.

    Args:
        plan: of the sweep.
        objectives: that its runs are compared by.
    """
    with FileLock(plan.folder / "study.lock"):
        storage = _storage(plan.folder)
        study = optuna.create_study(
            storage=storage, study_name=_NAME, directions=["minimize"] * len(objectives), load_if_exists=True
        )
        starts = study.user_attrs.get("starts", 0)
        study.set_user_attr("starts", starts + 1)
        if not starts:
            own = {parameter.path: value_at(parameter.path, plan.known) for parameter in plan.space}
            study.enqueue_trial(own, user_attrs={UNCHANGED: True})
    # Processes that start again, or beside each other, must not draw the same values.
    study.sampler = _sampler(plan, plan.seed + 7919 * starts)
    return study


def require_same(plan: SweepPlan) -> None:
    """Keep what the sweep in a folder is, or raise where it is another one.

    Raises:
        ValueError: another recipe, search space or other objectives than those that its runs were made with.
    """
    identity = plan.identity()
    with FileLock(plan.folder / "study.lock"):
        study = optuna.create_study(
            storage=_storage(plan.folder), study_name="plan", load_if_exists=True
        )  # beside the runs' own, whose directions are not known yet
        stored = study.user_attrs.get("identity")
        if stored is None:
            study.set_user_attr("identity", identity)
            return
    changed = [_WORDS[name] for name, value in identity.items() if stored.get(name) != value]
    if changed:
        raise input_error(
            expected=f"the {changed[0]} that the sweep in {plan.folder.name} was begun with",
            got="another",
            why="its runs could not be compared with those that are there",
            fix="name another --output_dir; more runs or minutes may be asked for in the same one",
        )


def scored_trials(study: optuna.Study) -> list[ScoredTrial]:
    """The runs that have ended, those aside that died with their process and were done again."""
    done = [trial for trial in counted(study) if trial.state in (TrialState.COMPLETE, TrialState.FAIL)]
    return [_scored(trial) for trial in done]


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """The runs that count in the budget: begun ones, those aside that are done again."""
    trials = study.get_trials(deepcopy=False)
    again = {number for trial in trials for number in RetryHeartbeatStaleTrialCallback.retry_history(trial)}
    return [trial for trial in trials if trial.state != TrialState.WAITING and trial.number not in again]


def _scored(trial: FrozenTrial) -> ScoredTrial:
    attributes: Mapping[str, Any] = trial.user_attrs
    complete = trial.state == TrialState.COMPLETE
    return ScoredTrial(
        number=trial.number,
        values={path: rounded(value) for path, value in trial.params.items()},
        figures=tuple(trial.values) if complete else (),
        unchanged=attributes.get(UNCHANGED, False),
        seconds=attributes.get(SECONDS, 0.0),
        metrics=attributes.get(METRICS, {}),
        failure=None if complete else attributes.get(FAILURE, "its process died"),
        stop_reason=attributes.get(STOPPED),
    )


def _storage(folder: Path) -> RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a run that fails is told in a line of our own
    # A process that writes lets the others wait; SQLite's own five seconds are few on a busy disk.
    return RDBStorage(
        f"sqlite:///{folder.absolute() / STUDY_FILE}",
        engine_kwargs={"connect_args": {"timeout": 60}},
        heartbeat_interval=HEARTBEAT,
        grace_period=GRACE,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=_RETRIES),
    )


def _sampler(plan: SweepPlan, seed: int) -> BaseSampler:
    if plan.sampler == "random":
        return RandomSampler(seed=seed)
    if plan.sampler == "nsga2":
        return NSGAIISampler(population_size=max(4, min(50, (plan.runs or 50) // 4)), seed=seed)
    # A third of the runs are drawn at random first, ten at most; runs under way elsewhere count as bad ones.
    return TPESampler(n_startup_trials=max(3, min(10, (plan.runs or 30) // 3)), seed=seed, constant_liar=True)
