"""The setup of a run from the accelerator's state, and what follows from it. Launches of real setups lie elsewhere."""

import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist
import transformers
from torch.nn.parallel import DistributedDataParallel

from fixtures.bad_input import config
from fixtures.models import make_trainer, tiny_model
from hf_unlearn.component import TrainingSetup
from hf_unlearn.training.distributed_setup import DistributedSetup


def accelerator(processes: int = 2, **plugins: Any) -> Any:
    """As accelerate's is: its state lacks the attribute of a plugin that is not in use, or has None there."""
    return SimpleNamespace(num_processes=processes, state=SimpleNamespace(**plugins))


def zero(stage: int) -> Any:
    return accelerator(deepspeed_plugin=SimpleNamespace(zero_stage=stage))


FSDP2 = accelerator(deepspeed_plugin=None, fsdp_plugin=SimpleNamespace(fsdp_version=2))


@pytest.mark.parametrize(
    ("given", "strategy", "sharded", "setups"),
    [
        (accelerator(1), "one process", False, set()),
        (accelerator(2, deepspeed_plugin=None, fsdp_plugin=None), "DDP", False, set()),
        (zero(0), "ZeRO-0", False, {TrainingSetup.ZERO_1_2}),
        (zero(1), "ZeRO-1", False, {TrainingSetup.ZERO_1_2}),
        (zero(2), "ZeRO-2", False, {TrainingSetup.ZERO_1_2}),
        (zero(3), "ZeRO-3", True, {TrainingSetup.ZERO_3}),
        (FSDP2, "FSDP2", True, {TrainingSetup.FSDP}),
    ],
)
def test_what_follows_from_the_accelerators_state(tmp_path, given, strategy, sharded, setups):
    found = DistributedSetup.detect(config(tmp_path), given)
    assert (found.strategy, found.sharded, found.training_setups) == (strategy, sharded, setups)
    assert (found.processes, found.precision) == (given.num_processes, "no")


def test_mixed_precision_is_the_arguments(tmp_path):
    assert DistributedSetup.detect(config(tmp_path, bf16=True), accelerator()).precision == "bf16"


def test_the_wrapper_of_ddp_is_gone_before_the_process_group(tmp_path, monkeypatch):
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    alive = []
    try:
        trainer = make_trainer(tmp_path / "out", tiny_model())
        trainer.model_wrapped = DistributedDataParallel(trainer.model)
        wrapper = weakref.ref(trainer.model_wrapped)
        monkeypatch.setattr(transformers.Trainer, "end", lambda self: alive.append(wrapper() is not None))
        trainer.end()
    finally:
        dist.destroy_process_group()
    assert alive == [False]
