"""Asks models that this process holds whole, without an accelerator: likelihoods of rows, answers to prompts."""

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from ..data.collator import DataCollatorForUnlearning
from ..data.tokenized_row import TokenizedRow
from ..data.turns import AnswerEnds
from ..model.score_rows import RowLogps, RowScorer
from .decoding import Decoding
from .generation import answer_batches
from .stop_rule import StopRule


@dataclass(frozen=True)
class OneProcess:
    """This process alone, as scoring and answering ask an accelerator: ranks do not share the work."""

    device: torch.device
    num_processes: int = 1
    process_index: int = 0
    is_local_main_process: bool = False  # no bars of single batches: what asks has one of its own

    def unwrap_model(self, model: Any) -> Any:
        """The model, which nothing wraps."""
        return model

    def autocast(self) -> AbstractContextManager[None]:
        """Models calculate in the type of their weights."""
        return contextlib.nullcontext()


@dataclass(frozen=True)
class Questioner:
    """How models are asked; they are left as they are, whatever mode they are in.

    Attributes:
        tokenizer: of the models, with a padding token.
        ends: what ends an answer beside the tokenizer's end-of-text token.
        batch_size: rows of a forward.
        seed: of what is drawn.
    """

    tokenizer: PreTrainedTokenizerBase
    ends: AnswerEnds = field(default_factory=AnswerEnds)
    batch_size: int = 32
    seed: int = 0

    @property
    def collator(self) -> DataCollatorForUnlearning:
        """Of rows into batches."""
        return DataCollatorForUnlearning(self.tokenizer.pad_token_id)

    def scores(self, model: Any, rows: Sequence[TokenizedRow]) -> RowLogps:
        """Log-probabilities of the answer tokens of all rows, nats."""
        return RowScorer(self.collator, OneProcess(model.device), self.batch_size)(model, rows, "likelihoods")

    def logps(self, model: Any, rows: Sequence[TokenizedRow]) -> list[NDArray[np.float64]]:
        """The same, row by row."""
        scores = self.scores(model, rows)
        return [part.double().numpy() for part in scores.logps.split(scores.lengths.tolist())]

    def nll(self, model: Any, rows: Sequence[TokenizedRow]) -> NDArray[np.float64]:
        """NLL per answer token of each row, nats, [N]."""
        return -np.array([logps.mean() for logps in self.logps(model, rows)])

    def answers(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
        seeds: Sequence[int] | None = None,
        ended: bool = False,
    ) -> list[list[int]]:
        """Token ids of an answer to each prompt, in order.

        Args:
            model: that answers.
            prompts: token ids. Equal prompts get equal draws: ask again with another seed, or give each its own.
            max_new_tokens: longest answer.
            temperature: 0 for the likeliest token each time.
            seed: of the draws; the questioner's if None.
            seeds: one for each prompt, in place of `seed`.
            ended: leave what ends an answer at its end, where the model said it.
        """
        decoding = Decoding(max_new_tokens, temperature, self.seed if seed is None else seed, seeds)
        stop, process = StopRule.of(model, self.tokenizer, self.ends), OneProcess(model.device)
        answers: list[list[int]] = [[] for _ in prompts]
        order = range(len(prompts))
        for places, batch in answer_batches(
            model, stop, prompts, order, process, decoding, self.batch_size, "answers"
        ):
            for place, ids in zip(places, batch, strict=True):
                answers[place] = ids if ended else stop.strip(ids)
        return answers

    def text(self, ids: Sequence[int]) -> str:
        """Token ids as text, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))
