"""What the arguments of tasks and of TRL's ModelConfig may be: their ranges, looked at before anything is loaded."""

import dataclasses
from typing import Any

import torch
from transformers.utils import logging
from trl import ModelConfig

from ..errors import require_choice, value_error
from ..training.argument_fields import Ranges, check_fields

logger = logging.get_logger(__name__)

_COUNT = {"at_least": 1, "whole": True}

TASK_RANGES: Ranges = {
    "limit": _COUNT,
    "evaluated_rows": _COUNT,
    "show_rows": _COUNT,
    "max_new_tokens": _COUNT,
    "judge_threshold": {"at_least": 0, "at_most": 1},
    "prompt_characters": _COUNT,
    "passage_characters": _COUNT,
    "fit_epochs": {"above": 0},
    "fit_learning_rate": {"above": 0},
    "fit_warmup": {"at_least": 0, "at_most": 1},
    "fit_batch_size": _COUNT,
    "fit_lora_r": _COUNT,
    "fit_lora_alpha": _COUNT,
    "fit_lora_dropout": {"at_least": 0, "below": 1},
}

MODEL_RANGES: Ranges = {
    "lora_r": _COUNT,
    "lora_alpha": _COUNT,
    "lora_dropout": {"at_least": 0, "below": 1},
}

# A list, or a word of PEFT's ("all-linear").
OF_TRL = ("lora_target_modules",)


def check_model_arguments(model: ModelConfig) -> None:
    """Raise for what neither transformers nor PEFT could load a model with.

    Raises:
        ValueError: one line, with the argument, what it must be and what it is.
    """
    check_fields(model, MODEL_RANGES, skipped=OF_TRL)
    targets: Any = model.lora_target_modules
    listed = targets if isinstance(targets, list) else [targets]  # TRL takes the name out of a list of one
    if targets is not None and not all(isinstance(name, str) for name in listed):
        raise value_error("lora_target_modules", "a list of texts or a text", model.lora_target_modules)
    given = [
        field.name
        for field in dataclasses.fields(model)
        if field.name.startswith(("lora_", "use_dora", "use_rslora")) and getattr(model, field.name) != field.default
    ]
    if given and not model.use_peft:  # no refusal: a recipe has them, and the command line may say use_peft false
        logger.warning(f"All weights are trained: without use_peft, {', '.join(given)} have no effect.")
    known = vars(torch).items()
    dtypes = [name for name, value in known if isinstance(value, torch.dtype) and value.is_floating_point]
    require_choice("dtype", "auto" if model.dtype is None else model.dtype, ("auto", *dtypes))
