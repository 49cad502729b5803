"""The load-balancing loss of mixture-of-experts models, as sums over tokens that add up over the batches of a step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RouterLoss:
    """The load-balancing loss that a model adds to its own loss: c E sum_e F_e P_e (Fedus et al. 2101.03961, eq. 4).

    F_e: the share of tokens that choose expert e, P_e: the mean probability that the router gives it, both over all
    layers and all tokens that are no padding. F has no gradient.

    Attributes:
        coefficient: c, as the model's own loss has it.
        experts_per_token: how many experts a token chooses.
    """

    coefficient: float
    experts_per_token: int

    def counts(self, router_logits: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        """How often each expert is chosen, and last over how many tokens and layers: [E + 1].

        Args:
            router_logits: of each layer, [B * L, E].
            mask: of tokens that are no padding, [B, L]; None where there is none.
        """
        experts = router_logits[0].shape[-1]
        totals = router_logits[0].new_zeros(experts + 1, dtype=torch.float32)
        for logits in router_logits:
            weight = _token_weights(logits, mask).to(totals.device)
            # Of probabilities, as transformers takes them: equal ones tie as they do there.
            chosen = logits.softmax(-1).topk(self.experts_per_token, dim=-1).indices.to(totals.device)
            totals[:experts].scatter_add_(0, chosen.flatten(), weight.repeat_interleave(self.experts_per_token))
            totals[experts] += weight.sum()
        return totals.detach()

    def part(self, router_logits: Sequence[Tensor], mask: Tensor | None, counts: Tensor) -> Tensor:
        """One batch's part of the step's loss, without its coefficient: E sum_e F_e sum_t p_t(e) / N.

        Args:
            router_logits: of each layer, [B * L, E]; differentiated.
            mask: as above.
            counts: of the whole step, [E + 1].
        """
        experts = router_logits[0].shape[-1]
        total = counts[experts].clamp(min=1)
        mass = counts.new_zeros(experts)
        for logits in router_logits:
            weight = _token_weights(logits, mask)
            mass = mass + (logits.softmax(-1).float() * weight[:, None]).sum(0).to(mass.device)
        return experts * (counts[:experts] / total * (mass / total)).sum()


def matching_router_loss(
    coefficient: float, router_logits: Sequence[Tensor], mask: Tensor | None, value: float
) -> RouterLoss | None:
    """The router loss that has a value on a batch; None if none of this form does.

    Args:
        coefficient: c.
        router_logits: of each layer.
        mask: of the batch.
        value: of the model's own `aux_loss`.
    """
    for experts_per_token in range(1, router_logits[0].shape[-1] + 1):
        loss = RouterLoss(coefficient, experts_per_token)
        own = float(loss.part(router_logits, mask, loss.counts(router_logits, mask)))
        if abs(own - value) <= 1e-3 * abs(value):
            return loss
    return None


def _token_weights(logits: Tensor, mask: Tensor | None) -> Tensor:
    """1 for tokens and 0 for padding, [B * L]."""
    if mask is None:
        return logits.new_ones(len(logits), dtype=torch.float32)
    return mask.flatten().to(logits.device, torch.float32)
