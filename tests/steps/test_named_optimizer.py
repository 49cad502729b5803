"""Sophia by its name in `optim`: its arguments, learning rate, files and checkpoints. Not what a step of it does."""

import json
import pickle
from typing import Any

import pytest
import torch
from torch.optim import AdamW
from transformers import HfArgumentParser, TrainingArguments

from fixtures.bad_input import config
from fixtures.models import make_trainer, step_logs, tiny_model, weights
from hf_unlearn import UnlearningConfig, UnlearningTrainer
from hf_unlearn.optimizers import Sophia
from hf_unlearn.optimizers.named import OPTIMIZERS, named_optimizer
from hf_unlearn.steps import SAM
from hf_unlearn.steps.weighting import PrimalDual

ONE_LINE = r"^.* must be .*, got .*$"
SOPHIA: dict[str, Any] = dict(optim="sophia", optim_args="rho=0.1, beta2=0.9", learning_rate=2e-3, weight_decay=0.1)


def groups_of(folder, **arguments: Any) -> list[dict[str, Any]]:
    """The groups of the optimizer that a trainer makes."""
    optimizer = make_trainer(folder, tiny_model(), **arguments).create_optimizer()
    assert type(optimizer) is Sophia
    return optimizer.param_groups


@pytest.mark.parametrize(
    ("text", "betas", "rho", "eps"),
    [
        (None, (0.9, 0.95), 0.04, 1e-12),
        ("", (0.9, 0.95), 0.04, 1e-12),
        ("rho=0.1,beta2=0.9", (0.9, 0.9), 0.1, 1e-12),
        (" beta1 = 0.5 , eps=1e-8 ,", (0.5, 0.95), 0.04, 1e-8),
    ],
)
def test_its_arguments_and_learning_rate_reach_it(tmp_path, text, betas, rho, eps):
    arguments = dict(optim="sophia", optim_args=text, learning_rate=2e-3, weight_decay=0.1)
    decayed, plain = groups_of(tmp_path, **arguments)
    for group in (decayed, plain):
        assert (group["lr"], group["betas"], group["rho"], group["eps"]) == (2e-3, betas, rho, eps)
    # As for every optimizer of Trainer: norms and biases do not decay.
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert len(decayed["params"]) > len(plain["params"]) > 0


def test_by_name_it_is_the_class_with_its_arguments(tmp_path):
    def ended(name: str, **arguments: Any) -> UnlearningTrainer:
        trainer = make_trainer(tmp_path / name, tiny_model(), max_steps=3, lr_scheduler_type="linear", **arguments)
        trainer.train()
        return trainer

    by_name = ended("name", **SOPHIA)
    kinds = {"rho": 0.1, "betas": (0.9, 0.9)}
    with_adamw = ended("adamw", **SOPHIA | {"optim": "adamw_torch", "optim_args": None})
    other_rho = ended("rho", **SOPHIA | {"optim_args": "rho=10,beta2=0.9"})
    by_class = make_trainer(
        tmp_path / "class", tiny_model(), max_steps=3, lr_scheduler_type="linear", learning_rate=2e-3, weight_decay=0.1
    )
    decay = by_class.get_decay_parameter_names(by_class.model)
    named = dict(by_class.model.named_parameters())
    groups = [
        {"params": [weight for name, weight in named.items() if (name in decay) == decays], "weight_decay": rate}
        for decays, rate in ((True, 0.1), (False, 0.0))
    ]
    by_class.optimizer = Sophia(groups, lr=2e-3, **kinds)
    by_class.train()
    after = weights(by_name.model)
    assert all(torch.equal(weight, after[name]) for name, weight in weights(by_class.model).items())
    assert isinstance(with_adamw.optimizer.optimizer, AdamW)
    for other in (with_adamw, other_rho):
        assert any(not torch.equal(weight, after[name]) for name, weight in weights(other.model).items())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("roh=0.1", ["'roh'", "did you mean 'rho'"]),
        ("betas=0.9", ["optim_args must be", "beta1, beta2, eps, rho", "'betas'"]),
        ("lr=1e-3", ["'lr'"]),
        ("rho=large", ["rho in optim_args must be a number", "'large'"]),
        ("rho", ["rho in optim_args must be a number", "''"]),
        ("rho=0.1;beta2=0.9", ["rho in optim_args must be a number", "'0.1;beta2=0.9'"]),
    ],
)
def test_arguments_that_are_refused(tmp_path, text, words):
    with pytest.raises(ValueError, match=ONE_LINE) as caught:
        config(tmp_path, optim="sophia", optim_args=text)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("text", ["rho=-1", "rho=nan", "beta1=1", "eps=0"])
