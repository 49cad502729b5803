"""Activation patching: hidden states of the model after in the model before, and the depth of unlearning."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..data.batch import Batch
from ..data.tokenized_row import TokenizedRow
from ..model.forward_patching import replaced_output
from ..model.hidden_states import decoder_blocks
from .base import Attack, Leak, Threat
from .blocks import batches, from_the_top, hidden_states, mean_logps, no_blocks
from .rows import AttackedRows
from .target import Target

Floats = NDArray[np.float64]

# Up to this drop, nats per token, a layer says nothing: not even a model that never knew the row misses it there.
_SHALLOW = 0.05


@dataclass(frozen=True)
class Patching(Attack):
    """Probability of the answer in the model before, where a block puts out what the same block puts out afterwards.

    What the changed model's lower blocks still hold, the old model's upper blocks can say. They may also say what they
    know by themselves: the lower the layer, the more of the answer can be the old model's own work, whatever it is
    given. Hence, where there is an oracle, layers are left out at which its states miss less than half of what they
    miss at the last layer; without one, the layers below `depth`.

    Args:
        every: each so many layers, from the last one down.
        depth: share of the blocks below which no layer is tried without an oracle, 0 or above and below 1.

    Paper: Lee et al. 2026, https://arxiv.org/abs/2605.24614.
    """

    every: int = 1
    depth: float = 0.5

    name = "patching"
    threat = Threat.WEIGHTS_AND_BEFORE
    formula = "exp(mean log p(y)) of the model before with h_l <- h_l of the model after"
    paper = "Lee et al. 2026, arXiv:2605.24614"
    cost = "a forward of all rows, and one a layer"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("every", self.every >= 1, "1 or above")
        self.require("depth", 0 <= self.depth < 1, "0 or above and below 1")

    def unfit(self, target: Target, rows: AttackedRows) -> str | None:
        if target.before is None:
            return "there is no model before unlearning"
        return no_blocks(target.model) or no_blocks(target.before) or _other_shape(target.model, target.before)

    def run(self, target: Target, rows: AttackedRows) -> Iterable[Leak]:
        yield Leak({"layer": "none"}, target.probabilities(rows.rows))
        blocks = decoder_blocks(target.before)
        layers = from_the_top(blocks, self.every)
        if target.oracle is not None and _other_shape(target.oracle, target.before) is None:
            layers = _missed_by_oracle(target, rows, layers)
        else:
            layers = [layer for layer in layers if layer >= self.depth * len(blocks)]
        for layer, logps in patched_logps(target, target.model, rows.rows, layers).items():
            yield Leak({"layer": layer}, np.exp(logps))


def patched_logps(
    target: Target, source: Any, rows: Sequence[TokenizedRow], layers: Sequence[int]
) -> dict[int, Floats]:
    """Mean log-probability of each answer in the model before, patched with the states of a source: by layer [N]."""
    assert target.before is not None, "patching needs the model before"
    logps = {layer: np.empty(len(rows)) for layer in layers}
    for places, batch in batches(target, rows):
        for layer, states in hidden_states(source, batch, layers).items():
            logps[layer][places] = _patched(target.before, layer, states, batch)
    return logps


def patching_drops(
    target: Target, source: Any, rows: Sequence[TokenizedRow], layers: Sequence[int]
) -> dict[int, Floats]:
    """How much of each answer's log-probability is missing with a source's states: by layer [N], nats per token.

    drop_l = mean log p_before(y) - mean log p_(before, h_l <- h_l of the source)(y)
    """
    whole = np.array([logps.mean() for logps in target.logps(rows, target.before)])
    return {layer: whole - logps for layer, logps in patched_logps(target, source, rows, layers).items()}


@dataclass(frozen=True)
class UnlearningDepth:
    """How much of what an oracle misses a model misses too, layer by layer.

    Attributes:
        clipped: 0 (nothing is erased) to 1; a layer that misses more than the oracle's counts as 1, so that a
            destroyed model looks perfect.
        unclipped: the same without that: above 1 the model misses more than one that never saw the row, below 0 it
            knows more than the model before.
    """

    clipped: Floats
    unclipped: Floats


def unlearning_depth(drops: Floats, oracle_drops: Floats, *, shallow: float = _SHALLOW) -> UnlearningDepth:
    """The unlearning depth score of each row, clipped and unclipped, [N].

    sum_l d_l r_l / sum_l d_l over the layers with d_l > `shallow`, d_l the oracle's drop and r_l the model's over it,
    clipped to 0..1 or not; NaN for a row without such a layer.

    Args:
        drops: [layers, N] of the model, as `patching_drops` gives them, nats per token.
        oracle_drops: [layers, N] of the oracle.
        shallow: the oracle's drop up to which a layer does not count.

    Raises:
        ValueError: shapes that differ.

    Paper: Lee et al. 2026, https://arxiv.org/abs/2605.24614, section 3.3.
    """
    own, oracle = np.asarray(drops, float), np.asarray(oracle_drops, float)
    if own.shape != oracle.shape or own.ndim != 2:
        raise ValueError(f"drops must be two tables [layers, rows] of one shape, got {own.shape} and {oracle.shape}")
    weight = np.where(oracle > shallow, oracle, 0.0)
    total = weight.sum(0)
    ratio = np.divide(own, oracle, out=np.zeros_like(own), where=weight > 0)

    def mean(ratios: Floats) -> Floats:
        return np.divide((weight * ratios).sum(0), total, out=np.full(len(total), np.nan), where=total > 0)

    return UnlearningDepth(mean(np.clip(ratio, 0, 1)), mean(ratio))


def _missed_by_oracle(target: Target, rows: AttackedRows, layers: Sequence[int]) -> list[int]:
    """The layers at which the oracle's states miss half or more of what they miss at the last, and the last."""
    tuned = [rows.rows[int(place)] for place in np.flatnonzero(rows.tuned)]
    if not tuned:
        return list(layers)
    drops = {layer: values.mean() for layer, values in patching_drops(target, target.oracle, tuned, layers).items()}
    return [layer for layer in layers if layer == layers[0] or drops[layer] >= drops[layers[0]] / 2]


def _patched(model: Any, layer: int, states: Tensor, batch: Batch) -> Floats:
    def replace(hidden: Tensor) -> Tensor:
        # Not where the head asks what becomes of known numbers, in a forward of its own.
        return states.to(hidden) if hidden.shape == states.shape else hidden

    with replaced_output(decoder_blocks(model)[layer - 1], replace):
        return mean_logps(model, batch)


def _other_shape(model: Any, before: Any) -> str | None:
    own, old = (
        (config.num_hidden_layers, config.hidden_size)
        for config in (model.config.get_text_config(), before.config.get_text_config())
    )
    return None if own == old else "the model before has other blocks"
