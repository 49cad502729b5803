"""Tokens put into prompts: where they go, and batches of such rows whose embeddings an attack chooses."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..data.batch import Batch, indexed
from ..data.tokenized_row import IGNORED_LABEL, TokenizedRow, answer_start, prompt_ids
from ..model.forward_patching import replaced_output
from .blocks import batches, mean_logps, on_device
from .prompt_parts import Scaffold
from .rows import AttackedRows
from .target import Target

SHARE = 0.25  # of the rows that an attacker is given; as many of the half for tuning are left to choose by


def start_place(row: TokenizedRow, tokenizer: PreTrainedTokenizerBase) -> int:
    """Where a prompt starts: behind the token that begins a text, where the row has one."""
    ids = row["input_ids"]
    return int(len(ids) > 0 and tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id)


def said_end_places(rows: AttackedRows, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Where what the user says ends in each row: before the scaffold that ends all prompts, if any."""
    prompts = [prompt_ids(row) for row in rows.rows]
    scaffold = Scaffold.of(tokenizer, [*prompts, *(prompt_ids(row) for row in rows.retain)])
    return [len(prompt) - len(scaffold.parts(prompt).after) for prompt in prompts]


@dataclass(frozen=True)
class Insertion:
    """Rows with room for tokens in their prompts.

    Attributes:
        rows: [N], each with `count` tokens more, none of which is answer.
        places: [N] where they start.
        count: of the tokens.
    """

    rows: Sequence[TokenizedRow]
    places: Tensor
    count: int

    @classmethod
    def of(cls, rows: Sequence[TokenizedRow], places: Sequence[int], ids: Sequence[int]) -> "Insertion":
        """Rows with token ids put in at their places."""
        return cls(
            [_inserted(row, at, ids) for row, at in zip(rows, places, strict=True)], torch.tensor(places), len(ids)
        )

    def select(self, chosen: Sequence[int]) -> "Insertion":
        """Some of the rows."""
        return Insertion([self.rows[place] for place in chosen], self.places[list(chosen)], self.count)

    def columns(self) -> Tensor:
        """Where the tokens are in a batch of all rows, [N, count]."""
        return self.places[:, None] + torch.arange(self.count)

    def batch(self, target: Target) -> Batch:
        """All rows as one batch, on the device."""
        return on_device(target, indexed(target.collator.collate_rows(list(self.rows))))


def chosen_embeddings(
    embedding: nn.Module, vectors: Tensor, columns: Tensor, shape: Sequence[int]
) -> AbstractContextManager[None]:
    """Inside, the embedding of a batch [B, L] has vectors [n, H], or [B, n, H], at columns [B, n]."""
    lines = torch.arange(len(columns))[:, None]

    def put(embedded: Tensor) -> Tensor:
        if embedded.shape[:2] != torch.Size(shape):  # the head asks what becomes of known numbers, in another forward
            return embedded
        places = (lines.to(embedded.device), columns.to(embedded.device))
        return embedded.index_put(places, vectors.to(embedded).expand(*columns.shape, -1))

    return replaced_output(embedding, put)


def probabilities_with(target: Target, insertion: Insertion, vectors: Tensor) -> NDArray[np.float64]:
    """exp(-nll per token) of each answer behind chosen vectors in the prompt, [N]."""
    leak = np.empty(len(insertion.rows))
    for places, batch in batches(target, insertion.rows):
        columns = insertion.select(places).columns()
        with chosen_embeddings(embedding_of(target.model), vectors, columns, batch["input_ids"].shape):
            leak[places] = np.exp(mean_logps(target.model, batch))
    return leak


def embedding_of(model: Any) -> nn.Module:
    """The module that turns token ids into vectors."""
    module: nn.Module = model.get_input_embeddings()
    return module


def vocabulary(model: Any) -> int:
    """How many token ids have a vector."""
    return len(embedding_of(model).weight)  # type: ignore[arg-type]


def minibatches(given: Sequence[int], size: int, seed: int) -> Callable[[], list[int]]:
    """Draws of some of the given rows; all of them where they are no more."""
    generator = np.random.default_rng(seed)

    def draw() -> list[int]:
        if len(given) <= size:
            return list(given)
        return sorted(int(place) for place in generator.choice(np.array(given), size, replace=False))

    return draw


def hidden_from_score(leak: NDArray[np.float64], given: Sequence[int]) -> NDArray[np.float64]:
    """A leak with NaN where the attacker was given the row."""
    shown = leak.copy()
    shown[list(given)] = np.nan
    return shown


def unfit_for_insertion(target: Target, rows: AttackedRows, count: int) -> str | None:
    """Why tokens cannot be put into the prompts and tuned, as the end of a sentence; None where they can."""
    if rows.tuned.sum() < 2:
        return "it needs two rows for tuning: one to learn from, one to choose by"
    room = getattr(target.model.config.get_text_config(), "max_position_embeddings", None)
    longest = max(len(row["input_ids"]) for row in rows.rows)
    if room is not None and longest + count > room:
        return f"the model's {room} positions leave no room for {count} more tokens in rows of {longest}"
    return None


def _inserted(row: TokenizedRow, place: int, ids: Sequence[int]) -> TokenizedRow:
    tokens, labels = list(row["input_ids"]), list(row["labels"])
    return {
        "input_ids": [*tokens[:place], *ids, *tokens[place:]],
        "labels": [*labels[:place], *([IGNORED_LABEL] * len(ids)), *labels[place:]],
        "answer_start": answer_start(row) + len(ids),
    }
