"""Where a generated answer ends: at a token, or at a text of several tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from ..data.turns import AnswerEnds


def generation_holders(model: Any) -> list[Any]:
    """The models that hold generation settings: a PeftModel hands its own to its base at every call."""
    return [model, model.get_base_model()] if isinstance(model, PeftModel) else [model]


@dataclass(frozen=True)
class StopRule:
    """What ends an answer, and the answer without it.

    Attributes:
        tokenizer: of the model.
        ends: tokens and texts.
    """

    tokenizer: PreTrainedTokenizerBase
    ends: AnswerEnds

    @classmethod
    def of(cls, model: Any, tokenizer: PreTrainedTokenizerBase, ends: AnswerEnds) -> "StopRule":
        """The ends of the rows, the tokenizer's end of text, and those of the model's own settings."""
        own = generation_holders(model)[-1].generation_config.eos_token_id
        listed = own if isinstance(own, list) else [own]
        tokens = (tokenizer.eos_token_id, *(token for token in listed if token is not None))
        return cls(tokenizer, ends | AnswerEnds(tokens))

    def ends_in(self, ids: Sequence[int]) -> bool:
        """Whether the end of an answer is among some tokens of it."""
        return any(token in self.ends.tokens for token in ids) or self._text_end(ids) is not None

    def until(self, ids: list[int]) -> list[int]:
        """An answer up to what ends it, which stays: it is the model's own word."""
        place = next((i for i, token in enumerate(ids) if token in self.ends.tokens), len(ids) - 1)
        ids = ids[: place + 1]
        if self._text_end(ids) is None:
            return ids
        return next(ids[:n] for n in range(1, len(ids) + 1) if self._text_end(ids[:n]) is not None)

    def strip(self, ids: Sequence[int]) -> list[int]:
        """An answer without what ends it."""
        ids = list(ids)
        ids = ids[:-1] if ids and ids[-1] in self.ends.tokens else ids
        end = self._text_end(ids)
        if end is None:
            return ids
        kept = (n for n in range(len(ids), 0, -1) if len(self.tokenizer.decode(ids[:n])) <= end)
        return ids[: next(kept, 0)]

    def criteria(self, starts: Sequence[int]) -> StoppingCriteriaList:
        """What stops `generate` at an end that is text; tokens are its own `eos_token_id`.

        Args:
            starts: where in each row of the batch the answer begins.
        """
        return StoppingCriteriaList([_EndsInText(self, starts)] if self.ends.texts else [])

    def _text_end(self, ids: Sequence[int]) -> int | None:
        """Where the first end begins in an answer's text; None without one."""
        if not self.ends.texts:
            return None
        text = self.tokenizer.decode(ids)
        return min((place for end in self.ends.texts if (place := text.find(end)) >= 0), default=None)


class _EndsInText(StoppingCriteria):
    """Stops an answer of a batch in whose last tokens the text of an end has come."""

    def __init__(self, stop: StopRule, starts: Sequence[int]) -> None:
        self._stop, self._starts = stop, starts
        # A token has at least a byte; a few more, as the end may begin inside one.
        self._tokens = max(len(text.encode()) for text in stop.ends.texts) + 8

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Any:
        before = max(0, input_ids.shape[1] - self._tokens)
        last = input_ids[:, before:].tolist()
        answers = [ids[max(0, start - before) :] for ids, start in zip(last, self._starts, strict=True)]
        ended = [self._stop._text_end(ids) is not None for ids in answers]
        return torch.tensor(ended, device=input_ids.device)
