"""How a run is spread over processes: how many, who holds which parameters and gradients, in which precision."""

from dataclasses import dataclass

from accelerate import Accelerator
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer, TrainingArguments

from ..component import TrainingSetup


@dataclass(frozen=True)
class DistributedSetup:
    """The distribution of a run, detected once when its trainer is built and passed to all that depends on it.

    Two questions are asked elsewhere, because they are others: `model.sharding.is_sharded` looks at the parameters of
    one model, which may be evaluated without any trainer; and `model_setup` asks the arguments for the ZeRO stage,
    because an adapter is added before Trainer has made the accelerator.

    Attributes:
        processes: of the run, on all machines.
        zero_stage: of DeepSpeed ZeRO, None without DeepSpeed.
        fsdp_version: 1 or 2, None without FSDP.
        precision: of mixed precision, "bf16" or "fp16"; "no" computes in the dtype of the weights.
    """

    processes: int = 1
    zero_stage: int | None = None
    fsdp_version: int | None = None
    precision: str = "no"

    @classmethod
    def detect(cls, args: TrainingArguments, accelerator: Accelerator) -> "DistributedSetup":
        """The setup of a run.

        Args:
            args: of the run.
            accelerator: of the trainer, which knows what has come of the arguments and of the launcher's config.
        """
        # accelerate's state has neither attribute where the plugin is not in use.
        deepspeed = getattr(accelerator.state, "deepspeed_plugin", None)
        fsdp = getattr(accelerator.state, "fsdp_plugin", None)
        return cls(
            processes=accelerator.num_processes,
            zero_stage=None if deepspeed is None else deepspeed.zero_stage,
            fsdp_version=None if fsdp is None else fsdp.fsdp_version,
            precision="bf16" if args.bf16 else "fp16" if args.fp16 else "no",
        )

    @property
    def deepspeed(self) -> bool:
        """Whether DeepSpeed runs the model, which then also holds gradients and makes the optimizer's step."""
        return self.zero_stage is not None

    @property
    def fsdp(self) -> bool:
        """Whether FSDP shards the model."""
        return self.fsdp_version is not None

    @property
    def sharded(self) -> bool:
        """Whether parameters are split over the ranks, so that a forward of one rank waits for all others."""
        return self.zero_stage == 3 or self.fsdp

    @property
    def strategy(self) -> str:
        """In a word: "one process", "DDP", "ZeRO-3", "FSDP2", ..."""
        if self.deepspeed:
            return f"ZeRO-{self.zero_stage}"
        if self.fsdp:
            return f"FSDP{self.fsdp_version}"
        return "DDP" if self.processes > 1 else "one process"

    @property
    def training_setups(self) -> set[TrainingSetup]:
        """The members of TrainingSetup that hold, of those that are about distribution."""
        holds = {
            TrainingSetup.ZERO_1_2: self.deepspeed and self.zero_stage != 3,
            TrainingSetup.ZERO_3: self.zero_stage == 3,
            TrainingSetup.FSDP: self.fsdp,
        }
        return {setup for setup, is_so in holds.items() if is_so}


def let_go_of_ddp(trainer: Trainer) -> None:
    """Drop DDP's wrapper of a trainer's model while the process group is there.

    Where the wrapper goes last, after the group was destroyed, it takes the group with it: it waits for the group's
    threads while it holds Python's lock, which one of them may wait for, and a run that is done does not end.
    """
    if isinstance(trainer.model_wrapped, DistributedDataParallel):
        trainer.model_wrapped = trainer.model
        trainer.accelerator.free_memory()
