"""Training batches without padding: which rows are joined, and which models and runs can have such batches."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from peft import PeftModel
from torch import Tensor, nn
from transformers.utils import logging

from ..data.batch import indexed
from ..data.collator import DataCollatorForUnlearning
from ..data.pairing import is_stream, read_rows
from ..errors import input_error
from ..model.output_head import output_head
from ..model.score_rows import RowScorer, evaluation_mode
from ..model.scoring import score_answers
from ..model.sharding import reshard
from ..steps import PerturbsHiddenStates
from .config import UnlearningConfig

logger = logging.get_logger(__name__)

# Nats per token: what rounding may do, and how often more than to the first row, before which nothing stands.
_TOLERANCE, _TIMES = 1e-3, 4


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
    """Raise where batches without padding are asked for, and what makes or reads the batches cannot do without."""
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


def require_padding_free(model: Any, args: UnlearningConfig) -> None:
    """Raise for a model whose attention cannot keep rows of one line apart; warn where that costs a square."""
    owner = model.get_base_model() if isinstance(model, PeftModel) else model
    if "position_ids" not in inspect.signature(owner.forward).parameters or owner._is_stateful:
        raise input_error(
            expected="a model that knows rows apart by position_ids, for padding_free",
            got=type(owner).__name__,
            why="a row would see the one before it",
            fix="set padding_free=False; train_sampling_strategy='group_by_length' keeps padding short",
        )
    attention = model.config.get_text_config()._attn_implementation or ""
    if "flash" not in attention and attention != "flex_attention":
        logger.warning(
            f"padding_free with attention of kind {attention!r}: it computes a square of all tokens of a batch. With "
            "model_init_kwargs={'attn_implementation': 'flash_attention_2'} (or 'flex_attention') only rows cost."
        )


def require_rows_apart(model: nn.Module, rows: Any, scorer: RowScorer) -> None:
    """Raise unless the model gives two rows the same log-probs in one line as padded.

    Args:
        model: wrapped as it may be; every rank calls it.
        rows: tokenised.
        scorer: of the run.
    """
    first_rows = list(islice(rows, 2)) if is_stream(rows) else read_rows(rows, range(min(2, len(rows))))
    two = (first_rows * 2)[:2]  # a set of one row meets itself
    head = output_head(scorer.accelerator.unwrap_model(model))
    logps = []  # padded, then joined
    for padding_free in (False, True):
        batch = indexed(replace(scorer.collator, padding_free=padding_free).collate_rows(two))
        batch = {key: value.to(scorer.accelerator.device) for key, value in batch.items()}
        with evaluation_mode(model), scorer.accelerator.autocast():
            scores, _ = score_answers(model, head, batch)
        logps.append(scores.logps)
    reshard(model)
    first = int(scores.lengths[0])
    difference = (logps[0] - logps[1]).abs()
    allowed = max(_TOLERANCE, _TIMES * float(difference[:first].mean()))
    later = float(difference[first:].mean()) if len(difference) > first else 0.0
    if not later <= allowed:
        raise input_error(
            expected="the same log-probs of rows with and without padding",
            got=f"a mean difference of {later:.3g} nats per token in a row with another before it",
            why="the model does not keep the rows of one line apart",
            fix="set padding_free=False, or another attn_implementation",
        )
