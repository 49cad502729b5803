"""Scores made of literal numbers, as losses are given them, shared by tests. No model; nothing is asserted here."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_unlearn.data import Role
from hf_unlearn.distributions import DenseLogits, Placed, Reading, read_positions, split_values
from hf_unlearn.losses import FORGET_LOSSES, RETAIN_LOSSES, DistributionLoss, Loss
from hf_unlearn.scoring import RowScores, Scores

# Every loss by its side and name, "jsd" being the name of two.
LOSSES: dict[str, type[Loss]] = {f"forget/{name}": loss for name, loss in FORGET_LOSSES.items()} | {
    f"retain/{name}": loss for name, loss in RETAIN_LOSSES.items()
}


def token_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """log softmax(z_t)[y_t]: [T, V], [T] -> [T]."""
    return read_positions(logits, targets, DenseLogits(), (), (), logits.shape[1])


@dataclass(frozen=True)
class ReadOf(Mapping[Any, Tensor]):
    """What any loss reads of literal logits [T, V], read when it is asked for."""

    logits: Tensor
    token_ids: Tensor
    reference: Tensor | None

    def __getitem__(self, loss: DistributionLoss) -> Tensor:
        before = None if self.reference is None else DenseLogits(self.reference.detach())
        reading = Reading(loss, Role.FORGET, loss.at_positions, loss.slope, before)
        placed = [Placed(reading, slice(0, len(self.logits)))]
        source, vocabulary = DenseLogits(), self.logits.shape[1]
        flat = read_positions(self.logits, self.token_ids, source, placed, (), vocabulary)
        return split_values(flat, len(self.logits), placed)[1][Role.FORGET, loss]

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0


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
    token_ids = torch.as_tensor(token_ids) if len(token_ids) else torch.zeros(tokens, dtype=torch.long)
    before = None if reference is None or reference.logits is None else reference.logits.tensor
    return RowScores(
        logps=torch.zeros(tokens) if logps is None else logps,
        token_ids=token_ids,
        lengths=torch.tensor(lengths),
        source=index,
        row=index,
        values={} if logits is None else ReadOf(logits, token_ids, before),
        logits=None if logits is None else DenseLogits(logits),
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
