"""`hyperparameter_search` with optuna itself: each trial is the run that a trainer with its arguments would make."""

import math

import optuna
import pytest
from peft import LoraConfig

from fixtures.bad_input import build, logged, rows, sets
from fixtures.models import tiny_model
from hf_unlearn.losses import NPO
from hf_unlearn.results.record import load_record
from hf_unlearn.training.trials import without_pruning

optuna.logging.set_verbosity(optuna.logging.WARNING)

EVALUATED = dict(eval_dataset=sets(), eval_strategy="steps", eval_steps=1, retain_loss="kl", max_steps=2)


def fresh():
    """The model before unlearning."""
    return tiny_model()


def space(trial):
    return {
        "learning_rate": 3e-2,
        "forget_weight": trial.suggest_float("forget_weight", 0.1, 0.9),
        "forget_loss": {"name": "npo", "beta": trial.suggest_float("beta", 0.1, 0.9)},
    }


def retain_nll(metrics):
    return metrics["eval_retain_nll"]


def grid(**values):
    """A sampler that tries these values, in order."""
    return optuna.samplers.GridSampler(values, seed=0)


def search(trainer, hp_space=space, compute_objective=retain_nll, **arguments):
    return trainer.hyperparameter_search(hp_space, compute_objective, backend="optuna", **arguments)


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_each_trial_is_a_run_of_its_own(tmp_path, adapter):
    lora = dict(peft_config=LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=True)) if adapter else {}
    # An int and a name: what Trainer would cast 0.3 and a mapping to.
    arguments = EVALUATED | dict(forget_weight=1, forget_loss="npo", save_strategy="steps", save_steps=2)
    trials = []

    def model_init(trial):
        trials.append(trial and trial.number)
        return tiny_model()

    trainer = build(tmp_path / "search", model_init=model_init, **arguments, **lora)
    values = dict(forget_weight=[0.3, 0.7], beta=[0.2, 0.8])
    best = search(trainer, n_trials=4, sampler=grid(**values))
    assert trials == [None, 0, 1, 2, 3]
    reached = {}
    for number in range(4):
        folder = tmp_path / "search" / f"run-{number}"
        assert (folder / "checkpoint-2" / "config.json").is_file() is not adapter
        record = load_record(folder)
        assert record.steps == record.planned_steps == 2
        tried = (record.objective.forget_weight, record.objective.terms[0].arguments["beta"])
        reached[tried] = record.trainer_metrics["eval_retain_nll"]
        # The reference is the trial's own model: there NPO is (2 / beta) ln 2 and the KL is 0.
        first = next(entry for entry in record.log if "forget/npo" in entry)
        assert first["forget/npo"] == pytest.approx(2 / tried[1] * math.log(2), rel=1e-4)
        assert first["retain/kl"] == pytest.approx(0, abs=1e-6)
    assert len(reached) == 4
    assert best.objective == min(reached.values()) and best.hyperparameters.keys() == values.keys()
    weight, beta = best.hyperparameters["forget_weight"], best.hyperparameters["beta"]
    assert reached[weight, beta] == best.objective
    tuned = dict(forget_weight=weight, forget_loss={"name": "npo", "beta": beta}, learning_rate=3e-2)
    alone = build(tmp_path / "alone", model=tiny_model(), **arguments | tuned, **lora)
    alone.train()
    assert logged(alone, "eval_retain_nll")[-1] == pytest.approx(best.objective, rel=1e-5)
    # What everyone does next.
    for name, value in tuned.items():
        setattr(trainer.args, name, value)
    trainer.train()
    assert logged(trainer, "eval_retain_nll")[-1] == pytest.approx(best.objective, rel=1e-5)


def test_what_a_trial_does_not_propose_is_as_at_the_start(tmp_path):
    def sometimes(trial):
        weight = {"forget_weight": 0.25} if trial.number == 0 else {}
        return {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 2e-3), **weight}

    trainer = build(tmp_path, model_init=fresh, **EVALUATED)
    search(trainer, sometimes, n_trials=2)
    assert [load_record(tmp_path / f"run-{n}").objective.forget_weight for n in (0, 1)] == [0.25, 1.0]


def test_a_pruned_trial_leaves_nothing_to_the_next(tmp_path):
    def rates(trial):
        return {"learning_rate": trial.suggest_categorical("learning_rate", [1.0, 1e-3])}

    arguments = EVALUATED | dict(max_steps=3)
    trainer = build(tmp_path, model_init=fresh, **arguments)
    study = dict(study_name="pruned", storage=optuna.storages.InMemoryStorage())
    best = search(
        trainer,
        rates,
        n_trials=2,
        sampler=grid(learning_rate=[1.0, 1e-3]),
        pruner=optuna.pruners.ThresholdPruner(upper=8.0),
        **study,
    )
    states = {trial.params["learning_rate"]: trial for trial in optuna.load_study(**study).trials}
    assert states[1.0].state.name == "PRUNED" and states[1e-3].state.name == "COMPLETE"
    assert load_record(tmp_path / f"run-{states[1.0].number}").steps < 3
    alone = build(tmp_path / "alone", model=tiny_model(), **arguments | dict(learning_rate=1e-3))
    alone.train()
    assert best.objective == pytest.approx(logged(alone, "eval_retain_nll")[-1], rel=1e-5)


