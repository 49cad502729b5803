"""The model that an attack tries, and what it is asked: likelihoods, answers, a copy of its weights."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.collator import DataCollatorForUnlearning
from ..data.tokenized_row import TokenizedRow
from ..data.turns import AnswerEnds
from ..evaluation.questioner import OneProcess, Questioner
from ..model.merging import merge
from ..model.suppressed_forward import suppressed_forward

UTILITY_ROWS = 64


@dataclass
class Target:
    """A model under attack.

    Attributes:
        model: whole, on its device, in evaluation mode; attacks leave it as it is.
        tokenizer: of the model.
        before: the model before unlearning, for attackers who have it; None where there is none.
        oracle: the model retrained without the rows, for measures that no attacker could take; None without one.
        retain: rows that utility is measured on.
        ends: what ends an answer beside the tokenizer's end-of-text token.
        judge: flags answers that show the behaviour, as `hf_unlearn.evaluation.Judge`; None for overlap with the
            row's own answer.
        batch_size: rows of a forward.
        seed: of everything that is drawn.
    """

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    before: PreTrainedModel | PeftModel | None = None
    oracle: PreTrainedModel | PeftModel | None = None
    retain: Sequence[TokenizedRow] = ()
    ends: AnswerEnds = field(default_factory=AnswerEnds)
    judge: Callable[..., Any] | None = None
    batch_size: int = 32
    seed: int = 0

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @cached_property
    def questioner(self) -> Questioner:
        """How models are asked."""
        return Questioner(self.tokenizer, self.ends, self.batch_size, self.seed)

    @cached_property
    def process(self) -> Any:
        """In place of an accelerator."""
        return OneProcess(self.device)

    @cached_property
    def collator(self) -> DataCollatorForUnlearning:
        """Of rows into batches."""
        return self.questioner.collator

    def weights_copy(self) -> PreTrainedModel:
        """A copy of the model for an attack to change: adapter merged, fp32, all weights trainable, no dropout.

        What suppresses answers at inference is off: whoever can change weights calls them as they are.
        """
        model = copy.deepcopy(self.model)
        forward = suppressed_forward(model)
        if forward is not None:
            forward.leave()
        whole = merge(model) if isinstance(model, PeftModel) else model
        return whole.float().requires_grad_(True).eval()

    def logps(self, rows: Sequence[TokenizedRow], model: Any = None) -> list[NDArray[np.float64]]:
        """Log-probabilities of the answer tokens of each row, nats; of another model where one is given."""
        return self.questioner.logps(self.model if model is None else model, rows)

    def probabilities(self, rows: Sequence[TokenizedRow], model: Any = None) -> NDArray[np.float64]:
        """exp(-nll per token) of each row's answer, [N]."""
        return np.exp([logps.mean() for logps in self.logps(rows, model)])

    def utility(self, model: Any = None) -> float:
        """Mean answer probability of the first retain rows; NaN without such rows."""
        rows = self.retain[:UTILITY_ROWS]
        return float(self.probabilities(rows, model).mean()) if len(rows) else float("nan")

    def answers(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
        model: Any = None,
    ) -> list[list[int]]:
        """Token ids of an answer to each prompt, as `Questioner.answers`; of another model where one is given."""
        return self.questioner.answers(
            self.model if model is None else model,
            prompts,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
        )

    def text(self, ids: Sequence[int]) -> str:
        """Token ids as text, without special tokens."""
        return self.questioner.text(ids)
