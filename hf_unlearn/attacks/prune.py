"""Pruning: the smallest weights set to 0, which may hold what unlearning added."""

from collections.abc import Iterable
from dataclasses import dataclass

from ..model.linear_layers import linear_layers
from .arguments import as_tuple, is_number
from .base import Attack, Leak, Threat
from .rows import AttackedRows
from .target import Target
from .weights import leak, magnitude_threshold, unchangeable

SCOPES = ("global", "layer")


@dataclass(frozen=True)
class Prune(Attack):
    """Sets the smallest weights of the linear layers to 0, by magnitude.

    w <- 0 where |w| <= c, c the round(share * n)-th smallest of n weights. An adapter is merged first; embeddings,
    output head, norms and biases stay as they are.

    Args:
        shares: of the weights that are set to 0, each above 0 and below 1.
        scopes: "global" (one c for all linear layers) and "layer" (one for each).

    Paper: Jain et al. 2023, https://arxiv.org/abs/2311.12786; magnitudes: Han et al. 2015,
    https://arxiv.org/abs/1506.02626.
    """

    shares: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5)
    scopes: tuple[str, ...] = SCOPES

    name = "prune"
    threat = Threat.WEIGHTS
    formula = "p(y) with w <- 0 where |w| is among the smallest"
    paper = "Jain et al. 2023, arXiv:2311.12786"
    cost = "31 passes over the weights and a forward of all rows for each share and scope"

    def __post_init__(self) -> None:
        super().__post_init__()
        as_tuple(self, "shares", lambda share: is_number(share) and 0 < share < 1, "above 0 and below 1")
        as_tuple(self, "scopes", SCOPES.__contains__, f"one of {', '.join(SCOPES)}")

    def unfit(self, target: Target, rows: AttackedRows) -> str | None:
        return unchangeable(target)

    def run(self, target: Target, rows: AttackedRows) -> Iterable[Leak]:
        yield leak(target, rows, {"scope": "none", "share": 0.0})
        for scope in self.scopes:
            for share in self.shares:
                model = target.weights_copy()
                weights = [layer.weight.detach() for layer in linear_layers(model).values()]
                for group in [weights] if scope == "global" else [[weight] for weight in weights]:
                    threshold = magnitude_threshold(group, share)
                    for weight in group:
                        weight[weight.abs() <= threshold.to(weight.device)] = 0
                yield leak(target, rows, {"scope": scope, "share": share}, model)
