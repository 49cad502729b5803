"""Divergence decoding: logits moved by what two small models, without and with the forget rows, differ in."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..data.token_arrays import token_arrays
from ..edits import EditData
from ..model.output_head import output_head
from ..model.suppressed_forward import Text
from ..training.levels.ngram import NGram
from .base import Suppression, Suppressor
from .calibration import at_level
from .small_models import named_model, next_logits, small_model, trained

LINEAR, RANK = "linear", "rank"
NGRAM, LAYERS = "ngram", "layers"


@dataclass(frozen=True, eq=False)
class DivergenceSuppressor(Suppressor):
    """z + a (log p_without - log p_with), or the likeliest forget tokens masked.

    Args:
        without: what never saw the forget rows: a causal language model of the same vocabulary, or an n-gram.
        knowing: the same, with the forget rows.
        alpha: a.
        form: "linear" or "rank".
        top: tokens that the rank form masks.
        margin: nats by which a token must lean towards the forget rows to be masked.
    """

    without: PreTrainedModel | NGram
    knowing: PreTrainedModel | NGram
    alpha: float = 1.5
    form: str = LINEAR
    top: int = 20
    margin: float = 1.0

    name = "divergence_decoding"
    changes_logits = True
    holds = "The small model with the forget rows, or the n-gram counted on them, gives them away word for word."

    @property
    def vocabulary(self) -> int:
        return self.knowing.vocabulary if isinstance(self.knowing, NGram) else output_head(self.knowing).vocabulary

    def change(self, logits: Tensor, text: Text, positions: Tensor) -> Tensor:
        leaning = next_logps(self.knowing, text, positions) - next_logps(self.without, text, positions)
        leaning = _as_wide(leaning, logits.shape[-1])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.form == LINEAR:
            return logits - self.alpha * leaning
        most, tokens = leaning.topk(min(self.top, leaning.shape[-1]), dim=-1)
        # Not minus infinity: the NLL of an answer with a masked token stays a number.
        least = logits.amin(-1, keepdim=True).expand_as(most)
        return logits.scatter(-1, tokens, torch.where(most > self.margin, least, logits.gather(-1, tokens)))


@dataclass(frozen=True)
class DivergenceDecoding(Suppression):
    """Moves the logits by what a small model learns from the forget rows.

    linear: z' = z + a (log p_without - log p_with). rank: the `top` tokens with the largest log p_with - log p_without
    above `margin` get the logit of the least likely token. Where the two small models agree nothing changes.

    The small models are n-grams counted on the retain rows, and on retain and forget rows (Witten-Bell, of order 4:
    no training, and nothing for paraphrases); or models of the same kind with fewer layers, fitted here: one on the
    retain rows, the other a copy of it that goes on with as many forget as retain rows; or two that are named.

    Args:
        alpha: a, above 0.
        form: "linear" or "rank".
        top: tokens that the rank form masks, 1 or above.
        margin: nats that a token must lean by to be masked; 0 or above. (The paper has none: then 20 tokens are masked
            at every position, of kept answers too.)
        small: "ngram" or "layers".
        layers: of the small models that are fitted here, 1 or above.
        steps: of each fit.
        batch: rows of a step.
        rate: learning rate.
        to_level: of the linear form: choose a so that the mean NLL of the forget rows is the level of unseen rows (the
            holdout rows, or `level` of `suppress`); the search begins with `alpha`.
        without: folder or id of a small causal language model that never saw the forget rows; with `knowing`.
        knowing: folder or id of one that did.

    Paper: Merchant et al. 2026, https://arxiv.org/abs/2605.31293.
    """

    alpha: float = 1.5
    form: str = LINEAR
    top: int = 20
    margin: float = 1.0
    small: str = NGRAM
    layers: int = 1
    steps: int = 300
    batch: int = 16
    rate: float = 1e-3
    to_level: bool = False
    without: str | None = None
    knowing: str | None = None

    name = "divergence_decoding"
    formula = "z + a (z_without - z_with)"
    paper = "Merchant et al. 2026, arXiv:2605.31293"
    fitted = DivergenceSuppressor
    cost = "counting, or two small models to train; at every token both read the whole text"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("alpha", "rate")
        self.require_not_negative("margin")
        self.require("form", self.form in (LINEAR, RANK), f"{LINEAR!r} or {RANK!r}")
        self.require("small", self.small in (NGRAM, LAYERS), f"{NGRAM!r} or {LAYERS!r}")
        for argument in ("top", "layers", "steps", "batch"):
            self.require(argument, getattr(self, argument) >= 1, "1 or above")
        self.require("to_level", not self.to_level or self.form == LINEAR, f"False with form={RANK!r}")
        self.require("knowing", (self.knowing is None) == (self.without is None), "given together with without")

    def build(self, model: PreTrainedModel, data: EditData) -> DivergenceSuppressor:
        without, knowing = self._pair(model, data)
        suppressor = DivergenceSuppressor(without, knowing, self.alpha, self.form, self.top, self.margin)
        return at_level(suppressor, model, data) if self.to_level else suppressor

    def _pair(self, model: PreTrainedModel, data: EditData) -> tuple[Any, Any]:
        if self.without is not None and self.knowing is not None:
            return named_model(self.without, model), named_model(self.knowing, model)
        if self.small == NGRAM:
            size = output_head(model).vocabulary
            retain, forget = ([ids for ids, _ in token_arrays(rows)] for rows in (data.retain, data.forget))
            return NGram.count(retain, size), NGram.count([*retain, *forget], size)
        budget = {"steps": self.steps, "batch": self.batch, "rate": self.rate}
        without = trained(small_model(model, self.layers, seed=data.seed), data.retain, data, **budget)
        knowing = copy.deepcopy(without).requires_grad_(True)
        rows = [*data.forget, *_as_many(data.retain, len(data.forget), data.seed)]
        return without, trained(knowing, rows, data, **budget)


def next_logps(small: PreTrainedModel | NGram, text: Text, positions: Tensor) -> Tensor:
    """Log-probs of the token after positions of texts laid flat, [T, V], nats, fp32."""
    if not isinstance(small, NGram):
        return next_logits(small, text, positions)
    rows = [ids[mask.bool()].numpy() for ids, mask in zip(text.ids.cpu(), text.mask.cpu(), strict=True)]
    # Places without padding; what follows padding is asked for nothing and gets what the first token gets.
    places = (text.mask.flatten().cumsum(0) - 1).clamp(min=0)[positions.to(text.ids.device)]
    return torch.from_numpy(small.next_logps(rows, places.cpu().numpy())).float().to(positions.device)


def _as_wide(leaning: Tensor, width: int) -> Tensor:
    """For as many tokens as there are logits: rows of a vocabulary that was padded lean nowhere."""
    more = width - leaning.shape[-1]
    return leaning[..., :width] if more <= 0 else torch.nn.functional.pad(leaning, (0, more))


def _as_many(rows: Any, count: int, seed: int) -> list[Any]:
    """So many of the rows, drawn; all of them, over and over, where there are fewer."""
    order = np.random.default_rng(seed).permutation(len(rows))
    return [rows[place] for place in np.resize(order, count)]
