"""What a plan is made for: model, objective, precision, batch and GPUs, from the arguments of a run."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from peft import PeftConfig
from transformers import PreTrainedConfig
from trl import ModelConfig, get_peft_config

from ..data.roles import Role
from ..data.walks import check_ratio
from ..errors import input_error, require_range, value_error
from ..losses.pull_back import PullBack
from ..steps import StepWrapper
from ..training.methods import Methods
from ..training.objective import Objective
from ..training.reference.disk_room import hidden_bytes
from ..training.reference.plan import ReferenceMode
from .optimizer_states import OptimizerCost, optimizer_cost
from .shapes import KNOWN_SHAPES, load_config

GIB = 2**30


@dataclass(frozen=True)
class Hardware:
    """What the run would have.

    Attributes:
        gpus: in all.
        machines: among which they are spread evenly.
        gpu_memory: GiB of one GPU.
        host_memory: GiB of one machine for what is offloaded, or None where that is not known.
        reserve: share of a GPU's memory that is left to its context, fragmentation and libraries.
    """

    gpus: int = 1
    machines: int = 1
    gpu_memory: float = 80.0
    host_memory: float | None = None
    reserve: float = 0.08

    def __post_init__(self) -> None:
        require_range("num_gpus", self.gpus, at_least=1)
        require_range("num_machines", self.machines, at_least=1)
        require_range("gpu_memory", self.gpu_memory, above=0)
        if self.host_memory is not None:
            require_range("host_memory", self.host_memory, above=0)
        if self.gpus % self.machines:
            raise value_error("num_gpus", f"a multiple of num_machines ({self.machines})", self.gpus)
        require_range("reserve", self.reserve, at_least=0, below=1)

    @property
    def total(self) -> int:
        """Bytes of a GPU."""
        return int(self.gpu_memory * GIB)

    @property
    def usable(self) -> int:
        """Bytes of a GPU that the run may take."""
        return int(self.gpu_memory * GIB * (1 - self.reserve))


@dataclass(frozen=True)
class Request:
    """A run, as far as its memory depends on it.

    Attributes:
        model: as the user called it.
        config: its sizes.
        peft_config: of an adapter, None for full parameters.
        objective: its losses.
        wrappers: its step wrappers.
        reference: as `UnlearningConfig.reference`.
        top_k: as `UnlearningConfig.reference_top_k`.
        watched: whether something reads likelihoods that no loss needs.
        dtype: that the weights are loaded in.
        mixed: mixed precision in this dtype, or None.
        quantised: bytes of a frozen linear weight, None where it is not quantised.
        attention: attn_implementation.
        checkpointing: activation checkpointing.
        dropout: whether dropout stays on.
        optimizer: what it keeps.
        optimizer_name: as `optim` has it.
        length: tokens of a row.
        batch: forget rows in a micro-batch of one GPU.
        retain_ratio: retain rows for each.
        anchor_ratio: holdout rows for each, where an anchor loss reads them.
        accumulation: micro-batches in an optimizer step.
        answers: share of a row's tokens that are answer.
        on_cpu: planned for a CPU, where logits go in other chunks.
    """

    model: str
    config: PreTrainedConfig
    peft_config: PeftConfig | None
    objective: Objective
    optimizer: OptimizerCost
    optimizer_name: str = "adamw_torch_fused"
    wrappers: tuple[StepWrapper, ...] = ()
    reference: str = "auto"
    top_k: int = 64
    watched: bool = True
    dtype: torch.dtype = torch.float32
    mixed: torch.dtype | None = None
    quantised: float | None = None
    attention: str = "sdpa"
    checkpointing: bool = False
    dropout: bool = False
    length: int = 1024
    batch: int = 8
    retain_ratio: float = 1.0
    anchor_ratio: float = 0.25
    accumulation: int = 1
    answers: float = 1.0
    on_cpu: bool = False

    def __post_init__(self) -> None:
        for name in ("length", "batch", "accumulation"):
            require_range(name, getattr(self, name), at_least=1)
        require_range("answer_share", self.answers, above=0, at_most=1)
        longest = getattr(self.config, "max_position_embeddings", None)
        if longest is not None and self.length > longest:
            raise value_error("max_length", f"at most {longest}, the positions of {self.model}", self.length)

    @property
    def rows(self) -> int:
        """Rows of a micro-batch, of all roles."""
        return sum(self.rows_of(role) for role in Role)

    def rows_of(self, role: Role) -> int:
        """Rows of a role in a micro-batch."""
        retained = math.ceil(self.batch * self.retain_ratio)
        if role is Role.FORGET:
            return self.batch
        if role is Role.MISMATCH:
            return self.batch * self.objective.mismatches
        if role not in self.objective.needs.roles:
            return 0
        if role is Role.HOLDOUT:
            return math.ceil(self.batch * self.anchor_ratio)
        return self.batch if role is Role.ALTERNATE else retained

    @property
    def cached_bytes(self) -> int:
        """Bytes on disk for each 1,000 rows whose distributions are compared; 0 unless hidden states are cached."""
        if self.reference != ReferenceMode.HIDDEN_STATES or not self.objective.needs.reference_logits:
            return 0
        return hidden_bytes(round(1000 * self.length * self.answers), self.config.hidden_size, self.dtype.itemsize)

    def answer_tokens(self, roles: Collection[Role] = tuple(Role)) -> int:
        """Answer tokens of the rows of some roles."""
        return math.ceil(sum(self.rows_of(role) for role in roles) * self.length * self.answers)


def make_request(values: Mapping[str, Any], answers: float = 1.0) -> Request:
    """The request of parsed arguments of a run, by name, as `UnlearningConfig` and TRL's `ModelConfig` have them.

    Raises:
        ValueError: no model, or arguments that a run would refuse, too.
    """
    model = ModelConfig(**{argument.name: values[argument.name] for argument in fields(ModelConfig) if argument.init})
    if model.model_name_or_path is None:
        raise input_error(
            expected="--model_name_or_path",
            got="none, which for a task means the lab's model, whose memory nobody has to plan",
            why="its sizes decide the memory",
            fix=f"name a known shape ({', '.join(KNOWN_SHAPES)}), a config.json or a repository",
        )
    parts = ("forget_loss", "retain_loss", "step_wrappers", "weighting", "anchor_loss")
    methods = Methods.parse(*(values[part] for part in parts))
    weights = values["forget_weight"], values["retain_weight"]
    objective = Objective(methods.forget, methods.retain, *weights, methods.anchor, values["anchor_weight"])
    if values["forget_bound_sides"] == "both":
        objective = replace(objective, pull_back=PullBack())
    levels = ("forget_nll_bound", "stop_forget_nll", "stop_at_level", "stop_retain_nll_increase")
    config = load_config(model.model_name_or_path, model.model_revision)
    length = values["max_length"]
    return Request(
        model=model.model_name_or_path,
        config=config,
        peft_config=get_peft_config(model),
        objective=objective,
        wrappers=methods.wrappers,
        optimizer=optimizer_cost(str(values["optim"])),
        optimizer_name=str(values["optim"]),
        reference=values["reference"],
        top_k=values["reference_top_k"],
        watched=any(str(values[level]).lower() not in ("none", "null") for level in levels),
        dtype=_dtype(model, config),
        mixed=torch.bfloat16 if values["bf16"] else torch.float16 if values["fp16"] else None,
        quantised=_quantised(model),
        attention=model.attn_implementation or "sdpa",
        checkpointing=bool(values["activation_checkpointing"] or values.get("gradient_checkpointing")),
        dropout=not values["disable_dropout"],
        length=config.max_position_embeddings if length is None else length,
        batch=values["per_device_train_batch_size"],
        retain_ratio=check_ratio("retain_ratio", values["retain_ratio"]),
        anchor_ratio=check_ratio("anchor_ratio", values["anchor_ratio"]),
        accumulation=int(values["gradient_accumulation_steps"]),
        answers=answers,
    )


def _dtype(model: ModelConfig, config: PreTrainedConfig) -> torch.dtype:
    if model.dtype in (None, "auto"):
        return getattr(config, "dtype", None) or torch.float32
    return getattr(torch, model.dtype)


def _quantised(model: ModelConfig) -> float | None:
    """Bytes of a weight, with its scales: one for 64 weights in fp32, or in 8 bits where they are quantised again."""
    if model.load_in_4bit:
        return 0.5 + (1 / 64 + 4 / (64 * 256) if model.use_bnb_nested_quant else 4 / 64)
    return 1.0 if model.load_in_8bit else None
