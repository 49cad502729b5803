"""UnlearningConfig from Python, YAML, JSON and a command line, and back. What it refuses is in test_bad_input."""

import copy
import dataclasses
import json
import math
import pickle
import sys
from dataclasses import dataclass

import pytest
import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments
from trl import ModelConfig, TrlParser

from fixtures.bad_input import build, config, logged, sets
from fixtures.models import tiny_model, tiny_tokenizer
from hf_unlearn import UnlearningConfig, UnlearningTrainer
from hf_unlearn.losses import FORGET_LOSSES, NPO, RETAIN_LOSSES, GradientAscent, RandomMismatch, RetainKL, RetainNLL
from hf_unlearn.training.method_specs import forget_losses, retain_losses

SEED_RECIPE = [{"name": "grad_ascent", "weight": 0.5}, {"name": "random_mismatch", "k": 5, "weight": 1.0}]


def parsed(*arguments: str) -> UnlearningConfig:
    """What a command line makes of the arguments."""
    (args,) = HfArgumentParser(UnlearningConfig).parse_args_into_dataclasses(["--use_cpu", *arguments])
    return args


def test_defaults():
    args = UnlearningConfig(use_cpu=True)
    assert forget_losses(args.forget_loss) == [NPO(beta=0.1, weight=1.0)]
    assert retain_losses(args.retain_loss) == [RetainNLL(weight=1.0)]
    assert (args.forget_weight, args.retain_weight, args.retain_ratio) == (1.0, 1.0, 1.0)
    assert (args.forget_nll_bound, args.reference, args.stop_on_nonfinite) == ("log_vocab", "auto", True)
    # Of TrainingArguments, but not with its defaults: they would drop columns and hide a diverging loss.
    assert (args.remove_unused_columns, args.logging_nan_inf_filter) == (False, False)
    assert (TrainingArguments().remove_unused_columns, TrainingArguments().logging_nan_inf_filter) == (True, True)


@pytest.mark.parametrize(
    ("spec", "terms"),
    [
        ("grad_ascent", [GradientAscent()]),
        ({"name": "npo", "beta": 0.3}, [NPO(beta=0.3)]),
        (NPO(beta=0.3), [NPO(beta=0.3)]),
        (["npo", {"name": "grad_ascent", "weight": 2}], [NPO(), GradientAscent(weight=2)]),
        ((NPO(), "grad_ascent"), [NPO(), GradientAscent()]),
        (SEED_RECIPE, [GradientAscent(weight=0.5), RandomMismatch(k=5)]),
        (json.dumps(SEED_RECIPE), [GradientAscent(weight=0.5), RandomMismatch(k=5)]),
        (' {"name": "npo", "beta": 1}', [NPO(beta=1)]),
    ],
)
def test_forget_losses_as_they_may_be_written(tmp_path, spec, terms):
    assert forget_losses(config(tmp_path, forget_loss=spec).forget_loss) == terms


@pytest.mark.parametrize(
    ("spec", "terms"),
    [
        ("none", []),
        (None, []),
        ("kl", [RetainKL()]),
        (["nll", RetainKL(weight=0.1)], [RetainNLL(), RetainKL(weight=0.1)]),
    ],
)
def test_retain_losses_as_they_may_be_written(tmp_path, spec, terms):
    assert retain_losses(config(tmp_path, retain_loss=spec).retain_loss) == terms


def test_every_loss_by_its_name():
    assert [type(forget_losses(name)[0]) for name in FORGET_LOSSES] == list(FORGET_LOSSES.values())
    assert [type(retain_losses(name)[0]) for name in RETAIN_LOSSES] == list(RETAIN_LOSSES.values())


