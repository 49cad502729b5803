"""The model that is about to train against what the setup says it is. Launches: distributed/test_engaged.py."""

from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from fixtures.examples import assert_four_parts
from fixtures.models import make_trainer, tiny_model
from hf_unlearn.training.distributed_setup import DistributedSetup
from hf_unlearn.training.hooks.callbacks import DistributedCheckCallback
from hf_unlearn.training.launch.verify import require_engaged, require_wrapped

SETUPS = {
    "DEEPSPEED": DistributedSetup(processes=2, zero_stage=3),
    "FSDP": DistributedSetup(processes=2, fsdp_version=2),
    "DDP": DistributedSetup(processes=2),
    "one process": DistributedSetup(),
}


class Engine(nn.Linear):
    """As far as a DeepSpeed engine is looked at."""

    def __init__(self, stage: int) -> None:
        super().__init__(2, 2)
        self.stage = stage

    def zero_optimization_stage(self) -> int:
        return self.stage


@pytest.mark.parametrize(
    ("kind", "model", "words"),
    [
        ("DEEPSPEED", Engine(2), ["a DeepSpeed engine of ZeRO-3", "Got: ZeRO-2"]),
        ("DEEPSPEED", nn.Linear(2, 2), ["a DeepSpeed engine of ZeRO-3", "Got: none"]),
        ("FSDP", nn.Linear(2, 2), ["sharded by FSDP", "Got: whole ones"]),
        ("DDP", nn.Linear(2, 2), ["gradients are averaged", "not wrapped"]),
    ],
)
def test_a_model_that_is_not_what_the_setup_says_is_refused(kind, model, words):
    with pytest.raises(ValueError) as error:
        require_wrapped(model, SETUPS[kind])
    assert_four_parts(str(error.value), *words)


class Sharded(FullyShardedDataParallel):
    def __init__(self) -> None:
        nn.Module.__init__(self)  # its own needs a process group


def test_models_that_are():
    require_wrapped(Engine(3), SETUPS["DEEPSPEED"])
    require_wrapped(nn.Linear(2, 2), SETUPS["one process"])
    require_wrapped(Sharded(), SETUPS["FSDP"])


@pytest.mark.parametrize(
    ("variable", "name"), [("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepS")]
)
def test_an_accelerator_that_has_fallen_back_is_refused(monkeypatch, variable, name):
    monkeypatch.setenv(variable, "true")
    fallen_back: Any = SimpleNamespace(distributed_type=DistributedType.MULTI_CPU)
    with pytest.raises(ValueError) as error:
        require_engaged(fallen_back)
    assert_four_parts(str(error.value), f"Expected {name}", "Got: MULTI_CPU")
    monkeypatch.setenv(variable, "false")
    require_engaged(fallen_back)


def test_every_run_looks_before_its_first_step(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, tiny_model())
    assert [type(each) for each in trainer.callback_handler.callbacks].count(DistributedCheckCallback) == 1
    monkeypatch.setattr(trainer, "distributed", SETUPS["FSDP"])
    with pytest.raises(ValueError, match="sharded by FSDP"):
        trainer.callback_handler.on_train_begin(trainer.args, trainer.state, trainer.control)


def test_one_process_for_several_gpus_is_refused():
    class Parallel(nn.DataParallel):
        def __init__(self) -> None:
            super().__init__(nn.Linear(2, 2))
            self.device_ids = [0, 1]

    with pytest.raises(ValueError, match="one process for every GPU") as refused:
        require_wrapped(Parallel(), SETUPS["one process"])
    assert_four_parts(str(refused.value))
