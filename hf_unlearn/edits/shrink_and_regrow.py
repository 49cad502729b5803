"""Weights moved towards fresh ones, which loosens what they hold, and retain rows to grow it again."""

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..data.batch import Batch, answer_index
from ..losses.kl import RetainKL
from ..model.fine_tuning import whole_text
from ..model.head_query import HeadQuery, LogitCache, TokenReadout
from ..model.output_head import OutputHead, output_head
from ..model.scoring import model_inputs, score_answers
from ..results.edit_report import Tried
from .base import Edit, EditData
from .checkpoint import require_same_weights
from .fine_tuned import SCHEDULES, full_precision, train


@dataclass(frozen=True)
class ShrinkAndRegrow(Edit):
    """Moves the weights towards fresh ones, then trains the retain rows back in.

    theta <- (1 - share) theta + share noise theta_fresh, in fp64, theta_fresh as the model's own initialisation draws
    it from the seed; weights of norm layers stay. Then
    L = -nll_weight log p(y) + kl_weight KL(pi_ref || pi_theta), mean over the trained tokens of the retain rows, with
    pi_ref the model before unlearning. What is not trained back in is not merely suppressed: it relearns slowly.

    With `distil` it is UNDO: pi_ref is the model as it was given to the edit, which has been unlearned by something
    else before, and only its KL is trained (`nll_weight` is not used).

    Args:
        share: of fresh weights, 0 to 1; .25 to .55 keep enough to regrow from.
        noise: scale of the fresh weights; 0 shrinks alone.
        epochs: passes over the retain rows; 2 to 6 of the original ones.
        rate: learning rate, the highest of the schedule.
        batch: rows of a step.
        schedule: "cosine" or "linear", with a warm-up over the first twentieth of the steps, or "constant".
        nll_weight: of the NLL.
        kl_weight: of the KL to the reference.
        distil: from the model that the edit is given, in place of the one before unlearning, and nothing but that.
        whole_text: train every token of a row, its prompt too.

    Paper: Lee et al. 2025 (UNDO), https://arxiv.org/abs/2506.06278.
    """

    share: float = 0.4
    noise: float = 1.0
    epochs: float = 4.0
    rate: float = 1e-3
    batch: int = 16
    schedule: str = "cosine"
    nll_weight: float = 1.0
    kl_weight: float = 1.0
    distil: bool = False
    whole_text: bool = True

    name = "shrink_and_regrow"
    formula = "(1 - share) theta + share theta_fresh, then -log p + KL(pi_ref || pi_theta) of the retain rows"
    paper = "Lee et al. 2025, arXiv:2506.06278"
    reads = frozenset({"forget", "retain"})
    needs_before = True
    cost = "epochs of training on the retain rows, with a forward of the reference each"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("share", 0 <= self.share <= 1, "from 0 to 1")
        self.require_not_negative("noise", "epochs", "nll_weight", "kl_weight")
        self.require_positive("rate", "batch")
        self.require("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}")
        self.require("kl_weight", self.kl_weight + (0 if self.distil else self.nll_weight) > 0, "above 0 here")

    def run(self, model: PreTrainedModel, data: EditData) -> list[Tried]:
        reference = copy.deepcopy(model).requires_grad_(False) if self.distil else data.before
        assert reference is not None
        rows = whole_text(data.retain) if self.whole_text else data.retain
        with full_precision(model) as wide:
            shrink(wide, self.share, self.noise, data.seed)
            shrunk = data.tried(wide, {"share": self.share, "epochs": 0.0}, retain=False)
            loss = partial(regrow_loss, reference, 0.0 if self.distil else self.nll_weight, self.kl_weight)
            train(
                wide,
                rows,
                data,
                epochs=self.epochs,
                rate=self.rate,
                batch=self.batch,
                schedule=self.schedule,
                loss=loss,
            )
        regrown = data.tried(model, {"share": self.share, "epochs": self.epochs}, retain=False)
        return [shrunk, replace(regrown, chosen=True)]


def shrink(model: PreTrainedModel, share: float, noise: float, seed: int) -> None:
    """weights <- (1 - share) weights + share noise fresh weights, in fp64; tied ones once, those of norms not at all.

    Args:
        model: changed in place.
        share: of fresh weights.
        noise: scale of the fresh weights.
        seed: of the model's initialisation; torch's random state is used.
    """
    torch.manual_seed(seed)
    fresh = type(model)(copy.deepcopy(model.config))
    require_same_weights(model, fresh, "a fresh model from the config")
    norms = {id(weight) for module in model.modules() if is_norm(module) for weight in module.parameters(False)}
    drawn = dict(fresh.named_parameters())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if id(weight) not in norms:
                new = noise * drawn[name].to(weight.device, torch.float64)
                weight.copy_((1 - share) * weight.double() + share * new)


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm layer, by its class, as model families have their own."""
    return "norm" in type(module).__name__.lower()


def regrow_loss(
    reference: Any, nll_weight: float, kl_weight: float, model: Any, head: OutputHead, batch: Batch
) -> Tensor:
    """-nll_weight log p(y) + kl_weight KL(pi_ref || pi_theta), mean over the trained tokens of a batch, nats."""
    if kl_weight == 0:
        return -nll_weight * score_answers(model, head, batch)[0].logps.mean()
    index, kl = answer_index(batch), RetainKL()
    query = HeadQuery(index.positions, index.targets, compute_logps=False, keep=LogitCache.HIDDEN)
    with torch.no_grad():
        logits = output_head(reference).read(reference, model_inputs(batch, index), query)[0].logits
    readout = TokenReadout(kl.name, None, kl.at_positions, kl.grad_logits, logits)
    scores, _ = score_answers(model, head, batch, readouts=[readout])
    return -nll_weight * scores.logps.mean() + kl_weight * scores.readouts[kl.name].mean()
