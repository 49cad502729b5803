"""Hidden states of a model under attack: which blocks it has, and what they put out at chosen positions."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..data.batch import Batch, indexed
from ..data.tokenized_row import TokenizedRow
from ..model.hidden_states import HiddenStateCapture, decoder_blocks
from ..model.output_head import output_head
from ..model.score_rows import evaluation_mode
from ..model.scoring import score_answers
from .target import Target


def batches(target: Target, rows: Sequence[TokenizedRow]) -> Iterator[tuple[list[int], Batch]]:
    """Rows batch by batch on the target's device, the longest first, each with the places of its rows."""
    order = sorted(range(len(rows)), key=lambda place: -len(rows[place]["input_ids"]))
    for start in range(0, len(order), target.batch_size):
        places = order[start : start + target.batch_size]
        yield places, on_device(target, indexed(target.collator.collate_rows([rows[place] for place in places])))


def on_device(target: Target, batch: Batch) -> Batch:
    """A batch where the model is."""
    return {name: value.to(target.device) for name, value in batch.items()}


def no_blocks(model: Any) -> str | None:
    """Why hidden states cannot be read block by block, as the end of a sentence; None where they can."""
    try:
        blocks = decoder_blocks(model)
    except ValueError:
        return "the model has no one list of decoder blocks"
    ids = torch.zeros((1, 2), dtype=torch.long, device=model.device)
    capture = HiddenStateCapture(blocks, frozenset([float(len(blocks))]))
    with evaluation_mode(model), capture.capture() as states:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    if any(hidden.shape[:-1] != ids.shape for hidden in states.values()) or not states:
        return "the model's blocks put out more than one hidden state a token"
    return None


def from_the_top(blocks: nn.ModuleList, every: int) -> list[int]:
    """Numbers of blocks, the last first and then each so many below it."""
    return list(range(len(blocks), 0, -every))


def hidden_states(model: Any, batch: Batch, layers: Sequence[int]) -> dict[int, Tensor]:
    """What blocks put out in a forward of a batch: by layer [B, L, H]. The head is asked for answer tokens alone."""
    capture = HiddenStateCapture(decoder_blocks(model), frozenset(map(float, layers)))
    with evaluation_mode(model), capture.early_exit(), capture.capture() as states:
        score_answers(model, output_head(model), batch)
    return {int(layer): hidden for layer, hidden in states.items()}


def mean_logps(model: Any, batch: Batch) -> NDArray[np.float64]:
    """Mean log-probability of the answer tokens of each row of a batch, [B], nats."""
    with evaluation_mode(model):
        scores, _ = score_answers(model, output_head(model), batch)
    return np.array([float(logps.double().mean()) for logps in scores.logps.cpu().split(scores.lengths.tolist())])
