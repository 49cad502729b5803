"""Hidden states read inside a forward that may end there: what runs, what is left behind. Not the losses' formulas."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor, nn

from fixtures.models import item_at, make_trainer, perturbed, step_logs, tiny_model, train_sets, weights
from hf_unlearn import UnlearningTrainer
from hf_unlearn.model.output_head import output_head
from oracles import naive
from oracles.hidden import decoder_blocks

STEERED: dict[str, Any] = {
    "forget_loss": {"name": "rmu", "c": 3.0, "layer": 1, "seed": 7},
    "retain_loss": {"name": "hidden", "layer": 1},
    "retain_weight": 20.0,
}
HIGH_BOUND = 1000.0  # above every NLL: all rows push, and the log-probs are read


def steered(folder: Path, model: nn.Module, **options: Any) -> UnlearningTrainer:
    """A trainer of rmu + hidden at the first of two blocks."""
    return make_trainer(folder, model, **STEERED | options)


def changed(trainer: UnlearningTrainer, start: dict[str, Tensor]) -> set[str]:
    return {name for name, weight in trainer.model.named_parameters() if not torch.equal(weight, start[name])}


def inner_module(model: nn.Module, block: int) -> nn.Module:
    """A module that runs whenever a block (from 1) does its work."""
    found = dict(decoder_blocks(model)[block - 1].named_modules())
    return found.get("mlp", found.get("fc1"))


class Seen:
    """What modules are called for: by name, the positions of each call, and whether it made a graph."""

    def __init__(self, **modules: nn.Module) -> None:
        self.positions: dict[str, list[int]] = {name: [] for name in modules}
        self.graph: dict[str, list[bool]] = {name: [] for name in modules}
        for name, module in modules.items():
            module.register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        def look(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            # A head puts out a value for each position that it is asked for.
            head = name.endswith("head")
            self.positions[name].append(output.numel() if head else args[0].shape[:-1].numel())
            self.graph[name].append(output.requires_grad)

        return look


def of_both_models(trainer: UnlearningTrainer) -> Seen:
    """The lower and upper block and the head of the policy, and the same of its frozen reference."""
    found = {}
    for owner, model in (("policy", trainer.model), ("reference", trainer.reference._frozen)):
        if model is not None:
            found |= {f"{owner} lower": inner_module(model, 1), f"{owner} upper": inner_module(model, 2)}
            found |= {f"{owner} head": model.get_output_embeddings()}
    return Seen(**found)


def examine(model: Any) -> None:
    """A head is looked at once, before anything is counted here."""
    output_head(model).examine(model, {"input_ids": torch.tensor([[1, 2]])})


# --- Where the forward ends ---


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_a_forward_for_hidden_states_alone_ends_at_the_layer(tmp_path, kind):
    model = tiny_model(kind)
    start = weights(model)
    runs = {}
    for bound in (None, HIGH_BOUND):
        trainer = steered(tmp_path, copy.deepcopy(model), ref_model=perturbed(model), forget_nll_bound=bound)
        trainer._measure(trainer.model, sharded=False)
        examine(trainer.model)
        seen = of_both_models(trainer)
        trainer.train()
        runs[bound] = trainer, seen
    ended, whole = (runs[bound][1].positions for bound in (None, HIGH_BOUND))
    # Without anything that reads log-probs no upper block runs, and no position comes to a head.
    assert len(ended["policy lower"]) == len(ended["reference lower"]) == 1 and ended["policy lower"][0] > 0
    assert ended["policy upper"] == ended["reference upper"] == []
    assert ended["policy head"] == ended["reference head"] == [0]
    # With a bound the policy's levels are read; the reference's are read by nothing.
    answers = sum(len(row) for row in answer_tokens(runs[HIGH_BOUND][0]))
    assert len(whole["policy upper"]) == 1 and whole["policy head"] == [answers]
    assert whole["reference upper"] == [] and whole["reference head"] == [0]
    # The step is the same, to the last bit.
    one, other = (weights(runs[bound][0].model) for bound in (None, HIGH_BOUND))
    assert any(not torch.equal(one[name], start[name]) for name in start)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_the_forward_with_the_adapter_off_ends_at_the_layer_too(tmp_path, kind):
    trainer = steered(tmp_path, tiny_model(kind), peft_config=lora(0, 1), max_steps=2)
    trainer._measure(trainer.model, sharded=False)
    seen = of_both_models(trainer)
    trainer.train()
    # Two steps, each with a forward of the policy and one of the reference.
    assert len(seen.positions["policy lower"]) == 4 and seen.positions["policy upper"] == []
    assert seen.positions["policy head"] == [0] * 4


def answer_tokens(trainer: UnlearningTrainer) -> Iterator[list[int]]:
    for position in range(4):
        item = item_at(trainer, position)
        for row in (item, *item["retain"]):
            yield [label for label in row["labels"][1:] if label != -100]


@pytest.mark.parametrize("option", ["forget_nll_bound", "stop_forget_nll", "stop_retain_nll_increase"])
def test_levels_are_logged_where_something_watches_them(tmp_path, option):
    plain = steered(tmp_path, tiny_model(), max_steps=2)
    watched = steered(tmp_path, tiny_model(), max_steps=2, **{option: HIGH_BOUND})
    for trainer in (plain, watched):
        trainer.train()
    for one, other in zip(step_logs(plain), step_logs(watched), strict=True):
        assert other.keys() - one.keys() == {"forget_nll", "retain_nll"}
        for name in ("loss", "forget/rmu", "retain/hidden", "grad_norm"):
            assert one[name] == other[name]
    rows = [item_at(watched, position) for position in range(4)]
    expected = torch.cat([-naive.token_logps(tiny_model(), row).detach() for row in rows]).mean()
    assert step_logs(watched)[0]["forget_nll"] == pytest.approx(float(expected), rel=1e-5)


def test_under_a_bound_the_upper_part_has_no_graph(tmp_path):
    for retain, graph in (("hidden", False), ("nll", True)):
        retain_loss = STEERED["retain_loss"] if retain == "hidden" else retain
        trainer = steered(tmp_path, tiny_model(), forget_nll_bound=HIGH_BOUND, retain_loss=retain_loss)
        trainer._measure(trainer.model, sharded=False)
        examine(trainer.model)
        seen = Seen(
            lower=inner_module(trainer.model, 1),
            upper=inner_module(trainer.model, 2),
            head=trainer.model.get_output_embeddings(),
        )
        # DDP asks at the end of the forward whether a backward is to come.
        enabled: list[bool] = []
        trainer.model.register_forward_hook(lambda *_, log=enabled: log.append(torch.is_grad_enabled()))
        trainer.train()
        assert seen.graph == {"lower": [True], "upper": [graph], "head": [graph]}
        assert enabled == [True] and torch.is_grad_enabled()


def test_rows_at_a_bound_are_held_by_what_the_upper_part_says(tmp_path):
    runs = {}
    for bound in (HIGH_BOUND, 5.8, 1e-3):
        model = tiny_model()
        start = weights(model)
        trainer = steered(tmp_path, model, forget_nll_bound=bound, retain_loss="none")
        trainer.train()
        runs[bound] = step_logs(trainer)[0]["bound_share"], changed(trainer, start)
    assert runs[HIGH_BOUND][0] == 0 and runs[HIGH_BOUND][1]
    assert 0 < runs[5.8][0] < 1 and runs[5.8][1]
    assert runs[1e-3] == (1.0, set())


def test_evaluation_goes_to_the_head_again(tmp_path):
    sets = train_sets()
    trainer = steered(tmp_path, tiny_model(), eval_dataset={"holdout": sets["holdout"]}, eval_strategy="steps")
    trainer.train()
    rows = trainer.eval_dataset["holdout"]
    expected = torch.cat([-naive.token_logps(trainer.model.eval(), row).detach() for row in rows]).mean()
    (log,) = [entry for entry in trainer.state.log_history if "eval_holdout_nll" in entry]
    assert log["eval_holdout_nll"] == pytest.approx(float(expected), rel=1e-5)


# --- What else a run may be ---


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize("bound", [None, HIGH_BOUND])
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("retain", ["hidden", "nll"])
def test_activation_checkpointing_makes_the_same_steps(tmp_path, kind, bound, adapter, retain):
    retain_loss = STEERED["retain_loss"] if retain == "hidden" else retain
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"]) if adapter else None
    runs = []
    for checkpointing in (False, True):
        trainer = steered(
            tmp_path,
            tiny_model(kind),
            retain_loss=retain_loss,
            forget_nll_bound=bound,
            peft_config=lora,
            max_steps=3,
            activation_checkpointing=checkpointing,
        )
        start = weights(trainer.model)
        trainer.train()
        assert trainer.model.is_activation_checkpointing == checkpointing
        runs.append((step_logs(trainer), weights(trainer.model), changed(trainer, start)))
    (one_logs, one, moved), (other_logs, other, also_moved) = runs
    assert moved and moved == also_moved
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-6, atol=1e-7)
    for a, b in zip(one_logs, other_logs, strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def lora(*layers: int) -> LoraConfig:
    """Adapters on blocks counted from 0."""
    return LoraConfig(r=4, target_modules=["q_proj", "v_proj"], layers_to_transform=list(layers))


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize("bound", [None, HIGH_BOUND])
def test_adapters_below_the_layer_move_and_those_above_stay(tmp_path, kind, bound):
    moved = {}
    for layers in ((0,), (0, 1)):
        trainer = steered(tmp_path, tiny_model(kind), peft_config=lora(*layers), forget_nll_bound=bound, max_steps=2)
        start = weights(trainer.model)
        trainer.train()
        moved[layers] = changed(trainer, start), {name for name in start if "lora_" in name}
        logs = step_logs(trainer)
        assert logs[0]["retain/hidden"] == pytest.approx(0, abs=1e-9) and logs[1]["retain/hidden"] > 1e-9
    (below, all_below), (both, all_both) = moved.values()
    assert below == all_below == both and len(below) == 4
    assert len(all_both - both) == 4


def test_adapters_above_the_layer_move_by_the_likelihoods_alone(tmp_path):
    trainer = steered(tmp_path, tiny_model(), peft_config=lora(1), retain_loss="nll", max_steps=2)
    start = weights(trainer.model)
    trainer.train()
    assert changed(trainer, start) == {name for name in start if "lora_" in name}


# --- After an error ---


class Broken(RuntimeError):
    """What a test makes a module raise."""


def hooks_and_patches(model: nn.Module) -> list[str]:
    """The modules that are not as they were made."""
    return [
        name
        for name, module in model.named_modules()
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    ]


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize("bound", [None, HIGH_BOUND])
@pytest.mark.parametrize("place", ["below the layer", "at the layer", "head"])
def test_nothing_is_left_on_the_model_after_an_error_in_its_forward(tmp_path, kind, bound, place):
    trainer = steered(tmp_path, tiny_model(kind), forget_nll_bound=bound)
    batch = trainer.data_collator([item_at(trainer, position) for position in range(4)])
    trainer._measure(trainer.model, sharded=False)
    untouched = hooks_and_patches(trainer.model)
    whole = trainer.compute_loss(trainer.model, batch).detach()
    blocks = decoder_blocks(trainer.model)
    module = {
        "below the layer": inner_module(trainer.model, 1),
        "at the layer": blocks[0],
        "head": trainer.model.get_output_embeddings(),
    }[place]

    def fail(*_: Any) -> None:
        raise Broken

    handle = module.register_forward_hook(fail)
    with pytest.raises(Broken):
        trainer.compute_loss(trainer.model, batch)
    handle.remove()
    assert torch.is_grad_enabled()
    assert hooks_and_patches(trainer.model) == untouched
    # The model is whole: every block runs again, and a step of the trainer is what it was.
    upper = Seen(upper=inner_module(trainer.model, 2))
    row = item_at(trainer, 0)
    assert naive.token_logps(trainer.model, row).requires_grad
    assert upper.positions["upper"] == [len(row["input_ids"])]
    torch.testing.assert_close(trainer.compute_loss(trainer.model, batch).detach(), whole, rtol=0, atol=0)


def test_a_forward_that_was_patched_before_is_patched_again_after(tmp_path):
    # As accelerate and FSDP leave it on modules that they wrap.
    trainer = steered(tmp_path, tiny_model())
    upper = decoder_blocks(trainer.model)[1]
    own = upper.forward
    upper.forward = lambda *args, **kwargs: own(*args, **kwargs)
    patched = upper.forward
    trainer.train()
    assert vars(upper)["forward"] is patched
    assert "forget_nll" not in step_logs(trainer)[0]


# --- Interrupted runs ---


@pytest.mark.parametrize("bound", [None, HIGH_BOUND])
@pytest.mark.parametrize("adapter", [None, lora(0, 1)], ids=["full", "lora"])
def test_a_resumed_run_steers_to_the_same_target(tmp_path, adapter, bound):
    options: dict[str, Any] = dict(
        max_steps=4,
        optim="adamw_torch",
        learning_rate=1e-2,
        lr_scheduler_type="linear",
        peft_config=adapter,
        forget_nll_bound=bound,
        save_strategy="steps",
        save_steps=2,
    )
    whole = steered(tmp_path, tiny_model(), **options)
    start = weights(whole.model)
    whole.train()
    torch.manual_seed(12345)  # another process has other random numbers behind it
    rest = steered(tmp_path, tiny_model(), **options)
    rest.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert rest.state.global_step == 4 and changed(whole, start)
    one, other = weights(whole.model), weights(rest.model)
    assert all(torch.equal(one[name], other[name]) for name in one)
    for a, b in zip(step_logs(whole), step_logs(rest), strict=True):
        assert a == b
    assert all(log["retain/hidden"] > 1e-6 for log in step_logs(rest)[1:])


def test_another_seed_is_another_target(tmp_path):
    runs = []
    for seed in (7, 8):
        trainer = steered(tmp_path, tiny_model(), forget_loss={**STEERED["forget_loss"], "seed": seed})
        trainer.train()
        runs.append(weights(trainer.model))
    assert any(not torch.allclose(runs[0][name], runs[1][name], atol=1e-4) for name in runs[0])


def test_adapters_above_the_layer_alone_are_refused(tmp_path):
    above = LoraConfig(r=2, target_modules=["q_proj"], layers_to_transform=[1])
    losses = {"forget_loss": {"name": "rmu", "layer": 1}, "retain_loss": {"name": "hidden", "layer": 1}}
    with pytest.raises(ValueError, match="trainable weights below layer 1"):
        make_trainer(tmp_path, tiny_model(), peft_config=above, **losses)
    make_trainer(tmp_path, tiny_model(), peft_config=above, forget_loss=losses["forget_loss"], retain_loss="nll")


@pytest.mark.parametrize("losses", [{"forget_loss": "rmu"}, {"forget_loss": "npo", "retain_loss": "hidden"}])
def test_reentrant_checkpointing_is_refused(tmp_path, losses):
    with pytest.raises(ValueError, match="without reentrant activation checkpointing"):
        make_trainer(
            tmp_path,
            tiny_model(),
            activation_checkpointing=True,
            activation_checkpointing_kwargs={"use_reentrant": True},
            **losses,
        )
