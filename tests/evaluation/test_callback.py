"""A suite at every evaluation of a run: where its figures go, what they decide, and that training does not notice."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from fixtures.models import FORGET, HOLDOUT, RETAIN, make_trainer, step_logs, tiny_model, tiny_tokenizer, weights
from hf_unlearn.evaluation import EvaluationResult, UnlearningEvalCallback, custom, evaluate

PARTS = ("Expected ", "\nGot: ", "\nWhy it matters: ", "\nWhat to do: ")
EVAL_ROWS = RETAIN[20:26]
# Rising forget NLL, so that a run has a best step of its own: evaluations at steps 2, 4 and 6.
ASCENT = dict(
    forget_loss="grad_ascent", retain_loss="nll", max_steps=6, eval_strategy="steps", eval_steps=2, learning_rate=0.02
)


def suite():
    return custom(forget=FORGET[:5], retain=RETAIN[:4], max_new_tokens=3)


class Listener(TrainerCallback):
    """What a callback that reports elsewhere is told."""

    def __init__(self) -> None:
        self.logs: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.logs.append({"step": state.global_step} | logs)


def unlearner(folder: Path, *callbacks: TrainerCallback, model: Any = None, **options: Any):
    options = {"eval_dataset": EVAL_ROWS} | ASCENT | options
    return make_trainer(folder, model or tiny_model(), callbacks=list(callbacks), **options)


def of_the_suite(history: list[dict[str, Any]]) -> dict[int, dict[str, float]]:
    """By step, the logged figures of the suite; a step with two such entries is a mistake."""
    entries = [entry for entry in history if "eval_custom_forget_extraction_strength" in entry]
    assert len({entry["step"] for entry in entries}) == len(entries)
    return {entry["step"]: {k: v for k, v in entry.items() if k not in ("epoch", "step")} for entry in entries}


def named(result: EvaluationResult) -> dict[str, float]:
    return {f"eval_custom_{name}": value for name, value in result.values().items()}


def refused(make: Any, *words: str) -> None:
    with pytest.raises(ValueError) as caught:
        make()
    message = str(caught.value)
    places = [message.find(part) for part in PARTS]
    assert places == sorted(places) and places[0] == 0 and all(word in message for word in words), message


def test_figures_go_into_the_history_and_to_whoever_reports(tmp_path):
    callback, listener = UnlearningEvalCallback(suite()), Listener()
    trainer = unlearner(tmp_path, listener, callback)
    trainer.train()
    assert list(callback.results) == [2, 4, 6]
    expected = {step: named(result) for step, result in callback.results.items()}
    assert of_the_suite(trainer.state.log_history) == of_the_suite(listener.logs) == expected
    nlls = [callback.results[step]["forget_nll"].value for step in (2, 4, 6)]
    assert nlls == sorted(nlls) and nlls[0] < nlls[-1]
    last = evaluate(trainer.model, tiny_tokenizer(), suite())
    assert last.values() == pytest.approx(callback.results[6].values(), rel=1e-5)
    assert callback.results[6].rows == last.rows
    trainer.save_state()
    assert "eval_custom_forget_extraction_strength" in json.dumps(
        json.loads(Path(tmp_path, "out", "trainer_state.json").read_text())
    )


@pytest.mark.parametrize("greater", [True, False])
def test_the_best_model_is_chosen_by_a_figure_of_the_suite(tmp_path, greater):
    callback = UnlearningEvalCallback(suite())
    trainer = unlearner(
        tmp_path,
        callback,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_custom_forget_nll",
        greater_is_better=greater,
    )
    trainer.train()
    nlls = {step: result["forget_nll"].value for step, result in callback.results.items()}
    best = (max if greater else min)(nlls, key=nlls.__getitem__)
    assert best == (6 if greater else 2) and len(set(nlls.values())) == 3
    assert trainer.state.best_metric == nlls[best]
    assert Path(trainer.state.best_model_checkpoint).name == f"checkpoint-{best}"
    found = evaluate(trainer.model, tiny_tokenizer(), suite())
    assert found["forget_nll"].value == pytest.approx(nlls[best], rel=1e-5)


def test_several_evaluation_sets_share_one_run_of_the_suite(tmp_path, monkeypatch):
    runs: list[int] = []
    run = UnlearningEvalCallback._run
    monkeypatch.setattr(UnlearningEvalCallback, "_run", lambda *given: runs.append(given[2]) or run(*given))
    callback = UnlearningEvalCallback(suite())
    trainer = unlearner(tmp_path, callback, eval_dataset={"near": EVAL_ROWS, "far": HOLDOUT, "other": RETAIN[:3]})
    trainer.train()
    assert runs == list(callback.results) == [2, 4, 6]
    assert of_the_suite(trainer.state.log_history).keys() == {2, 4, 6}
    metrics = trainer.evaluate()
    assert {"eval_near_nll", "eval_far_nll", "eval_other_nll"} < metrics.keys()
    assert {name: metrics[name] for name in named(callback.results[6])} == named(callback.results[6])


def test_training_does_not_notice(tmp_path):
    """Dropout draws from torch's random state at every step, and would tell."""
    runs = []
    for name, callbacks in (("with", [UnlearningEvalCallback(suite())]), ("without", [])):
        trainer = unlearner(tmp_path / name, *callbacks, model=tiny_model("opt", dropout=0.2), learning_rate=0.005)
        trainer.train()
        runs.append(
            (step_logs(trainer), weights(trainer.model), [module.training for module in trainer.model.modules()])
        )
    (logs, final, modes), (other_logs, other_final, other_modes) = runs
    assert logs == other_logs and len({entry["loss"] for entry in logs}) == 6
    assert all(torch.equal(weight, other_final[name]) for name, weight in final.items()) and modes == other_modes


