"""What a sweep is asked for: what its runs take, and what is refused before anything runs."""

import pytest

from hf_unlearn.tasks.sweep.plan import SweepRequest, plan_sweep


def plan(*words, config="methods/npo", **asked):
    asked = {"runs": 4} | asked
    words = ["--config", config, "--output_dir", "out", *words]
    return plan_sweep(SweepRequest(asked.pop("task", "harmful"), words, **asked))


@pytest.mark.parametrize(
    ("words", "asked", "error"),
    [
        ([], {"runs": None}, "--runs or --minutes"),
        ([], {"runs": 0}, "--runs must be a whole number above 0"),
        ([], {"method": "npoo"}, "did you mean 'npo'"),
        ([], {"preset": "fast"}, "--preset must be a known name"),
        ([], {"sampler": "bayes"}, "--sampler must be a known name"),
        ([], {"fresh_seeds": [0, 1]}, "none of them 0"),
        ([], {"fresh_seeds": [1, 1]}, "each once"),
        (["--learning_rat", "1"], {}, "did you mean 'learning_rate'"),
        (["--push_to_hub", "true"], {}, "left out in a sweep"),
        (["--evaluated_half", "reporting"], {}, "chooses on one half"),
        (["--evaluated_half", "half"], {}, "evaluated_half must be a known name"),
        (["--measure", "false"], {}, "compared by what is measured"),
        (["--phases", '[{"edit": "task_vector"}]'], {}, "varies one training"),
    ],
)
def test_what_cannot_be_swept_is_refused(words, asked, error):
    with pytest.raises(ValueError) as raised:
        plan(*words, **asked)
    assert error in str(raised.value)


def test_a_range_that_a_method_refuses_is_found_before_any_run(tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text("forget_loss.npo.beta: {low: -1.0, high: 1.0}")
    with pytest.raises(ValueError, match="beta of npo must be above 0"):
        plan(space=str(file))


def test_the_command_line_is_part_of_the_recipe():
    made = plan("--learning_rate", "2e-3", "--seed", "7", "--attack", "quick")
    assert made.recipe["learning_rate"] == 2e-3 and made.recipe["attack"] == "quick"
    assert {"seed", "output_dir"}.isdisjoint(made.recipe) and made.seed == 7
    rate = next(one for one in made.space if one.path == "learning_rate")
    assert (rate.low, rate.high) == (5e-4, 8e-3)
    values = made.trial_values({"learning_rate": 1e-3, "forget_loss.npo.beta": 0.3})
    assert values["learning_rate"] == 1e-3 and values["forget_loss"] == {"name": "npo", "beta": 0.3}
    assert values["evaluated_half"] == "calibration" and values["seed"] == 7
    assert "attack" not in values and values["num_train_epochs"] == 12


def test_a_method_brings_its_losses_and_leaves_the_rate():
    made = plan(config="harmful_lab", method="npo")
    assert made.recipe["forget_loss"] == {"name": "npo", "beta": 0.1} and made.recipe["retain_weight"] == 3.0
    assert made.recipe["learning_rate"] == 1e-3 and made.recipe["lora_r"] == 32
    assert {"levels", "anchor_loss", "recalibrate_steps"}.isdisjoint(made.recipe)
    by_itself = plan_sweep(SweepRequest("harmful", ["--output_dir", "out"], runs=4))  # the task's own recipe
    assert by_itself.recipe["forget_loss"]["name"] == "unseen_level"


def test_the_quick_preset_is_six_short_runs_of_rate_and_weights():
    made = plan(runs=None, preset="quick")
    assert made.runs == 6 and [one.path for one in made.space] == ["learning_rate", "retain_weight"]
    assert made.trial_values({})["num_train_epochs"] == 4 and made.recipe["num_train_epochs"] == 12
    steps = plan("--max_steps", "30", runs=None, preset="quick")
    assert steps.trial_values({})["max_steps"] == 10 and steps.recipe["max_steps"] == 30
    assert plan(runs=2, preset="quick").runs == 2


def test_two_starts_of_a_sweep_are_known_by_what_they_vary():
    one, other, wider = plan().identity(), plan("--learning_rate", "2e-3").identity(), plan(space="rate_and_weights")
    assert one == plan(runs=9, sampler="random", fresh_seeds=[5]).identity()
    assert one["recipe"] != other["recipe"] and one["space"] != wider.identity()["space"]
    assert one["recipe"] != plan("--seed", "3").identity()["recipe"]
