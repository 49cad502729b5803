"""Profiles: what rows look like to something that never saw them, per token of the run's own."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ...data.token_arrays import is_target, token_arrays
from ...errors import input_error
from ...model.loading import loading
from ...model.score_rows import RowLogps
from .ngram import NGram
from .ngram_columns import FOUR, ORDERS, ngram_columns

# Of the run's own from_pretrained arguments, those that mean something for another model.
_SHARED = ("dtype", "trust_remote_code", "token", "attn_implementation")


@dataclass(frozen=True)
class Profile:
    """What N rows look like, nats per token.

    Attributes:
        rows: mean NLL of the answer of each row, [N].
        lengths: answer tokens of each row, [N].
        tokens: numbers of each answer token, row after row, [T, C] (`ngram_columns`); None where there are none.
    """

    rows: np.ndarray
    lengths: np.ndarray
    tokens: np.ndarray | None = None

    @classmethod
    def of_tokens(cls, logps: RowLogps) -> "Profile":
        """From log-probs of the answer tokens themselves."""
        return cls(logps.nll_per_token().numpy(), logps.lengths.numpy())

    @classmethod
    def of_text(cls, logps: RowLogps, lengths: Tensor) -> "Profile":
        """From log-probs of the same answers in other tokens: their NLL over as many tokens as the run has of them.

        Args:
            logps: in the tokens of another tokenizer.
            lengths: answer tokens of the same rows in the run's, [N].
        """
        return cls((logps.nll_per_token() * logps.lengths / lengths).numpy(), lengths.numpy())

    @classmethod
    def flat(cls, lengths: Tensor) -> "Profile":
        """Of rows that all look the same."""
        return cls(np.zeros(len(lengths)), lengths.numpy())

    def select(self, places: Sequence[int]) -> "Profile":
        """Of some of the rows, by their places."""
        tokens = self.tokens
        if tokens is not None:
            parts = np.split(tokens, self.lengths.cumsum()[:-1])
            tokens = np.concatenate([parts[place] for place in places])
        return Profile(self.rows[list(places)], self.lengths[list(places)], tokens)


def answer_lengths(rows: Iterable[Mapping[str, Any]]) -> Tensor:
    """Answer tokens of each tokenised row, [N]."""
    return torch.tensor([int(is_target(labels).sum()) for _, labels in token_arrays(rows)])


def ngram_logps(ngram: NGram, rows: Any) -> RowLogps:
    """Log-probs of the answer tokens of tokenised rows under an n-gram of others."""
    ids, labels = zip(*token_arrays(rows), strict=True)
    answers = np.concatenate([is_target(own) for own in labels])
    return RowLogps(torch.from_numpy(ngram.logps(ids)[answers]).float(), answer_lengths(rows))


def ngram_profile(logps_of: Callable[[int], RowLogps], rows: Any) -> Profile:
    """Of each row the mean under the 4-gram, and what n-grams and the row itself say of each token.

    Args:
        logps_of: from the order of an n-gram to log-probs of the answer tokens of the rows under it.
        rows: tokenised.
    """
    by_order = [logps_of(order) for order in ORDERS]
    columns = ngram_columns([-logps.logps.double().numpy() for logps in by_order], rows)
    return replace(Profile.of_tokens(by_order[FOUR]), tokens=columns)


def load_profile_model(name: str, init_kwargs: Mapping[str, Any], rows: Iterable[Any]) -> PreTrainedModel:
    """The causal language model that profiles rows, in fp32 unless the run's model has another dtype.

    Args:
        name: folder or id.
        init_kwargs: of the run's model.
        rows: sets of tokenised rows that it must have positions for.
    """
    options = {"dtype": "float32"} | {key: init_kwargs[key] for key in _SHARED if key in init_kwargs}
    with loading(name):
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(name, **options)
    model.requires_grad_(False)
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max(len(ids) for part in rows for ids, _ in token_arrays(part))
    if positions is not None and longest > positions:
        raise input_error(
            expected=f"levels to name a model with positions for the longest row ({longest} tokens)",
            got=f"one of {positions}",
            why="it cannot score that row",
            fix="name another model, or set a lower max_length",
        )
    return model.eval()


def same_tokens(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether two tokenizers have the same tokens under the same ids, but for those that were added to one of them."""
    added = {*one.get_added_vocab(), *other.get_added_vocab()}
    first, second = one.get_vocab(), other.get_vocab()
    plain = [{token: ids[token] for token in ids if token not in added} for ids in (first, second)]
    shared = first.keys() & second.keys() & added
    return plain[0] == plain[1] and all(first[token] == second[token] for token in shared)
