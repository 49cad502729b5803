"""A suppression of logits as a processor of logits, for those who call `generate` themselves."""

import torch
from torch import Tensor
from transformers import LogitsProcessor

from ..model.suppressed_forward import Suppresses, Text


class SuppressionProcessor(LogitsProcessor):
    """Changes the logits of the next token as the suppressor does inside a model's forward.

    It has to come before processors that cut logits off. The mask is read off the ids: padding is what a row starts
    with.

    Args:
        suppressor: of logits.
        pad_token_id: what prompts are padded with on the left; None where they are not padded.
    """

    def __init__(self, suppressor: Suppresses, pad_token_id: int | None) -> None:
        self._suppressor, self._pad = suppressor, pad_token_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        mask = torch.ones_like(input_ids)
        if self._pad is not None:
            mask = (input_ids != self._pad).long().cummax(1).values
        ends = torch.arange(1, len(input_ids) + 1, device=input_ids.device) * input_ids.shape[1] - 1
        return self._suppressor.change(scores, Text(input_ids, mask, input_ids.shape[1]), ends)
