"""Steering: hidden states of one layer are moved along the direction in which forget and retain rows differ."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..data.batch import answer_index
from ..data.tokenized_row import TokenizedRow
from ..edits import EditData
from ..model.forward_patching import replaced_output
from ..model.hidden_states import HiddenStateCapture, block_number, decoder_blocks, layer_problem
from ..model.score_rows import evaluation_mode
from ..model.suppressed_forward import Text
from .base import Suppression, Suppressor
from .small_models import collated

PROJECT, ADD = "project", "add"

_RIDGE = 0.01  # of the mean variance
_TOKENS = 1 << 15  # answer tokens of each set that are read


@dataclass(frozen=True, eq=False)
class SteeringSuppressor(Suppressor):
    """h + c d, or h + c relu(w h - q) d, at the output of one block.

    Args:
        direction: d, [H].
        probe: w, [H].
        block: number of the block, from 1.
        coefficient: c.
        mode: "project" or "add".
        limit: q.
    """

    direction: Tensor
    probe: Tensor
    block: int
    coefficient: float
    mode: str
    limit: float

    name = "steering"
    holds = "A mean of hidden states, from which no row can be read."

    def forward(self, model: Any, own: Callable[..., Any], inputs: dict[str, Any], text: Text) -> Any:
        def steer(hidden: Tensor) -> Tensor:
            states, along = hidden.float(), self.direction.to(hidden.device)
            far = self.coefficient * torch.ones_like(states[..., :1])
            if self.mode == PROJECT:
                far *= (states @ self.probe.to(hidden.device) - self.limit).relu()[..., None]
            return (states + far * along).to(hidden.dtype)

        with replaced_output(decoder_blocks(model)[self.block - 1], steer):
            return own(**inputs)

    def unfit(self, model: Any) -> str | None:
        own, other = len(self.direction), model.config.get_text_config().hidden_size
        return f"hidden size {other}, not {own}" if own != other else None


@dataclass(frozen=True)
class Steering(Suppression):
    """Moves the hidden states of one layer along the difference of means of two sets, at every token.

    d = mean(other rows) - mean(forget rows), over the states that answer tokens are predicted from.
    add: h' = h + c d, the other rows being the unseen ones where there are holdout rows, else the retain rows.
    project: h' = h + c relu(w h - q) d to the retain rows, with w the linear discriminant of the two sets, scaled to
    w d = -1, and q the `quantile` of w h over the retain rows. So states that lie where theirs do stay; c = 1 brings
    those beyond back to q, and more throws them to the other side.

    Args:
        layer: number of decoder blocks, or a share of the depth below 1.
        mode: "project" or "add".
        coefficient: c, above 0.
        quantile: of the retain rows, 0 to 1; 1 moves none of their answer states.

    Paper: Turner et al. 2023, https://arxiv.org/abs/2308.10248; Li et al. 2023, https://arxiv.org/abs/2306.03341.
    """

    layer: float = 0.5
    mode: str = PROJECT
    coefficient: float = 4.0
    quantile: float = 0.99

    name = "steering"
    formula = "h + c relu(w h - q) d, or h + c d, d = m_other - m_forget"
    paper = "Turner et al. 2023, arXiv:2308.10248"
    fitted = SteeringSuppressor
    cost = "a forward of all rows; nothing at a call"

    def __post_init__(self) -> None:
        super().__post_init__()
        problem = layer_problem(self.layer)
        self.require("layer", problem is None, problem or "")
        self.require("mode", self.mode in (PROJECT, ADD), f"{PROJECT!r} or {ADD!r}")
        self.require_positive("coefficient")
        self.require("quantile", 0 <= self.quantile <= 1, "0 to 1")

    def unfit(self, model: PreTrainedModel, data: EditData) -> str | None:
        try:
            decoder_blocks(model)
        except ValueError:
            return "the model has no one list of decoder blocks"
        return None

    def build(self, model: PreTrainedModel, data: EditData) -> SteeringSuppressor:
        block = block_number(self.layer, len(decoder_blocks(model)))
        forget, retain = (answer_states(model, rows, block, data) for rows in (data.forget, data.retain))
        other = answer_states(model, data.unseen, block, data) if self.mode == ADD and len(data.unseen) else retain
        towards = other.mean(0) - forget.mean(0)
        probe = discriminant(forget, other)
        limit = float(torch.quantile(retain @ probe, self.quantile)) if self.mode == PROJECT else 0.0
        return SteeringSuppressor(towards.float(), probe.float(), block, self.coefficient, self.mode, limit)


def discriminant(one: Tensor, other: Tensor) -> Tensor:
    """w = S^-1 d / (d S^-1 d) with d = mean(one) - mean(other), S the mean of the two covariances and a ridge: [H]."""
    difference = one.mean(0) - other.mean(0)
    spread = (torch.cov(one.T) + torch.cov(other.T)) / 2
    ridge = _RIDGE * spread.diagonal().mean() * torch.eye(len(spread), dtype=spread.dtype)
    towards = torch.linalg.solve(spread + ridge, difference)
    return towards / (towards @ difference)


def answer_states(model: PreTrainedModel, rows: Sequence[TokenizedRow], block: int, data: EditData) -> Tensor:
    """Hidden states that answer tokens are predicted from, at the output of a block: [T, H], fp64; of drawn rows."""
    order = np.random.default_rng(data.seed).permutation(len(rows)).tolist()
    capture = HiddenStateCapture(decoder_blocks(model), frozenset([float(block)]))
    size, states = data.questioner.batch_size, []
    for start in range(0, len(rows), size):
        batch = collated(data.questioner.collator, [rows[i] for i in order[start : start + size]], model.device)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with evaluation_mode(model), capture.early_exit(), capture.capture() as captured:
            model(**inputs, use_cache=False)
        (hidden,) = captured.values()
        states.append(hidden.flatten(0, 1)[answer_index(batch).positions].double().cpu())
        if sum(map(len, states)) >= _TOKENS:
            break
    return torch.cat(states)