def test_a_command_line():
    args = parsed(
        *["--forget_loss", json.dumps(SEED_RECIPE), "--retain_loss", "kl", "--retain_weight", "2.5"],
        *["--forget_nll_bound", "none", "--stop_forget_nll", "3.5", "--stop_retain_nll_increase", "0.2"],
        *["--model_init_kwargs", '{"dtype": "bfloat16"}', "--max_length", "64", "--disable_dropout", "false"],
    )
    assert forget_losses(args.forget_loss) == [GradientAscent(weight=0.5), RandomMismatch(k=5)]
    assert (args.retain_loss, args.retain_weight, args.forget_nll_bound) == ("kl", 2.5, None)
    assert (args.stop_forget_nll, args.stop_retain_nll_increase) == (3.5, 0.2)
    assert (args.model_init_kwargs, args.max_length, args.disable_dropout) == ({"dtype": "bfloat16"}, 64, False)


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        *[("none", None), ("None", None), ("null", None), ("6.5", 6.5), ("7", 7.0)],
        *[(name, name) for name in ("log_vocab", "holdout", "holdout_quantiles")],
    ],
)
def test_bounds_on_a_command_line(text, bound):
    assert parsed("--forget_nll_bound", text).forget_nll_bound == bound


def test_a_command_line_without_our_arguments():
    assert parsed().to_dict() == UnlearningConfig(use_cpu=True).to_dict()


