"""Optimizer and schedule of a run, tried on one number: what they do not take, and Trainer would drop, is refused."""

from typing import Any

import torch
from transformers import SchedulerType, Trainer, TrainingArguments, get_scheduler

from ..errors import choice_error, input_error, value_error
from ..optimizers.named import OPTIMIZERS

# Steps of the schedule that is tried, and optimizers that can be made of one number.
_STEPS = 10
# Others want a GPU or several numbers.
_PLAIN_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop")
_OF_MODULES = ("galore", "apollo")  # they alone read optim_target_modules
_OF_A_MODEL = (*_OF_MODULES, "lomo", "adalomo")  # they are made of a model's modules
# What Trainer reads of optim_args, by the beginning of an optimizer's name; it drops all else. None: it passes all on.
_READ: dict[str, tuple[str, ...] | None] = {
    **dict.fromkeys(OPTIMIZERS),  # named.py says what they take
    "rmsprop_bnb": None,
    "sgd": ("momentum", "dampening", "weight_decay", "nesterov"),
    "adagrad": ("lr_decay", "weight_decay", "eps"),
    "rmsprop": ("momentum", "alpha", "eps", "weight_decay", "centered"),
    "ademamix": ("beta1", "beta2", "beta3", "alpha", "eps", "t_alpha", "t_beta3"),
    "paged_ademamix": ("beta1", "beta2", "beta3", "alpha", "eps", "t_alpha", "t_beta3"),
    "adamw_anyprecision": ("use_kahan_summation", "momentum_dtype", "variance_dtype", "compensation_buffer_dtype"),
    "adamw_torch_4bit": ("block_size", "bf16_stochastic_round"),
    "adamw_torch_8bit": ("block_size", "bf16_stochastic_round"),
    "galore": ("rank", "update_proj_gap", "scale", "proj_type"),
    "apollo": ("rank", "update_proj_gap", "scale", "proj_type", "proj", "scale_type"),
    "grokadamw": ("alpha_init", "lamb", "gamma", "grokking_signal_decay_rate", "gradient_clipping"),
    "schedule_free": ("weight_lr_power", "r"),
    "stable_adamw": ("decouple_lr", "max_lr", "kahan_sum"),
}
# Schedules that get_scheduler makes without a warmup, or without lr_scheduler_kwargs.
_WITHOUT_WARMUP = (SchedulerType.CONSTANT, SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY)
_WITHOUT_KWARGS = (SchedulerType.CONSTANT, SchedulerType.CONSTANT_WITH_WARMUP)


def require_optimizer(args: TrainingArguments) -> None:
    """Try optimizer and schedule on one number, so that their arguments are refused before anything is measured.

    Raises:
        ValueError: `optim_args`, `optim_target_modules`, `lr_scheduler_kwargs` or `warmup_steps` that the named
            optimizer or schedule does not take, or an optimizer whose package is not installed.
    """
    name = str(getattr(args.optim, "value", args.optim))
    _require_read(args, name)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer: Any = torch.optim.SGD([parameter], lr=1.0)
    try:
        if name not in OPTIMIZERS and not name.startswith(_OF_A_MODEL):
            optimizer_class, kwargs = Trainer.get_optimizer_cls_and_kwargs(args)
            if name in _PLAIN_OPTIMIZERS:
                optimizer = optimizer_class([parameter], **kwargs)
    except (ImportError, TypeError, ValueError) as error:
        raise _unusable("optim", f"{name} with optim_args={args.optim_args!r}", error) from None
    schedule = SchedulerType(args.lr_scheduler_type)
    try:
        get_scheduler(
            schedule,
            optimizer,
            num_warmup_steps=args.get_warmup_steps(_STEPS),
            num_training_steps=_STEPS,
            scheduler_specific_kwargs=dict(args.lr_scheduler_kwargs or {}),
        )
    except (KeyError, TypeError, ValueError) as error:
        got = f"{schedule.value} with lr_scheduler_kwargs={args.lr_scheduler_kwargs!r}"
        raise _unusable("lr_scheduler_type", got, error) from None


def _require_read(args: TrainingArguments, name: str) -> None:
    """Raise for what Trainer would drop in silence: the run would have another optimizer than was asked for."""
    # The longest beginning that fits: rmsprop_bnb is no rmsprop.
    beginning = max((known for known in _READ if name.startswith(known)), key=len, default="")
    read = _READ.get(beginning, ())
    if args.optim_args and read == ():
        hint = f"{name} has none: its arguments are learning_rate, weight_decay, adam_beta1 and the like"
        raise value_error("optim_args", "left out", args.optim_args, hint)
    if args.optim_args and read is not None:
        for given in args.optim_args.replace(" ", "").split(","):
            if given.partition("=")[0] not in read:
                raise choice_error(f"the name in optim_args of {name}", given.partition("=")[0], read)
    if args.optim_target_modules is not None and not name.startswith(_OF_MODULES):
        hint = f"{name} trains all weights that require a gradient; galore and apollo optimizers alone read it"
        raise value_error("optim_target_modules", "left out", args.optim_target_modules, hint)
    schedule = SchedulerType(args.lr_scheduler_type)
    # The optimizers without a schedule warm up themselves.
    if args.warmup_steps and schedule in _WITHOUT_WARMUP and not name.startswith("schedule_free"):
        hint = f"lr_scheduler_type='{schedule.value}' has no warmup; constant_with_warmup has"
        raise value_error("warmup_steps", "0", args.warmup_steps, hint)
    if args.lr_scheduler_kwargs and schedule in _WITHOUT_KWARGS:
        hint = f"lr_scheduler_type='{schedule.value}' takes none"
        raise value_error("lr_scheduler_kwargs", "left out", args.lr_scheduler_kwargs, hint)


def _unusable(argument: str, got: str, error: Exception) -> ValueError:
    return input_error(
        expected=f"{argument} with arguments that it takes",
        got=f"{got} ({error})",
        why="the run would end after the model was measured, at its first step",
        fix="look its arguments up in the documentation of torch or transformers, or leave them out",
    )