def test_ranges_are_the_optimizers_own_and_checked_at_once(tmp_path, text):
    with pytest.raises(ValueError, match=ONE_LINE):
        config(tmp_path, optim="sophia", optim_args=text)


@pytest.mark.parametrize("optim", ["adamw_torch", "sgd", "adafactor"])
def test_trainers_own_names_are_left_to_it(tmp_path, optim):
    args = config(tmp_path, optim=optim)
    assert named_optimizer(args) is None
    assert args.optim == TrainingArguments(output_dir=str(tmp_path), optim=optim, use_cpu=True).optim


def test_a_misspelt_name_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="sofia"):
        config(tmp_path, optim="sofia")


# --- Files, command lines, checkpoints ---


def test_it_is_written_with_objects_beside_it(tmp_path):
    args = config(tmp_path, **SOPHIA, step_wrappers=[SAM(rho=0.5), "surgery"], weighting=PrimalDual(eta=2.0))
    written = json.loads(args.to_json_string())
    assert (written["optim"], written["optim_args"]) == ("sophia", "rho=0.1, beta2=0.9")
    assert written["step_wrappers"] == [{"name": "sam", "rho": 0.5}, "surgery"]
    assert written["weighting"] == {"name": "primal_dual", "eta": 2.0, "epsilon": 0.1}
    assert args.to_dict()["optim"] == "sophia"
    assert args.to_sanitized_dict()["optim"] == "sophia"
    names = ("optim", "optim_args", "step_wrappers", "weighting")
    again = config(tmp_path, **{name: written[name] for name in names})
    assert [again.to_dict()[name] for name in names] == [written[name] for name in names]
    unpickled = pickle.loads(pickle.dumps(args))
    assert unpickled.to_dict() == args.to_dict() and unpickled.step_wrappers[0] == SAM(rho=0.5)


def test_on_a_command_line():
    line = ["--use_cpu", "--optim", "sophia", "--optim_args", "rho=0.1", "--step_wrappers", '["sam", "surgery"]']
    more = ["--weighting", '{"name": "primal_dual", "eta": 2}']
    (args,) = HfArgumentParser(UnlearningConfig).parse_args_into_dataclasses([*line, *more])
    assert named_optimizer(args) == (OPTIMIZERS["sophia"], {"lr": 5e-5, "betas": (0.9, 0.95), "rho": 0.1})
    assert args.step_wrappers == ["sam", "surgery"] and args.weighting == {"name": "primal_dual", "eta": 2}


@pytest.mark.parametrize("wrappers", [None, "sam"])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_last_bit(tmp_path, wrappers):
    options = SOPHIA | dict(
        max_steps=4, save_strategy="steps", save_steps=2, lr_scheduler_type="linear", step_wrappers=wrappers
    )
    whole, rest = (make_trainer(tmp_path, tiny_model(), **options) for _ in range(2))
    whole.train()
    rest.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert rest.state.global_step == 4
    after = weights(rest.model)
    assert all(torch.equal(weight, after[name]) for name, weight in weights(whole.model).items())
    assert step_logs(whole)[-1]["loss"] == step_logs(rest)[-1]["loss"] != step_logs(whole)[-2]["loss"]
    rates = [log["learning_rate"] for log in step_logs(whole)]
    assert rates == pytest.approx([2e-3, 1.5e-3, 1e-3, 0.5e-3])