def test_help_names_every_argument(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", "--help"])
    with pytest.raises(SystemExit, match="0"):
        HfArgumentParser(UnlearningConfig).parse_args_into_dataclasses()
    text = capsys.readouterr().out
    own = set(UnlearningConfig.__dataclass_fields__) - set(TrainingArguments.__dataclass_fields__)
    assert {"forget_loss", "retain_ratio", "forget_nll_bound"} < own
    assert [name for name in own if f"--{name}" not in text] == []


def written(path, **values) -> str:
    path.write_text(yaml.safe_dump(values))
    return str(path)


@dataclass
class ScriptArguments:
    """The arguments of somebody's script."""

    forget_file: str = "forget.jsonl"


@pytest.mark.parametrize(
    ("spec", "terms"),
    [
        ("npo", [NPO()]),
        ({"name": "npo", "beta": 0.5}, [NPO(beta=0.5)]),
        (SEED_RECIPE, [GradientAscent(weight=0.5), RandomMismatch(k=5)]),
        (["npo", "grad_ascent"], [NPO(), GradientAscent()]),
    ],
)
def test_yaml_with_trl(tmp_path, spec, terms):
    path = written(
        tmp_path / "recipe.yaml",
        forget_loss=spec,
        retain_loss=[{"name": "kl", "weight": 0.5}],
        forget_nll_bound=None,
        model_name_or_path="org/name",
        forget_file="rows.jsonl",
        use_cpu=True,
        bf16=False,
    )
    parser = TrlParser((ScriptArguments, UnlearningConfig, ModelConfig))
    script, args, model = parser.parse_args_and_config(["--config", path])
    assert (script.forget_file, model.model_name_or_path) == ("rows.jsonl", "org/name")
    assert forget_losses(args.forget_loss) == terms
    assert retain_losses(args.retain_loss) == [RetainKL(weight=0.5)]
    assert args.forget_nll_bound is None
    # The command line wins over the file.
    more = ["--forget_loss", '{"name": "npo", "beta": 2}', "--forget_nll_bound", "3", "--retain_loss", "none"]
    _, args, _ = parser.parse_args_and_config(["--config", path, *more])
    assert (forget_losses(args.forget_loss), args.forget_nll_bound, args.retain_loss) == ([NPO(beta=2)], 3.0, "none")


def test_yaml_and_json_with_transformers(tmp_path):
    values = dict(forget_loss=SEED_RECIPE, retain_loss={"name": "kl"}, forget_nll_bound=2.5, use_cpu=True)
    path = written(tmp_path / "recipe.yaml", **values)
    (from_yaml,) = HfArgumentParser(UnlearningConfig).parse_yaml_file(path)
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    (from_json,) = HfArgumentParser(UnlearningConfig).parse_json_file(str(tmp_path / "recipe.json"))
    assert from_yaml.to_dict() == from_json.to_dict() == UnlearningConfig(**values).to_dict()


def test_yaml_with_a_misspelt_argument(tmp_path):
    path = written(tmp_path / "recipe.yaml", forget_lose="npo", use_cpu=True)
    with pytest.raises(ValueError, match="forget_lose"):
        TrlParser((UnlearningConfig,)).parse_args_and_config(["--config", path])


def objects(folder) -> UnlearningConfig:
    """A configuration with Loss objects inside."""
    return config(
        folder, forget_loss=[NPO(beta=0.3, weight=2.0), "grad_ascent"], retain_loss=RetainKL(), forget_nll_bound=None
    )


def test_losses_are_written_as_mappings(tmp_path):
    values = objects(tmp_path).to_dict()
    assert values["forget_loss"] == [{"name": "npo", "weight": 2.0, "beta": 0.3}, "grad_ascent"]
    assert values["retain_loss"] == {"name": "kl", "weight": 1.0}
    assert json.loads(objects(tmp_path).to_json_string())["forget_loss"] == values["forget_loss"]
    # As TensorBoard's and other loggers' flat view of the arguments.
    assert isinstance(objects(tmp_path).to_sanitized_dict()["forget_loss"], str)


def test_a_round_trip_through_json(tmp_path):
    before = objects(tmp_path)
    values = json.loads(before.to_json_string())
    fields = {name: value for name, value in values.items() if name in UnlearningConfig.__dataclass_fields__}
    after = UnlearningConfig(**{name: value for name, value in fields.items() if not str(value).startswith("<")})
    assert after.to_dict() == before.to_dict()
    assert forget_losses(after.forget_loss) == forget_losses(before.forget_loss)
    assert retain_losses(after.retain_loss) == retain_losses(before.retain_loss)


def test_a_round_trip_through_pickle(tmp_path):
    before = objects(tmp_path)
    after = pickle.loads(pickle.dumps(before))
    assert after.to_dict() == before.to_dict()
    assert after.forget_loss == before.forget_loss  # the objects themselves, and frozen ones compare by value


def test_the_arguments_that_a_checkpoint_keeps(tmp_path):
    trainer = build(tmp_path, forget_loss=NPO(beta=0.3), save_strategy="steps", save_steps=2, max_steps=2)
    trainer.train()
    saved = torch.load(tmp_path / "checkpoint-2" / "training_args.bin", weights_only=False)
    assert isinstance(saved, UnlearningConfig) and saved.forget_loss == NPO(beta=0.3)


def test_the_trainers_losses_win_over_the_configurations(tmp_path):
    trainer = UnlearningTrainer(
        tiny_model(),
        config(tmp_path, forget_loss="npo", retain_loss="kl", max_steps=1),
        train_dataset=sets(),
        processing_class=tiny_tokenizer(),
        forget_loss=[GradientAscent(weight=0.5)],
        retain_loss="none",
    )
    assert trainer.unlearning_objective.component_names == ["forget/grad_ascent", "forget_nll", "bound_share"]
    trainer.train()
    (total,), (ascent,) = logged(trainer, "loss"), logged(trainer, "forget/grad_ascent")
    assert total == pytest.approx(0.5 * ascent)


@pytest.mark.parametrize(
    ("metric", "greater"),
    [
        ("eval_retain_nll", False),
        ("eval_forget_nll", True),
        ("eval_retain_probability", True),
        ("eval_forget_probability", False),
        ("eval_retain_loss", False),
        ("eval_forget_loss", True),
        ("eval_loss", False),
        ("loss", False),
        ("eval_rouge", True),
    ],
)
def test_which_way_a_metric_is_better(tmp_path, metric, greater):
    assert config(tmp_path, metric_for_best_model=metric).greater_is_better is greater
    assert (
        config(tmp_path, metric_for_best_model=metric, greater_is_better=not greater).greater_is_better is not greater
    )


def test_batches_of_a_stream_are_not_cut_into_ranks(tmp_path):
    # None would let accelerate do it for every stream.
    assert config(tmp_path).accelerator_config.dispatch_batches is False
    assert config(tmp_path, accelerator_config={"split_batches": True}).accelerator_config.dispatch_batches is False


def test_a_pickle_of_it_holds_no_token_and_a_copy_does(tmp_path):
    """training_args.bin is a pickle that stays beside the model."""
    args = config(tmp_path, hub_token="hf_secret", forget_loss=NPO(beta=0.5))
    stored = pickle.dumps(args)
    assert b"hf_secret" not in stored and pickle.loads(stored).hub_token is None
    assert pickle.loads(stored).to_dict() == args.to_dict() | {"hub_token": "<HUB_TOKEN>"}
    for copied in (copy.copy(args), copy.deepcopy(args)):
        assert copied is not args and copied.hub_token == args.hub_token == "hf_secret"
        assert copied.to_dict() == args.to_dict()
    assert copy.deepcopy(args).accelerator_config is not args.accelerator_config is copy.copy(args).accelerator_config


# Argument -> a value that is refused, and a word of the error beside the argument's name.
REFUSED = {
    "gradient_accumulation_steps": [(-1, "at least 1"), (0, "at least 1"), (True, "a whole number")],
    "stop_on_nonfinite": [("nope", "true or false"), (1, "true or false")],
    "learning_rate": [(None, "a finite number"), (math.inf, "a finite number"), (-1e-5, "at least 0")],
    "max_steps": [(0, "-1 means"), (2.5, "a whole number")],
    "weight_decay": [(math.nan, "a finite number")],
    "adam_beta2": [(1.0, "below 1")],
    "eval_strategy": [("sometimes", "'epoch'")],
    "optim": [("adamw", "adamw_torch")],
    "optim_args": [("rho=1", "left out")],
    "lr_scheduler_kwargs": [({"cycles": 2}, "cycles"), ([], "a mapping")],
    "plugins": [("a_module", "a list of texts")],
    "template": [(5, "a text"), ("{prompt}", "{completion}")],
}


@pytest.mark.parametrize(("argument", "value", "word"), [(n, *case) for n, cases in REFUSED.items() for case in cases])
def test_types_and_ranges_are_looked_at_before_anything_is_measured(tmp_path, argument, value, word):
    with pytest.raises(ValueError, match=argument) as caught:
        config(tmp_path, **{argument: value})
    assert word in str(caught.value)


def test_what_yaml_leaves_as_text_is_read_as_the_type_of_the_argument(tmp_path):
    args = config(tmp_path, stop_on_nonfinite="false", learning_rate="1e-5", max_steps="3", eval_strategy=False)
    assert (args.stop_on_nonfinite, args.learning_rate, args.max_steps) == (False, 1e-5, 3)
    assert args.eval_strategy == "no"  # `eval_strategy: no` is false in YAML
    again = dataclasses.replace(args, seed=4)  # objects that TrainingArguments has put there
    assert (again.learning_rate, again.lr_scheduler_type) == (1e-5, args.lr_scheduler_type)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (dict(optim="sgd", optim_args="momentm=0.9"), "the name in optim_args of sgd"),
        (dict(optim="rmsprop", optim_args="alpha=0.9,momentumm=1"), "momentumm"),
        (dict(optim="ademamix", optim_args="rho=1"), "optim_args of ademamix"),
        (dict(optim="lion_8bit", optim_args="beta1=0.9"), "optim_args must be left out"),
        (dict(optim="sophia", optim_target_modules="all-linear"), "optim_target_modules must be left out"),
        (dict(optim="lomo", optim_target_modules=["q_proj"]), "optim_target_modules must be left out"),
        (dict(lr_scheduler_type="constant", warmup_steps=10), "constant_with_warmup has"),
        (dict(lr_scheduler_type="greedy", warmup_steps=0.1, eval_strategy="epoch"), "warmup_steps must be 0"),
        (dict(lr_scheduler_type="constant_with_warmup", lr_scheduler_kwargs={"num_cycles": 2}), "takes none"),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_what_trainer_would_drop_in_silence_is_refused(tmp_path, given, word):
    with pytest.raises(ValueError, match=word):
        config(tmp_path, **given)


def test_what_optimizers_and_schedules_take_is_let_through(tmp_path):
    config(tmp_path, optim="sgd", optim_args="momentum=0.9, nesterov=true")
    config(tmp_path, optim="sophia", optim_args="rho=0.04")
    config(tmp_path, lr_scheduler_type="constant_with_warmup", warmup_steps=10)
    config(tmp_path, lr_scheduler_type="cosine_with_restarts", lr_scheduler_kwargs={"num_cycles": 2}, warmup_steps=1)
