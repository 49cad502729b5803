"""Logit lens and tuned lens: what answers a model's lower layers hold, read through its own norm and head."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..data.batch import answer_index
from ..data.tokenized_row import TokenizedRow
from ..model.forward_patching import hidden_of, output_hooks, replaced_output, skipped_blocks
from ..model.hidden_states import decoder_blocks
from .base import Attack, Leak, Threat
from .blocks import batches, from_the_top, hidden_states, no_blocks
from .rows import AttackedRows
from .target import Target


@dataclass(frozen=True)
class _Lens(Attack):
    """A lens: the answer's probability where the final norm and the head read a lower layer.

    Args:
        every: each so many layers, from the last one down. The last is the model itself.
    """

    every: int = 1

    name = "lens"
    threat = Threat.WEIGHTS

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("every", self.every >= 1, "1 or above")

    def unfit(self, target: Target, rows: AttackedRows) -> str | None:
        return no_blocks(target.model)

    def run(self, target: Target, rows: AttackedRows) -> Iterable[Leak]:
        blocks = decoder_blocks(target.model)
        for layer in from_the_top(blocks, self.every):
            translate = self.translator(target, rows, layer) if layer < len(blocks) else None
            with read_through(blocks, layer, translate):
                leak = target.probabilities(rows.rows)
            yield Leak({"layer": layer}, leak)

    def translator(self, target: Target, rows: AttackedRows, layer: int) -> Callable[[Tensor], Tensor] | None:
        """What turns hidden states of a layer into such as the final norm expects; None to leave them."""
        return None


@dataclass(frozen=True)
class LogitLens(_Lens):
    """Probability of the answer where the final norm and the head read the output of a lower block.

    Unlearning that changes the last blocks alone leaves the answer to be read below them. No norm is looked for: the
    blocks above hand on what they are given, and the rest of the model runs as ever.

    Args:
        every: each so many layers, from the last one down. The last is the model itself.

    Paper: nostalgebraist 2020, https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru.
    """

    name = "logit_lens"
    formula = "exp(mean log p(y)), logits = head(norm(h_l))"
    paper = "nostalgebraist 2020"
    cost = "a forward of all rows a layer"


@dataclass(frozen=True)
class TunedLens(_Lens):
    """The logit lens with an affine map a layer, fitted on retain rows, before the final norm.

    h_n ~ h_l + (h_l - m) W + b, least squares with a ridge on W at the positions that answer tokens of the retain rows
    are predicted from: with an infinite ridge it is the logit lens but for the mean. Belrose et al. fit the
    distributions by gradient; least squares have one solution, which any machine finds.

    Args:
        every: each so many layers, from the last one down. The last is the model itself.
        ridge: of W, in units of the mean variance of h_l; above 0.
        tokens: answer tokens of retain rows that the map is fitted on, at most.

    Paper: Belrose et al. 2023, https://arxiv.org/abs/2303.08112.
    """

    ridge: float = 0.01
    tokens: int = 8192

    name = "tuned_lens"
    formula = "exp(mean log p(y)), logits = head(norm(A_l h_l + b_l))"
    paper = "Belrose et al. 2023, arXiv:2303.08112"
    given = "the prompts and retain rows"
    cost = "a forward of all rows and of some retain rows a layer, and a system of equations as wide as the model"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("ridge")
        self.require("tokens", self.tokens >= 2, "2 or above")

    def unfit(self, target: Target, rows: AttackedRows) -> str | None:
        return super().unfit(target, rows) or (None if rows.retain else "there are no retain rows to fit the maps on")

    def translator(self, target: Target, rows: AttackedRows, layer: int) -> Callable[[Tensor], Tensor]:
        return fit_translator(*self._pairs(target, rows.retain, layer), self.ridge)

    def _pairs(self, target: Target, rows: Sequence[TokenizedRow], layer: int) -> tuple[Tensor, Tensor]:
        """Hidden states of a layer and of the last one, [T, H] each, as whole batches up to the number of tokens."""
        last = len(decoder_blocks(target.model))
        pairs: list[tuple[Tensor, Tensor]] = []
        for _, batch in batches(target, rows):
            positions = answer_index(batch).positions
            states = hidden_states(target.model, batch, (layer, last))
            low, high = (states[number].flatten(0, 1)[positions].cpu() for number in (layer, last))
            pairs.append((low, high))
            if sum(len(low) for low, _ in pairs) >= self.tokens:
                break
        inputs, outputs = (torch.cat(parts)[: self.tokens].double() for parts in zip(*pairs, strict=True))
        return inputs, outputs


def fit_translator(inputs: Tensor, outputs: Tensor, ridge: float) -> Callable[[Tensor], Tensor]:
    """The affine map from hidden states of a layer to those of the last one: inputs, outputs [T, H], fp64."""
    mean, change = inputs.mean(0), outputs - inputs
    centred, offset = inputs - mean, change.mean(0)
    moments = centred.T @ centred
    # A share of the mean variance: the same whatever the model's scale, and solvable with fewer tokens than widths.
    moments.diagonal().add_(ridge * moments.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny))
    weight = torch.linalg.solve(moments, centred.T @ (change - offset)).float()
    mean, offset = mean.float(), offset.float()

    def translate(hidden: Tensor) -> Tensor:
        wide = hidden.float()
        moved = wide + (wide - mean.to(hidden.device)) @ weight.to(hidden.device) + offset.to(hidden.device)
        return moved.to(hidden.dtype)

    return translate


@contextlib.contextmanager
def read_through(
    blocks: nn.ModuleList, layer: int, translate: Callable[[Tensor], Tensor] | None = None
) -> Iterator[None]:
    """Inside, what follows the last block reads the output of block `layer`, translated where that is given."""
    states: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        states[:] = [hidden_of(output)]

    def low(_: Tensor) -> Tensor:
        return states[0] if translate is None else translate(states[0])

    with contextlib.ExitStack() as stack:
        stack.enter_context(output_hooks([(blocks[layer - 1], keep)]))
        if layer < len(blocks):
            stack.enter_context(skipped_blocks(blocks, layer))
        stack.enter_context(replaced_output(blocks[-1], low))
        yield