@pytest.mark.parametrize(("every", "steps"), [(1, [2, 4, 6]), (2, [2, 6]), (3, [2]), (9, [2])])
def test_a_suite_that_takes_long_runs_at_some_evaluations_only(tmp_path, every, steps):
    callback, listener = UnlearningEvalCallback(suite(), every=every), Listener()
    trainer = unlearner(tmp_path, callback, listener)
    trainer.train()
    assert list(callback.results) == steps and list(of_the_suite(listener.logs)) == steps
    assert [entry["step"] for entry in trainer.state.log_history if "eval_nll" in entry] == [2, 4, 6]


def test_an_evaluation_before_training_and_another_batch_size(tmp_path, monkeypatch):
    model, sizes = tiny_model(), []
    trainer = unlearner(tmp_path, UnlearningEvalCallback(suite(), batch_size=3), model=model)

    def count(module, inputs, output):
        if output[0].shape[1] > 2:  # the output head is looked at once, in a forward of two tokens
            sizes.append(len(output[0]))

    trainer.model.model.register_forward_hook(count)
    metrics = trainer.evaluate()
    assert max(sizes[1:]) == 3 and sizes[0] == len(EVAL_ROWS)
    expected = named(evaluate(tiny_model(), tiny_tokenizer(), suite()))
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_a_fluency_model_tells_of_the_answers(tmp_path):
    callback = UnlearningEvalCallback(suite(), fluency_model=tiny_model(seed=1))
    unlearner(tmp_path, callback, max_steps=2).train()
    assert callback.results[2]["answer_perplexity"].value > 1
    assert not [warning for warning in callback.results[2].warnings if "No fluency model" in warning]


def plain_trainer(folder: Path, **options: Any) -> Trainer:
    ids = [[1, *range(10 + i, 22 + i)] for i in range(8)]
    rows = [{"input_ids": row, "labels": row, "attention_mask": [1] * len(row)} for row in ids]
    settings = dict(
        eval_strategy="steps", eval_steps=2, max_steps=4, report_to="none", save_strategy="no", use_cpu=True
    )
    return Trainer(
        tiny_model(),
        TrainingArguments(str(folder), disable_tqdm=True, logging_steps=1, **settings | options),
        train_dataset=rows,
        eval_dataset=rows[:3],
        processing_class=tiny_tokenizer(),
    )


def test_a_plain_trainer_is_passed_along(tmp_path):
    trainer = plain_trainer(tmp_path)
    callback = UnlearningEvalCallback(suite(), trainer=trainer)
    trainer.add_callback(callback)
    trainer.train()
    assert list(callback.results) == [2, 4]
    expected = {step: named(result) for step, result in callback.results.items()}
    assert of_the_suite(trainer.state.log_history) == expected and expected[2] != expected[4]


def test_a_plain_trainer_that_is_not_passed_along_is_refused(tmp_path):
    trainer = plain_trainer(tmp_path)
    trainer.add_callback(UnlearningEvalCallback(suite()))
    refused(trainer.train, "trainer=...", "knows no trainer")
    refused(trainer.evaluate, "trainer=...", "knows no trainer")


