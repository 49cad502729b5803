"""What the arguments of a run may be, ours and Trainer's: one table of ranges, looked at before anything is loaded."""

from dataclasses import fields

from transformers import TrainingArguments

from ..errors import choice_error, input_error, require_choice, value_error
from .argument_fields import Ranges, check_fields

BOUND_SIDES = ("above", "both")
_COUNT = {"at_least": 1, "whole": True}
_FROM_ZERO = {"at_least": 0}
_ABOVE_ZERO = {"above": 0}
_SHARE = {"at_least": 0, "at_most": 1}
_SEED = {"at_least": 0, "below": 2**32, "whole": True}  # numpy takes no other
_WEIGHT = {"at_least": 0, "hint": "a negative weight would turn forgetting into learning, or learning into forgetting"}

RANGES: Ranges = {
    "per_device_train_batch_size": _COUNT,
    "per_device_eval_batch_size": _COUNT,
    "gradient_accumulation_steps": _COUNT,
    "eval_accumulation_steps": _COUNT,
    "num_train_epochs": _ABOVE_ZERO,
    # Trainer takes every number up to 0 for "by epochs".
    "max_steps": {**_COUNT, "allowed": (-1,), "hint": "-1 means as many as num_train_epochs has"},
    "learning_rate": _FROM_ZERO,
    "warmup_steps": _FROM_ZERO,
    "weight_decay": _FROM_ZERO,
    "adam_beta1": {"at_least": 0, "below": 1},
    "adam_beta2": {"at_least": 0, "below": 1},
    "adam_epsilon": _FROM_ZERO,
    "max_grad_norm": {**_FROM_ZERO, "hint": "0 clips nothing"},
    "label_smoothing_factor": _SHARE,
    "neftune_noise_alpha": _FROM_ZERO,
    "torch_empty_cache_steps": _COUNT,
    "logging_steps": _FROM_ZERO,
    "eval_steps": _FROM_ZERO,
    "save_steps": _ABOVE_ZERO,
    "save_total_limit": {"at_least": 0, "whole": True},
    "eval_delay": _FROM_ZERO,
    "seed": _SEED,
    "data_seed": _SEED,
    "dataloader_num_workers": {"at_least": 0, "whole": True},
    "dataloader_prefetch_factor": _COUNT,
    "ddp_bucket_cap_mb": _COUNT,
    "ddp_timeout": _COUNT,
    "forget_weight": _WEIGHT,
    "retain_weight": _WEIGHT,
    "anchor_weight": _WEIGHT,
    "retain_ratio": {**_ABOVE_ZERO, "hint": "pass retain_loss='none' to train on forget rows alone"},
    "anchor_ratio": {**_ABOVE_ZERO, "hint": "pass anchor_loss='none' to train without holdout rows"},
    # A row's first token is never predicted, so a row of one would train nothing.
    "max_length": {"at_least": 2, "whole": True},
    "forget_nll_bound": {**_ABOVE_ZERO, "hint": "a row's NLL is never below 0"},
    "stop_forget_nll": {**_ABOVE_ZERO, "hint": "a row's NLL is never below 0"},
    "stop_at_level": _ABOVE_ZERO,
    "recalibrate_steps": _COUNT,
    "stop_retain_nll_increase": _FROM_ZERO,
    "reference_top_k": _COUNT,
    "pad_to_multiple_of": _COUNT,
    "max_tokens_per_batch": _COUNT,
    "dataset_num_proc": _COUNT,
}

# TrainingArguments puts objects of its own into these, and says itself what it cannot read; a checkpoint to go on from
# may be `true` as well as a folder.
OF_TRAINER = (
    "accelerator_config",
    "debug",
    "deepspeed",
    "fsdp",
    "fsdp_config",
    "parallelism_config",
    "resume_from_checkpoint",
)


def check_types_and_ranges(args: TrainingArguments) -> None:
    """Give every argument a value of its type and within its range, before TrainingArguments calculates with them.

    Raises:
        ValueError: one line, with the argument, what it must be and what it is.
    """
    check_fields(args, RANGES, skipped=OF_TRAINER)


def name_or_number(argument: str, value: float | str | None, names: tuple[str, ...]) -> float | str | None:
    """A number, one of the names, or None, which a command line and a recipe may write as text."""
    if isinstance(value, str) and value.lower() in ("none", "null"):
        return None
    if isinstance(value, str) and value not in names:
        raise choice_error(argument, value, (*names, "a number", "none"))
    return value


def require_bound_sides(sides: str, bound: float | str | None) -> None:
    """Raise for sides of the row bound that there are none of, or that no bound has."""
    require_choice("forget_bound_sides", sides, BOUND_SIDES)
    if sides == "both" and bound is None:
        raise input_error(
            expected="a forget_nll_bound together with forget_bound_sides='both'",
            got="none",
            why="there is no bound that a row could be pulled back to",
            fix="set forget_nll_bound (levels, holdout, a number), or leave forget_bound_sides out",
        )


def require_anchor(args: TrainingArguments) -> None:
    """Raise for a weight or a ratio of an anchor that there is none of.

    Args:
        args: an `UnlearningConfig`.
    """
    given = {field.name: (getattr(args, field.name), field.default) for field in fields(args)}
    for name in ("anchor_weight", "anchor_ratio") if given["anchor_loss"][0] in (None, "none") else ():
        value, default = given[name]
        if value != default:
            raise value_error(name, f"left at {default} without an anchor_loss", value, "pass anchor_loss='kl'")
