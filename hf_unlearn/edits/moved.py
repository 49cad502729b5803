"""How far an edit moved the weights, by kind of layer."""

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..results.edit_report import Moved


def copied_weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter in main memory, by name; of a shared one under its first name."""
    return {name: weight.detach().cpu().clone() for name, weight in model.named_parameters()}


def restore_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put copied weights back into a model."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(weights[name])


def moved_weights(model: nn.Module, before: Mapping[str, Tensor]) -> list[Moved]:
    """What moved since `copied_weights`, by the name that layers share in every block; the farthest first.

    distance = ||after - before|| / ||before|| over all weights of the kind, in fp64; of weights that were 0 it is
    infinite.
    """
    totals: dict[str, Tensor] = defaultdict(lambda: torch.zeros(4, dtype=torch.float64))
    for name, weight in model.named_parameters():
        old, new = before[name].double(), weight.detach().cpu().double()
        change = new - old
        parts = [change.numel(), int((change != 0).sum()), float(change.square().sum()), float(old.square().sum())]
        totals[_layers(name)] += torch.tensor(parts, dtype=torch.float64)
    kinds = []
    for layers, (count, changed, moved, size) in ((name, total.tolist()) for name, total in totals.items()):
        distance = 0.0 if moved == 0 else float("inf") if size == 0 else (moved / size) ** 0.5
        kinds.append(Moved(layers, int(count), changed / count, distance))
    return sorted(kinds, key=lambda kind: -kind.distance)


def _layers(name: str) -> str:
    """model.layers.3.self_attn.q_proj.weight -> q_proj."""
    owner = name.rpartition(".")[0] or name
    return owner.rpartition(".")[2]
