"""Scores made of literal numbers, as losses are given them, shared by tests. No model; nothing is asserted here."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hf_unlearn.losses import FORGET_LOSSES, RETAIN_LOSSES, Loss
from hf_unlearn.scoring import RowScores, Scores

# Every loss by its side and name, "jsd" being the name of two.
LOSSES: dict[str, type[Loss]] = {f"forget/{name}": loss for name, loss in FORGET_LOSSES.items()} | {
    f"retain/{name}": loss for name, loss in RETAIN_LOSSES.items()
}


def rows(
    logps: Tensor | None = None,
    *,
    token_ids: Sequence[int] | Tensor = (),
    lengths: Sequence[int] | None = None,
    logits: Tensor | None = None,
    hidden: dict[float, Tensor] | None = None,
    reference: RowScores | None = None,
) -> RowScores:
    """Answer tokens of one row, or of rows of so many tokens each; what is not given is zero, or absent."""
    hidden = hidden or {}
    tokens = next(len(each) for each in (logps, logits, *hidden.values()) if each is not None)
    lengths = [tokens] if lengths is None else list(lengths)
    index = torch.arange(len(lengths))
    return RowScores(
        logps=torch.zeros(tokens) if logps is None else logps,
        token_ids=torch.as_tensor(token_ids) if len(token_ids) else torch.zeros(tokens, dtype=torch.long),
        lengths=torch.tensor(lengths),
        source=index,
        row=index,
        logits=logits,
        hidden=hidden,
        reference=reference,
    )


def forget(*args: Any, **kwargs: Any) -> Scores:
    """Scores of forget rows alone."""
    return Scores(forget=rows(*args, **kwargs))


def retain(*args: Any, **kwargs: Any) -> Scores:
    """Scores of retain rows alone."""
    return Scores(retain=rows(*args, **kwargs))


def double(values: Any) -> Tensor:
    """A literal in fp64."""
    return torch.tensor(values, dtype=torch.float64)


def random_logits(tokens: int, vocabulary: int, scale: float = 3.0, seed: int = 0) -> Tensor:
    """Logits [T, V] in fp32, the same for the same arguments."""
    return scale * torch.randn(tokens, vocabulary, generator=torch.Generator().manual_seed(seed))


def random_targets(tokens: int, vocabulary: int, seed: int = 0) -> Tensor:
    """Answer tokens [T], the same for the same arguments."""
    return torch.randint(vocabulary, (tokens,), generator=torch.Generator().manual_seed(seed))
