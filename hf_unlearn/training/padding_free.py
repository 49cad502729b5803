"""Training batches without padding: which rows are joined, and which models and runs can have such batches."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from peft import PeftModel
from torch import Tensor
from transformers.utils import logging

from ..data.collator import DataCollatorForUnlearning
from ..errors import input_error
from ..steps import PerturbsHiddenStates
from .config import UnlearningConfig

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class PairsWithoutPadding:
    """A collator of both kinds of rows that Trainer loads: paired ones are trained without padding.

    Rows of evaluation sets come alone and are padded, as Trainer's loop puts their logits together by position.

    Args:
        collator: pads rows.
    """

    collator: DataCollatorForUnlearning

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        paired = "retain" in items[0]  # a pair has the key for no retain row too
        return replace(self.collator, padding_free=paired)(items)


def require_own_collator(args: UnlearningConfig, attacks: Sequence[PerturbsHiddenStates], data_collator: Any) -> None:
    """Raise where batches without padding, or cut by tokens, are asked for and what makes or reads them cannot."""
    if args.max_tokens_per_batch is not None and data_collator is not None:
        raise input_error(
            expected="max_tokens_per_batch without a data_collator of your own",
            got="both",
            why="only the package's own collator is known to make a batch of some rows of a pair",
            fix="leave one of them out; train_sampling_strategy='group_by_length' keeps padding short too",
        )
    if not args.padding_free:
        return
    if data_collator is not None or attacks:
        other = "a data_collator of your own" if data_collator is not None else attacks[0].name
        raise input_error(
            expected=f"padding_free without {other}",
            got="both",
            why="it pads rows" if data_collator is not None else "it perturbs hidden states row by row",
            fix="leave one of them out",
        )


def require_padding_free(model: Any, longest_line: int) -> None:
    """Raise for a model that cannot have rows in one line; warn where that costs a square.

    Args:
        model: not wrapped.
        longest_line: tokens that the rows of one batch can have.
    """
    fault = fault_of_line(model, longest_line)
    if fault is not None:
        raise fault
    attention = model.config.get_text_config()._attn_implementation or ""
    if "flash" not in attention and attention != "flex_attention":
        logger.warning(
            f"padding_free with attention of kind {attention!r}: it computes a square of all tokens of a batch. With "
            "model_init_kwargs={'attn_implementation': 'flash_attention_2'} (or 'flex_attention') only rows cost."
        )


def fault_of_line(model: Any, longest_line: int) -> ValueError | None:
    """Why a model cannot have rows in one line, as an error; None where it can, as far as its code says."""
    owner = model.get_base_model() if isinstance(model, PeftModel) else model
    if "position_ids" not in inspect.signature(owner.forward).parameters or owner._is_stateful:
        return input_error(
            expected="a model that knows rows apart by position_ids, for padding_free",
            got=type(owner).__name__,
            why="a row would see the one before it",
            fix="set padding_free=False; train_sampling_strategy='group_by_length' keeps padding short",
        )
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    # GPT-Neo and others of its time hold a causal mask [1, 1, P, P], into which a longer line does not fit.
    square = any(buffer.ndim >= 2 and buffer.shape[-2:] == (positions, positions) for buffer in owner.buffers())
    if positions is None or not square or longest_line <= positions:
        return None
    return input_error(
        expected=f"batches of at most {positions} tokens, for padding_free with {type(owner).__name__}",
        got=f"batches of up to {longest_line} (the longest row times the rows of a batch)",
        why="the model holds a causal mask of that size, and a run would fail at the first batch beyond it",
        fix="lower per_device_train_batch_size or max_length, or set padding_free=False",
    )