@pytest.mark.parametrize("make", [unlearner, plain_trainer])
def test_a_run_without_evaluations_is_refused(tmp_path, make):
    trainer = make(tmp_path, eval_strategy="no")
    trainer.add_callback(UnlearningEvalCallback(suite(), trainer=trainer))
    refused(trainer.train, "eval_strategy", '"no"')


@pytest.mark.parametrize("every", [0, -1])
def test_a_suite_that_would_never_run_is_refused(every):
    refused(lambda: UnlearningEvalCallback(suite(), every=every), "every", str(every))


def test_figures_after_the_best_model_was_loaded_are_the_best_models(tmp_path):
    callback = UnlearningEvalCallback(suite())
    best = dict(
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_custom_forget_nll",
    )
    trainer = unlearner(tmp_path, callback, **best, greater_is_better=False)
    trainer.train()
    expected = evaluate(trainer.model, tiny_tokenizer(), suite())["forget_nll"].value
    assert trainer.state.global_step == 6 and trainer.state.best_global_step == 2
    assert trainer.evaluate()["eval_custom_forget_nll"] == pytest.approx(expected, rel=1e-5)


def test_a_second_run_is_measured_anew(tmp_path):
    callback = UnlearningEvalCallback(suite())
    trainer = unlearner(tmp_path, callback, max_steps=2)
    trainer.train()
    first = callback.results[2]["forget_nll"].value
    trainer.train()
    assert callback.results[2]["forget_nll"].value > first
    assert trainer.state.log_history[-1]["step"] == 2 and 2 in of_the_suite(trainer.state.log_history)


def test_stop_rules_do_not_take_the_suites_rows_for_those_they_watch(tmp_path):
    """The limit is that of the training rows plus 0.1; the suite's retain rows lie above it all along."""
    options = dict(stop_retain_nll_increase=0.1, learning_rate=0.001)
    free = unlearner(tmp_path / "free", **options)
    free.train()
    other = custom(forget=FORGET[:5], retain=FORGET[5:], max_new_tokens=2)
    trainer = unlearner(tmp_path, UnlearningEvalCallback(other), **options)
    trainer.train()
    assert (free.stop_reason, free.state.global_step) == (None, 6)
    assert (trainer.stop_reason, trainer.state.global_step) == (None, 6)


def test_figures_of_the_suite_and_of_an_evaluation_set_are_told_apart(tmp_path):
    callback, listener = UnlearningEvalCallback(suite()), Listener()
    trainer = unlearner(tmp_path, callback, listener, eval_dataset={"forget": FORGET[5:9]}, max_steps=2)
    trainer.train()
    assert len([entry for entry in listener.logs if "eval_forget_nll" in entry]) == 1


class Counter(TrainerCallback):
    """Counts the events that bring the suite's figure, as any callback with a patience does."""

    def __init__(self) -> None:
        self.events = 0

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        self.events += "eval_custom_forget_nll" in metrics


@pytest.mark.parametrize(("make", "sets"), [(unlearner, 1), (unlearner, 3), (plain_trainer, 2)])
def test_an_evaluation_counts_once_however_many_sets_it_has(tmp_path, make, sets):
    """Nothing changes: the second to fourth evaluations are those without a gain, and patience 3 ends at step 4."""
    options = dict(max_steps=9, learning_rate=0.0, eval_steps=1, save_strategy="steps", save_steps=1)
    options |= dict(load_best_model_at_end=True, metric_for_best_model="eval_custom_forget_nll")
    trainer = make(tmp_path, **options, greater_is_better=False, lr_scheduler_type="reduce_lr_on_plateau")
    rows = trainer.eval_dataset
    trainer.eval_dataset = dict.fromkeys(("forget", "retain", "other")[:sets], rows)
    callback, counter = UnlearningEvalCallback(suite(), trainer=trainer), Counter()
    for one in (callback, counter, EarlyStoppingCallback(early_stopping_patience=3)):
        trainer.add_callback(one)
    trainer.train()
    assert (trainer.state.global_step, trainer.state.best_global_step, counter.events) == (4, 1, 4)
    assert trainer.lr_scheduler.num_bad_epochs == 3
    assert list(callback.results) == [1, 2, 3, 4]
    assert "eval_custom_forget_nll" in trainer.evaluate()
