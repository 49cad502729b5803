"""The derivatives that distribution losses state, against autograd of their values, also where these are sharp."""

import pytest
import torch

from fixtures.scores import random_logits
from hf_unlearn.losses import FORGET_LOSSES, RETAIN_LOSSES, DistributionLoss

T, V = 12, 40
KINDS = [loss for loss in (*FORGET_LOSSES.values(), *RETAIN_LOSSES.values()) if issubclass(loss, DistributionLoss)]
LOSSES = [
    loss() for loss in KINDS if loss.grad_logits is not DistributionLoss.grad_logits
]  # the others leave it to autograd


@pytest.mark.parametrize("scale", [0.3, 8.0], ids=["flat", "sharp"])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: f"{loss.on.name.lower()}/{loss.name}")
def test_stated_grad_logits_are_the_derivative_of_the_values(loss, scale):
    logits = random_logits(T, V, scale=scale).double().requires_grad_()
    reference = random_logits(T, V, scale=scale, seed=1).double() if loss.needs.reference_logits else None
    ids = torch.arange(T) * 7 % V
    stated = loss.grad_logits(logits.detach().clone(), ids, reference)
    (expected,) = torch.autograd.grad(loss.at_positions(logits, ids, reference).sum(), logits)
    torch.testing.assert_close(stated, expected, rtol=1e-9, atol=1e-12)
    assert expected.abs().max() > 1e-3
    assert scale < 1 or logits.softmax(-1).min() < 1e-6
