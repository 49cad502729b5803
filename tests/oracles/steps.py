"""Naive oracles of what wraps a gradient step, on whole-model vectors. Not the package's steps, nor for training.

A vector is a dict from parameter name to tensor, one entry a trainable weight; norms and inner products are global,
over all of its entries together. Functions that move the weights put them back from a copy, bit for bit, and leave
`.grad` alone. A forget loss here is a function of the model, so that it can be taken at moved weights.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hf_unlearn.errors import input_error
from oracles.hidden import hidden_states, hooked
from oracles.naive import Row, answer_logits, shift_check

Vector = dict[str, Tensor]
Loss = Callable[[nn.Module], Tensor]

# --- Gradients ---


def gradient(model: nn.Module, loss: Tensor) -> Vector:
    """dloss / dtheta by name for every trainable weight; zero for those the loss does not reach (blocks above RMU's).

    torch raises RuntimeError for a loss that is a constant.

    Raises:
        ValueError: the loss reaches no trainable weight of this model, such as another model's loss.
    """
    trainable = trainable_weights(model)
    gradients = torch.autograd.grad(loss, list(trainable.values()), retain_graph=True, allow_unused=True)
    if all(each is None for each in gradients):
        raise input_error(
            expected="a loss of this model",
            got="one that depends on none of its trainable weights",
            why="a gradient of zeros would agree with any other step that moves nothing",
            fix="take the loss on this very model",
        )
    return {
        name: torch.zeros_like(weight) if each is None else each
        for (name, weight), each in zip(trainable.items(), gradients, strict=True)
    }


def sam_gradient(model: nn.Module, forget_loss: Loss, rho: float) -> Vector:
    """The gradient of the forget loss at theta + rho g / ||g|| (Fan et al., arXiv 2502.05374).

    g is the gradient at theta, so the step goes up the forget loss, to where forgetting is worst nearby. Where g is
    zero there is no way up, and the gradient is taken at theta.
    """
    plain = gradient(model, forget_loss(model))
    norm = math.sqrt(inner(plain, plain))
    if norm == 0:
        return plain
    with moved(model, {name: (rho / norm) * each for name, each in plain.items()}):
        return gradient(model, forget_loss(model))


def smoothed_gradient(model: nn.Module, forget_loss: Loss, noises: Sequence[Vector]) -> Vector:
    """The mean of the gradients at theta + noise_i, the noise being given (Fan et al., arXiv 2502.05374)."""
    gradients = []
    for noise in noises:
        with moved(model, noise):
            gradients.append(gradient(model, forget_loss(model)))
    return averaged(gradients)


def projected(forget_gradient: Vector, retain_gradient: Vector) -> Vector:
    """g_f - <g_f, g_r> / ||g_r||^2 g_r where <g_f, g_r> < 0, else g_f (Yu et al., arXiv 2001.06782)."""
    agreement = inner(forget_gradient, retain_gradient)
    if agreement >= 0:
        return dict(forget_gradient)
    share = agreement / inner(retain_gradient, retain_gradient)
    return {name: each - share * retain_gradient[name] for name, each in forget_gradient.items()}


# --- Saliency ---


def salun_scores(forget_gradient: Vector) -> Vector:
    """|g_f| (SalUn, Fan et al., arXiv 2310.12508)."""
    return {name: each.abs() for name, each in forget_gradient.items()}


def wagle_scores(weights: Vector, forget_gradient: Vector, retain_gradient: Vector, mu: float) -> Vector:
    """|(theta - g_r / mu) g_f|, entry by entry (WAGLE, Jia et al., arXiv 2410.17509)."""
    return {
        name: ((weights[name] - retain_gradient[name] / mu) * each).abs() for name, each in forget_gradient.items()
    }


def top_share_mask(scores: Vector, keep: float) -> Vector:
    """True for the round(keep N) highest of all N scores, ranked together; of equal scores the earlier ones win."""
    everything = torch.cat([each.flatten() for each in scores.values()])
    ranking = torch.sort(everything, descending=True, stable=True).indices
    chosen = torch.zeros_like(everything, dtype=torch.bool)
    chosen[ranking[: round(keep * len(everything))]] = True
    mask, start = {}, 0
    for name, each in scores.items():
        mask[name] = chosen[start : start + each.numel()].view_as(each)
        start += each.numel()
    return mask


# --- The latent attack ---


def latent_attack(model: nn.Module, row: Row, block: int, eps: float, steps: int) -> Tensor:
    """The delta [L, d] on a block's output that lowers a row's mean answer NLL (Sheshadri et al., arXiv 2407.15549).

    Projected gradient descent from zero: at each position, `steps` steps of 2.5 eps / steps along the normalised
    negative gradient, each followed by a projection onto the ball of radius eps (L2, a position's own). Every position
    has its delta, the prompt's too; a position without gradient, such as the last, which predicts nothing, stays.
    """
    delta = torch.zeros_like(hidden_states(model, row, block).detach())
    for _ in range(steps):
        delta.requires_grad_(True)
        (grad_logits,) = torch.autograd.grad(mean_nll(forward_with(model, row, block, delta), row), delta)
        positions = []
        for here, direction in zip(delta.detach(), grad_logits, strict=True):
            if direction.norm() > 0:
                here = here - (2.5 * eps / steps) * direction / direction.norm()
            if here.norm() > eps:
                here = here * (eps / here.norm())
            positions.append(here)
        delta = torch.stack(positions)
    return delta


def forward_with(model: nn.Module, row: Row, block: int, delta: Tensor) -> Tensor:
    """The row's answer logits [n, V] when delta [L, d] is added to what the block puts out, at every position."""
    with hooked(model, block, lambda output: output + delta):
        return answer_logits(model, row)


def mean_nll(logits: Tensor, row: Row) -> Tensor:
    """nll, nats per token, from a row's answer logits [n, V]."""
    logps = [torch.log_softmax(each, dim=-1)[token] for each, (_, token) in zip(logits, shift_check(row), strict=True)]
    return -torch.stack(logps).mean()


# --- Across steps ---


def averaged(weights_over_steps: Sequence[Vector]) -> Vector:
    """The plain mean of vectors, name by name: weight averaging, every step counted alike."""
    first = weights_over_steps[0]
    return {name: sum(each[name] for each in weights_over_steps) / len(weights_over_steps) for name in first}


def sophia_step(
    weights: Vector,
    gradients: Vector,
    state: dict[str, Vector],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    rho: float,
    eps: float,
    weight_decay: float,
) -> tuple[Vector, dict[str, Vector]]:
    """theta (1 - lr weight_decay) - lr clip(m / max(rho h, eps), -1, 1) (SOUL, Jia et al., arXiv 2404.18239).

    m = EMA_beta1(g) and h = EMA_beta2(g^2), without bias correction. `state` holds both under "m" and "h", zeros
    before the first step. Returns the new weights and the new state; what it was given stays as it was.
    """
    stepped: Vector = {}
    after: dict[str, Vector] = {"m": {}, "h": {}}
    for name, weight in weights.items():
        m = beta1 * state["m"][name] + (1 - beta1) * gradients[name]
        h = beta2 * state["h"][name] + (1 - beta2) * gradients[name] ** 2
        update = (m / (rho * h).clamp(min=eps)).clamp(min=-1, max=1)
        stepped[name] = weight * (1 - lr * weight_decay) - lr * update
        after["m"][name], after["h"][name] = m, h
    return stepped, after


def primal_dual(w_r: float, losses: Sequence[float], eta: float, eps: float) -> list[float]:
    """The retain weight after each step: w_r <- max(0, w_r + eta (L_retain - eps)) (PDU, arXiv 2506.05314)."""
    after = []
    for loss in losses:
        w_r = max(0.0, w_r + eta * (loss - eps))
        after.append(w_r)
    return after


# --- Whole-model vectors ---


def trainable_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's own trainable weights by name, not copies."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def inner(first: Vector, second: Vector) -> float:
    """The global inner product, summed in fp64."""
    return sum((each.double() * second[name].double()).sum().item() for name, each in first.items())


@contextmanager
def moved(model: nn.Module, by: Vector) -> Iterator[None]:
    """Inside the context the trainable weights are theta + by; afterwards theta again, from a copy."""
    weights = trainable_weights(model)
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    try:
        with torch.no_grad():
            for name, weight in weights.items():
                weight += by[name]
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(before[name])
