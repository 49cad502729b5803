"""The study on disk: it goes on after a kill, is shared by processes, and is refused to another sweep."""

import dataclasses
import sys
import time
import warnings

import optuna
import pytest

from fixtures.examples import assert_four_parts
from hf_unlearn.tasks.sweep import study as studies
from hf_unlearn.tasks.sweep.job import JobFailed, failure_words, run_command
from hf_unlearn.tasks.sweep.objectives import Objective
from hf_unlearn.tasks.sweep.plan import SweepRequest, plan_sweep
from hf_unlearn.tasks.sweep.run import _run_trials

OBJECTIVES = [Objective("forgetting", "a", 0.0, 1.0, ""), Objective("utility", "b", 1.0, 0.05, "")]


@pytest.fixture(scope="module")
def planned():
    return plan_sweep(SweepRequest("harmful", ["--config", "methods/npo", "--output_dir", "out"], runs=4))


@pytest.fixture
def plan(planned, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage")  # runs are asked for one by one here
        yield dataclasses.replace(planned, folder=tmp_path)


def test_the_unchanged_recipe_is_the_first_run(plan):
    study = studies.open_study(plan, OBJECTIVES)
    trial = study.ask()
    values = {one.path: one.suggest(trial) for one in plan.space}
    assert values == {"learning_rate": 0.004, "retain_weight": 3.0, "forget_loss.npo.beta": 0.1}
    study.tell(trial, [0.1, 0.2])
    (scored,) = studies.scored_trials(study)
    assert scored.unchanged and scored.figures == (0.1, 0.2)


def test_two_starts_do_not_draw_the_same_values(plan):
    drawn = []
    for start in range(2):
        study = studies.open_study(plan, OBJECTIVES)
        trials = [study.ask() for _ in range(2 - start)]
        drawn.append([one.suggest(trials[-1]) for one in plan.space])
    assert drawn[0] != drawn[1]


def test_a_run_without_a_sign_of_life_is_done_again_and_counts_once(plan, monkeypatch):
    monkeypatch.setattr(studies, "HEARTBEAT", 1)
    monkeypatch.setattr(studies, "GRACE", 1)
    study = studies.open_study(plan, OBJECTIVES)
    dead = study.ask()
    values = {one.path: one.suggest(dead) for one in plan.space}
    study._storage.record_heartbeat(dead._trial_id)
    time.sleep(2.1)
    optuna.storages.fail_stale_trials(study)
    assert studies.counted(study) == []
    again = study.ask()
    assert again.number == 1 and {one.path: one.suggest(again) for one in plan.space} == values
    assert again.user_attrs[studies.UNCHANGED]
    study.tell(again, [0.0, 0.0])
    assert [trial.number for trial in studies.scored_trials(study)] == [1]


def test_the_budget_counts_failed_runs_and_those_of_earlier_starts(plan, monkeypatch):
    made = []

    class Runs:
        def __init__(self, *ignored):
            pass

        def __call__(self, trial):
            for one in plan.space:
                one.suggest(trial)
            made.append(trial.number)
            if trial.number == 1:
                trial.set_user_attr(studies.FAILURE, "ended by signal 9")
                raise JobFailed("ended by signal 9")
            return 0.1, 0.1

    monkeypatch.setattr("hf_unlearn.tasks.sweep.run._Trial", Runs)
    _run_trials(dataclasses.replace(plan, runs=2), studies.open_study(plan, OBJECTIVES), OBJECTIVES, print)
    study = studies.open_study(plan, OBJECTIVES)
    _run_trials(plan, study, OBJECTIVES, print)
    assert made == [0, 1, 2, 3]
    assert [trial.failure for trial in studies.scored_trials(study)] == [None, "ended by signal 9", None, None]
    _run_trials(dataclasses.replace(plan, runs=None, minutes=1e-9), study, OBJECTIVES, print)
    assert made == [0, 1, 2, 3]


def test_another_sweep_is_refused(plan):
    studies.require_same(plan)
    studies.require_same(dataclasses.replace(plan, runs=9))
    other = dataclasses.replace(plan, recipe={**plan.recipe, "learning_rate": 0.001})
    for changed, word in ((other, "recipe"), (dataclasses.replace(plan, space=plan.space[:1]), "search space")):
        with pytest.raises(ValueError) as error:
            studies.require_same(changed)
        assert_four_parts(str(error.value), f"the {word}", "another")


def test_a_process_that_fails_says_why(tmp_path):
    log = tmp_path / "log.txt"
    assert run_command([sys.executable, "-c", "print('so'); raise SystemExit(3)"], log) == 3
    assert failure_words(3, log) == "exit status 3: so"
    killed = run_command([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], log)
    assert failure_words(killed, log) == "ended by signal 9"


def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    alive = tmp_path / "alive"
    child = (
        "import threading, time, pathlib\n"
        "from hf_unlearn.tasks.sweep.job import end_with_parent\n"
        "threading.Thread(target=end_with_parent, daemon=True).start()\n"
        f"time.sleep(1); pathlib.Path({str(alive)!r}).touch()\n"
    )
    start = "import subprocess, sys, os\n"
    start += f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE)\n"
    run_command([sys.executable, "-c", f"{start}child.wait()"], tmp_path / "log.txt")
    assert alive.exists()  # while that is there, it goes on
    alive.unlink()
    run_command([sys.executable, "-c", f"{start}os._exit(1)"], tmp_path / "log.txt")
    time.sleep(3)
    assert not alive.exists()
