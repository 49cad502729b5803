"""A training step beside the naive oracle's: the rows of it, both changes of the weights, the comparison. No test."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fixtures_models import make_trainer, perturbed, step_logs, tiny_model, weights
from hf_unlearn import UnlearningTrainer
from oracles import distributions, hidden, likelihoods, naive, steps

LR = 0.05
BATCH, ACCUMULATION = 2, 2


@dataclass
class StepRows:
    """The rows of one optimizer step by role, and the forget row of the step to which each mismatch row belongs."""

    forget: list[naive.Row] = field(default_factory=list)
    retain: list[naive.Row] = field(default_factory=list)
    alternate: list[naive.Row] = field(default_factory=list)
    mismatch: list[naive.Row] = field(default_factory=list)
    mismatch_sources: list[int] = field(default_factory=list)
    retain_alternate: list[naive.Row] = field(default_factory=list)
    index: list[int] = field(default_factory=list)


def rows_of_step(trainer: UnlearningTrainer, step: int = 0) -> StepRows:
    """What the trainer reads in a step of the first epoch: its sampler is sequential."""
    rows, size = StepRows(), BATCH * ACCUMULATION
    for source, position in enumerate(range(step * size, (step + 1) * size)):
        item = trainer.train_dataset[position]
        rows.forget.append(item)
        rows.index.append(item["row"])
        rows.retain += item["retain"]
        rows.alternate += [item["alternate"]] if "alternate" in item else []
        rows.mismatch += item["mismatch"]
        rows.mismatch_sources += [source] * len(item["mismatch"])
        rows.retain_alternate += [row["alternate"] for row in item["retain"] if "alternate" in row]
    return rows


# (model, reference, rows, active) -> the loss; tests take the arguments of ARGUMENTS in both.
Oracle = Callable[[nn.Module, nn.Module, StepRows, list[bool] | None], Tensor]

FORGET_ORACLES: dict[str, Oracle] = {
    "grad_ascent": lambda m, ref, rows, active: naive.grad_ascent(m, rows.forget, active),
    "npo": lambda m, ref, rows, active: naive.npo(m, ref, rows.forget, 0.07, active),
    "simnpo": lambda m, ref, rows, active: naive.simnpo(m, rows.forget, 0.6, 4.0, active),
    "dpo": lambda m, ref, rows, active: naive.dpo(m, ref, rows.forget, rows.alternate, 0.05, active),
    "idk": lambda m, ref, rows, active: naive.idk(m, rows.alternate, active),
    "random_mismatch": lambda m, ref, rows, active: naive.random_mismatch(
        m, rows.mismatch, active, rows.mismatch_sources
    ),
    "max_entropy": lambda m, ref, rows, active: distributions.max_entropy(m, rows.forget, active),
    "wga": lambda m, ref, rows, active: likelihoods.wga(m, rows.forget, 0.3, active),
    "satimp": lambda m, ref, rows, active: likelihoods.satimp(m, rows.forget, 0.4, 2.0, active),
    "undial": lambda m, ref, rows, active: distributions.undial(m, ref, rows.forget, 3.0, active),
    "ceu": lambda m, ref, rows, active: distributions.ceu(m, rows.forget, active),
    "rmu": lambda m, ref, rows, active: hidden.rmu(m, rows.forget, 1, 3.0, 7, active),
    "ihl": lambda m, ref, rows, active: distributions.ihl(m, rows.forget, active),
    "jsd": lambda m, ref, rows, active: likelihoods.jsd_alternate(m, rows.alternate, active),
    "flat": lambda m, ref, rows, active: likelihoods.flat(m, rows.forget, rows.alternate, active),
    "logit_margin": lambda m, ref, rows, active: distributions.logit_margin(m, rows.forget, active),
}
RETAIN_ORACLES: dict[str, Oracle] = {
    "nll": lambda m, ref, rows, active: naive.retain_nll(m, rows.retain),
    "kl": lambda m, ref, rows, active: naive.retain_kl(m, ref, rows.retain),
    "jsd": lambda m, ref, rows, active: distributions.retain_jsd(m, ref, rows.retain),
    "hidden": lambda m, ref, rows, active: hidden.retain_hidden(m, ref, rows.retain, 1),
    "answer_preservation": lambda m, ref, rows, active: likelihoods.answer_preservation(
        m, rows.retain, rows.retain_alternate, 1.5
    ),
}
# None of them a default, so that an argument that goes astray shows; "jsd" of both sides has none.
ARGUMENTS: dict[str, dict[str, float]] = {
    "npo": {"beta": 0.07},
    "simnpo": {"beta": 0.6, "delta": 4.0},
    "dpo": {"beta": 0.05},
    "random_mismatch": {"k": 3},
    "wga": {"beta": 0.3},
    "satimp": {"beta1": 0.4, "beta2": 2.0},
    "undial": {"beta": 3.0},
    "rmu": {"c": 3.0, "layer": 1, "seed": 7},
    "hidden": {"layer": 1},
    "answer_preservation": {"beta": 1.5},
}
FORGET_WITH_REFERENCE, RETAIN_WITH_REFERENCE = {"npo", "dpo", "undial"}, {"kl", "jsd", "hidden"}

# A random model gives its answers a probability of about 1/V, so the losses of plain probabilities pull little.
PULL: dict[str, float] = {"flat": 100.0, "ihl": 10.0, "undial": 10.0}

Terms = dict[str, float]


def spec(name: str, weight: float = 1.0) -> dict[str, Any]:
    """A term with the arguments of its oracle."""
    return {"name": name, "weight": weight, **ARGUMENTS.get(name, {})}


def losses(forget: Terms, retain: Terms) -> dict[str, Any]:
    """Terms and their weights as arguments of a trainer."""
    return {
        "forget_loss": [spec(name, weight) for name, weight in forget.items()],
        "retain_loss": [spec(name, weight) for name, weight in retain.items()] or "none",
    }


def oracle_loss(
    forget: Terms,
    retain: Terms,
    reference: nn.Module,
    *,
    sides: tuple[float, float] = (1.0, 1.0),
    active: list[bool] | None = None,
) -> Callable[[nn.Module, StepRows], Tensor]:
    """The objective of weighted terms against a reference, as a function of a model and the rows of a step."""
    return lambda model, rows: (
        sides[0] * sum(w * FORGET_ORACLES[name](model, reference, rows, active) for name, w in forget.items())
        + sides[1] * sum(w * RETAIN_ORACLES[name](model, reference, rows, None) for name, w in retain.items())
    )


def stepped(model: nn.Module, loss: Tensor, lr: float) -> dict[str, Tensor]:
    """`naive.sgd_step_weights` of a loss that may leave weights unreached, as those above a layer: they stay."""
    gradient = steps.gradient(model, loss)
    return {
        name: weight.detach() - lr * gradient[name] if name in gradient else weight.detach().clone()
        for name, weight in model.named_parameters()
    }


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference between any two elements of the same weight."""
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def run_and_expect(
    trainer: UnlearningTrainer, before: nn.Module, loss: Callable[[nn.Module, StepRows], Tensor]
) -> dict[str, Tensor]:
    """Train, and return the weight changes that plain gradient descent on `loss` makes over the same steps.

    The loss that each step has logged is the oracle's too.
    """
    start, values = weights(before), []
    for step in range(trainer.args.max_steps):
        value = loss(before, rows_of_step(trainer, step))
        values.append(float(value.detach()))
        before.load_state_dict(stepped(before, value, trainer.args.learning_rate), strict=False)
    trainer.train()
    assert [log["loss"] for log in step_logs(trainer)] == pytest.approx(values, rel=1e-5, abs=1e-6)
    return {name: weight.detach() - start[name] for name, weight in before.named_parameters()}


