"""What lies below the first trainable weight: not differentiated, not recomputed, whatever checkpointing does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import nn

from fixtures.examples import assert_four_parts
from fixtures.models import make_trainer, step_logs, tiny_model, weights
from hf_unlearn import UnlearningConfig, UnlearningTrainer

TOP = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], layers_to_transform=[1], init_lora_weights=False)
BOTH = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
REENTRANT = {"activation_checkpointing_kwargs": {"use_reentrant": True}}


class Watched:
    """How often each block runs in training, and whether its output has a gradient to come."""

    def __init__(self, trainer: UnlearningTrainer) -> None:
        self.calls = {0: 0, 1: 0}
        self.differentiated = {0: False, 1: False}
        (blocks,) = [m for name, m in trainer.model.named_modules() if name.endswith("layers")]
        for number, block in enumerate(blocks):
            # What is recomputed is the block's forward; its own hooks are outside of it.
            block.self_attn.register_forward_pre_hook(lambda module, *_, number=number: self.begins(number, module))
            block.register_forward_hook(lambda _, __, output, number=number: self.ends(number, output))

    def begins(self, number: int, module: nn.Module) -> None:
        self.calls[number] += module.training  # not what is measured before the first step

    def ends(self, number: int, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        self.differentiated[number] |= hidden.requires_grad


def trained(folder: Path, kind: str, adapter: LoraConfig | None, **arguments: Any) -> tuple[Watched, dict[str, Any]]:
    trainer = make_trainer(
        folder, tiny_model(kind), peft_config=adapter, forget_loss="grad_ascent", max_steps=2, **arguments
    )
    watched = Watched(trainer)
    trainer.train()
    logs = [{name: log[name] for name in ("loss", "grad_norm")} for log in step_logs(trainer)]
    return watched, {"logs": logs, "weights": weights(trainer.model)}


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["logs"] == [pytest.approx(log, rel=1e-5) for log in other["logs"]]
    assert one["logs"][0]["grad_norm"] > 1e-3
    for name, weight in one["weights"].items():
        torch.testing.assert_close(weight, other["weights"][name])


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_blocks_below_the_first_adapter_run_once_and_have_no_gradient(tmp_path, kind):
    plain, expected = trained(tmp_path, kind, TOP)
    assert plain.calls == {0: 2, 1: 2} and plain.differentiated == {0: False, 1: True}
    checkpointed, found = trained(tmp_path, kind, TOP, activation_checkpointing=True)
    assert checkpointed.calls == {0: 2, 1: 4}, "a frozen block is not recomputed"
    assert checkpointed.differentiated == {0: False, 1: True}
    assert_same(found, expected)


def test_the_reentrant_kind_needs_the_whole_network(tmp_path):
    """An adapter in its first block would not train otherwise."""
    _, expected = trained(tmp_path, "llama", BOTH)
    watched, found = trained(tmp_path, "llama", BOTH, activation_checkpointing=True, **REENTRANT)
    assert watched.calls == {0: 4, 1: 4} and watched.differentiated == {0: True, 1: True}
    assert_same(found, expected)
    moved = [name for name, each in expected["weights"].items() if "layers.0" in name and "lora" in name]
    assert len(moved) == 4


@pytest.mark.parametrize("adapter", [BOTH, None])
def test_blocks_with_something_to_train_are_recomputed(tmp_path, adapter):
    _, expected = trained(tmp_path, "llama", adapter)
    watched, found = trained(tmp_path, "llama", adapter, activation_checkpointing=True)
    assert watched.calls == {0: 4, 1: 4} and watched.differentiated == {0: True, 1: True}
    assert_same(found, expected)


def test_every_run_of_a_trainer_spares_it(tmp_path):
    """Trainer switches checkpointing on, and with it the gradient of the embeddings, in every run."""
    trainer = make_trainer(tmp_path, tiny_model(), peft_config=TOP, activation_checkpointing=True)
    trainer.train()
    watched = Watched(trainer)
    trainer.train()
    assert watched.calls == {0: 1, 1: 2} and watched.differentiated == {0: False, 1: True}


@pytest.mark.parametrize("given", [{"every_n_layers": 2}, {"preserve_rng_state": False}])
def test_checkpointing_with_arguments_makes_the_same_steps(tmp_path, given):
    """Trainer's own arguments. Left to torch, the kind of checkpointing would be the reentrant one."""
    _, expected = trained(tmp_path, "llama", BOTH)
    arguments = {"activation_checkpointing": True, "activation_checkpointing_kwargs": given}
    watched, found = trained(tmp_path, "llama", BOTH, **arguments)
    assert watched.calls == {0: 4, 1: 2 if "every_n_layers" in given else 4}
    assert_same(found, expected)
    args = UnlearningConfig(output_dir=str(tmp_path), use_cpu=True, **arguments)
    assert args.activation_checkpointing_kwargs == {"use_reentrant": False} | given


def test_activations_that_are_in_host_memory_cannot_be_moved_there(tmp_path):
    """Trainer's offload=True wants pinned memory, and torch would say so at the first step."""
    with pytest.raises(ValueError) as error:
        make_trainer(
            tmp_path, tiny_model(), activation_checkpointing=True, activation_checkpointing_kwargs={"offload": True}
        )
    assert_four_parts(str(error.value), "offload", "Got: a run on the CPU")
