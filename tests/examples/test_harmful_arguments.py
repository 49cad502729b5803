"""Arguments of examples/harmful.py: what it refuses before training, what the paper's recipe says. No whole run."""

import json
import re
import shlex

import pytest

from fixtures.examples import EXAMPLES, assert_user_error, load_script, refused, save_model, start
from hf_unlearn.lab import load_lab
from hf_unlearn.tasks import parse_task
from hf_unlearn.tasks.arguments import Parsed
from hf_unlearn.training.methods import Methods
from hf_unlearn.training.objective import build_objective


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--forget_loss", "npoo"], "did you mean 'npo'"),
        (["--retain_loss", '{"name": "kl", "beta": 1}'], "beta"),
        (["--forget_nll_bound", "holdouts"], "did you mean 'holdout'"),
        (["--forget_dataset", "forget.jsonl"], "no model"),
        (["--forget_dataset", "forget.jsonl", "--model_name_or_path", "m"], "no retain dataset"),
        (
            ["--forget_dataset", "f.jsonl", "--model_name_or_path", "m", "--retain_dataset", "r.csv"],
            "there is no file",
        ),
        (["--forget_reader", "pku"], "pku_saferlhf"),
    ],
)
def test_wrong_arguments_are_refused(monkeypatch, tmp_path, arguments, words):
    text = refused("harmful", monkeypatch, tmp_path, *arguments)
    assert_user_error(text, words)


def test_an_unknown_key_of_a_recipe_is_named(monkeypatch, tmp_path):
    (tmp_path / "recipe.yaml").write_text("forget_los: npo\noutput_dir: out\n")
    text = refused("harmful", monkeypatch, tmp_path, "--config", "recipe.yaml")
    assert_user_error(text, "forget_los", "did you mean 'forget_loss'")


def test_columns_that_are_no_json_are_refused(monkeypatch, tmp_path):
    text = refused("harmful", monkeypatch, tmp_path, "--forget_columns", "{question: prompt")
    assert_user_error(text, "forget_columns")


class Built(Exception):
    """A trainer was made: the arguments went together."""


def test_the_command_for_data_of_ones_own_that_the_script_documents(monkeypatch, tmp_path):
    """As it stands in the docstring, with files of those names, with holdout rows and without; up to the trainer."""
    lab = load_lab()
    save_model(lab, tmp_path / "org/model")
    forget, unseen = (
        [{"question": row["prompt"], "answer": row["completion"]} for row in lab.datasets[name].select(range(30))]
        for name in ("forget", "holdout")
    )
    retain = list(lab.datasets["retain"].select(range(30)))
    for name, rows in (("forget", forget), ("retain", retain), ("holdout", unseen)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    sets: list[dict[str, int]] = []

    def built(measurement, *_, **__):
        sets.append({name: len(rows) for name, rows in measurement.task.sets.items()})
        raise Built

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hf_unlearn.tasks.run.RunEvaluator.__call__", built)
    commands = re.findall(r"accelerate launch (.*?)\n\n", load_script("harmful").__doc__, re.S)
    (command,) = [each for each in commands if "jsonl" in each]
    script, *arguments = shlex.split(command)
    assert script == "examples/harmful.py"
    (without,) = re.findall(r"leave them out and add `(.*?)`", load_script("harmful").__doc__)
    at = arguments.index("--holdout_dataset")
    for line in (arguments, [*arguments[:at], *arguments[at + 2 :], *shlex.split(without)]):
        with pytest.raises(Built):
            start("harmful", monkeypatch, *line, "--use_cpu")
    trained = dict.fromkeys(("forget", "retain"), 30)
    assert sets == [trained | {"holdout": 30}, trained]


def parsed(*arguments: str) -> Parsed:
    return parse_task("harmful", [*arguments, "--use_cpu"])


@pytest.mark.parametrize("form", [["--config", "{}"], ["--config={}"]], ids=["space", "equals"])
def test_a_recipe_takes_the_place_of_the_default_and_the_command_line_comes_first(tmp_path, form):
    (tmp_path / "recipe.yaml").write_text("forget_loss: npo\nretain_loss: kl\noutput_dir: out\nlimit: 3\n")
    config = [each.format(tmp_path / "recipe.yaml") for each in form]
    found = parsed(*config, "--retain_loss", "nll")
    args = found.args
    assert (args.forget_loss, args.retain_loss, found.script.limit, args.output_dir) == ("npo", "nll", 3, "out")
    assert found.model.use_peft is False and args.retain_ratio == 1  # the lab's recipe is not read
    found = parsed("--retain_loss", "kl")
    losses = (found.args.forget_loss, found.args.retain_loss)
    assert losses == ({"name": "unseen_level", "token_weight": 1.0}, "kl") and found.model.use_peft is True


def test_the_papers_recipe_has_the_papers_numbers():
    """Gundavarapu et al. 2024, after Yao et al. 2023."""
    found = parsed("--config", str(EXAMPLES / "configs/harmful_opt1.3b.yaml"))
    own, args, model = found.script, found.args, found.model
    assert (model.model_name_or_path, model.use_peft) == ("facebook/opt-1.3b", False)
    objective = build_objective(Methods.resolve(args), args)
    ascent, mismatch = objective.forget
    (kl,) = objective.retain
    assert [loss.name for loss in (ascent, mismatch, kl)] == ["grad_ascent", "random_mismatch", "kl"]
    assert (ascent.weight, mismatch.weight, kl.weight, mismatch.k) == (0.5, 1.0, 1.0, 5)
    assert (objective.forget_weight, objective.retain_weight, args.retain_ratio) == (1.0, 1.0, 1.0)
    assert (args.learning_rate, args.per_device_train_batch_size, args.max_steps) == (2e-6, 2, 1000)
    assert (args.gradient_accumulation_steps, args.lr_scheduler_type.value) == (1, "linear")
    assert args.template == "### Question: {prompt}\n ### Answer: {completion}"
    assert own.forget_dataset == "PKU-Alignment/PKU-SafeRLHF"
    assert own.forget_revision == "ff7ba91063016c78a225b0f74e1c0860bb18230f"
    assert (own.forget_reader, own.retain_reader) == ("pku_saferlhf", "truthfulqa")
    assert (own.retain_dataset, own.retain_name) == ("truthfulqa/truthful_qa", "generation")