def assert_same_change(after: nn.Module, start: dict[str, Tensor], expected: dict[str, Tensor], rtol: float) -> None:
    """The change of every weight, element by element and in the norm, against the expected one, which is not zero."""
    assert start.keys() == expected.keys()
    largest = max(float(change.abs().max()) for change in expected.values())
    assert largest > 1e-4, "the oracle's step moves nothing: any other step that moves nothing would agree"
    for name, weight in after.named_parameters():
        change = weight.detach() - start[name]
        torch.testing.assert_close(
            change, expected[name], rtol=rtol, atol=rtol * largest, msg=lambda m, n=name: f"{n}: {m}"
        )
        norm = expected[name].norm()
        assert abs(change.norm() - norm) <= rtol * (norm + largest), name
        # A weight that the loss does not reach is left alone, to the last bit.
        assert norm > 0 or not change.any(), name


def check_step(
    folder: Path, kind: str, forget: Terms, retain: Terms, dtype=torch.float64, rtol: float = 1e-7, **options: Any
) -> tuple[UnlearningTrainer, dict[str, Tensor]]:
    """One step of weighted terms with side weights 0.7 and 1.3, from a policy that is not its reference.

    Returns the trainer, and the change that the oracle expects of every weight.
    """
    policy = tiny_model(kind, dropout=0.1).to(dtype)
    reference = perturbed(policy)
    before = copy.deepcopy(policy).eval()
    start = weights(policy)
    needs_reference = bool(FORGET_WITH_REFERENCE & forget.keys() or RETAIN_WITH_REFERENCE & retain.keys())
    trainer = make_trainer(
        folder,
        policy,
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=ACCUMULATION,
        learning_rate=LR,
        **losses(forget, retain),
        forget_weight=0.7,
        retain_weight=1.3,
        ref_model=copy.deepcopy(reference) if needs_reference else None,
        **options,
    )
    loss, wrong = (oracle_loss(forget, retain, each, sides=(0.7, 1.3)) for each in (reference, copy.deepcopy(before)))
    other = stepped(before, wrong(before, rows_of_step(trainer)), LR) if needs_reference else None
    expected = run_and_expect(trainer, before, loss)
    assert other is None or largest_difference(weights(before), other) > 1e-5, "the reference is idle"
    assert_same_change(policy, start, expected, rtol)
    return trainer, expected