def test_no_trial_is_pruned_where_that_would_end_it_on_one_process_alone():
    kept = without_pruning("optuna", {"n_jobs": 1}, processes=2)
    assert isinstance(kept.pop("pruner"), optuna.pruners.NopPruner) and kept == {"n_jobs": 1}
    median = {"pruner": optuna.pruners.MedianPruner()}
    assert without_pruning("optuna", median, processes=1) is median
    with pytest.raises(ValueError, match="without a pruner, in several processes"):
        without_pruning(None, median, processes=2)


def test_several_objectives_without_an_evaluation_in_training(tmp_path):
    trainer = build(tmp_path, model_init=fresh, eval_dataset=sets(), forget_loss="npo")
    best = search(
        trainer,
        compute_objective=lambda metrics: [metrics["eval_retain_nll"], metrics["eval_forget_nll"]],
        n_trials=2,
        direction=["minimize", "maximize"],
        hp_name=lambda trial: f"trial-{trial.number}",
    )
    assert best and all(len(run.objective) == 2 for run in best)
    assert load_record(tmp_path / "trial-1").steps == 2


def test_the_default_objective_of_one_set(tmp_path):
    plain = build(tmp_path, model_init=fresh, eval_dataset=rows("other", 4), forget_loss="npo")
    best = search(plain, compute_objective=None, n_trials=1)
    assert best.objective == plain.state.log_history[-1]["eval_loss"]
    measured = build(
        tmp_path,
        model_init=fresh,
        forget_loss="npo",
        eval_dataset=rows("other", 4),
        compute_metrics=lambda _: {"a": 1.5, "b": 2.0},
    )
    assert search(measured, compute_objective=None, n_trials=1).objective == 3.5


@pytest.mark.parametrize(
    ("arguments", "searched", "match"),
    [
        (dict(eval_dataset=None), {}, "an eval_dataset for hyperparameter_search"),
        ({}, dict(compute_objective=None), "compute_objective for a search with several"),
        ({}, dict(hp_space=lambda trial: {"forget_wieght": 0.5}), "did you mean 'forget_weight'"),
        ({}, dict(hp_space=lambda trial: {"retain_ratio": 0.5}), "loss weights and arguments.*\nGot: retain_ratio"),
        ({}, dict(hp_space=lambda trial: {"forget_weight": -0.5}), "forget_weight must be"),
        ({}, dict(hp_space=lambda trial: {"forget_loss": "simnpo"}), "Got: other losses"),
        (
            dict(forget_nll_bound=9.0),
            dict(hp_space=lambda trial: {"forget_bound_sides": "both"}),
            "Got: forget_bound_",
        ),
        (
            dict(forget_loss={"name": "unseen_level", "token_weight": 0}, levels=dict.fromkeys(range(8), 5.0)),
            dict(hp_space=lambda trial: {"forget_loss": {"name": "unseen_level", "token_weight": 0.1}}),
            "Got: a mapping of row to nats",
        ),
        ({}, dict(hp_space=lambda trial: {"per_device_train_batch_size": 16}), "at least 16 retain rows"),
        (dict(forget_loss=NPO()), {}, "Got: forget_loss"),
    ],
)
def test_searches_that_would_mean_nothing(tmp_path, arguments, searched, match):
    built = dict(model_init=fresh, eval_dataset=sets(), forget_loss="npo") | arguments
    if isinstance(built["forget_loss"], NPO):  # the trainer's own argument, over which args have no say
        built["forget_loss"], own = "npo", built["forget_loss"]
        trainer = build(tmp_path, **built, trainer_arguments=dict(forget_loss=own))
    else:
        trainer = build(tmp_path, **built)
    with pytest.raises(ValueError, match=match):
        search(trainer, **dict(n_trials=1) | searched)


def test_arguments_set_between_two_runs(tmp_path):
    trainer = build(tmp_path, model_init=fresh, forget_loss="npo", learning_rate=0.0)
    trainer.train()
    first = logged(trainer, "loss")
    trainer.args.forget_weight, trainer.args.forget_loss = 0.5, {"name": "npo", "beta": 0.2}
    trainer.train()
    nll = logged(trainer, "retain_nll")
    assert [a - b for a, b in zip(logged(trainer, "loss"), nll, strict=True)] == pytest.approx(
        [(a - b) / 4 for a, b in zip(first, nll, strict=True)], rel=1e-4
    )
    trainer.args.retain_ratio = 2.0
    with pytest.raises(ValueError, match="Got: retain_ratio"):
        trainer.train()
