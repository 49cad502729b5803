"""Merging with a sibling: weights between those of the model and of one trained on something else."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from torch import Size
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from ..model.adapters import load_adapter
from ..model.loading import loading
from ..model.merging import merge
from ..results.adapter_config import ADAPTER_CONFIG
from .arguments import as_tuple, is_number
from .base import Attack, Leak, Threat
from .rows import AttackedRows
from .target import Target
from .weights import leak, unchangeable


@dataclass(frozen=True)
class MergeSibling(Attack):
    """Averages the weights with those of a sibling: a model of the same layers that was trained on something else.

    w <- (1 - l) w + l w_sibling, all weights, in fp32; adapters are merged first. A sibling that knows the rows gives
    them back trivially (the model before unlearning, or its base model where the rows were pretrained on).

    Args:
        sibling: folder or id of a model, or of an adapter; without one the attack is not tried.
        shares: l, each above 0 and at most 1.

    Paper: Wortsman et al. 2022, https://arxiv.org/abs/2203.05482.
    """

    sibling: str | None = None
    shares: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5)

    name = "merge"
    threat = Threat.WEIGHTS
    given = "a model of the same layers, trained on something else"
    formula = "p(y) with w <- (1 - l) w + l w_sibling"
    paper = "Wortsman et al. 2022, arXiv:2203.05482"
    cost = "a forward of all rows for each share"

    def __post_init__(self) -> None:
        super().__post_init__()
        as_tuple(self, "shares", lambda share: is_number(share) and 0 < share <= 1, "above 0 and at most 1")

    def unfit(self, target: Target, rows: AttackedRows) -> str | None:
        if self.sibling is None:
            return "no sibling was named (sibling=)"
        if reason := unchangeable(target):
            return reason
        model: Any = target.model.get_base_model() if isinstance(target.model, PeftModel) else target.model
        sibling = _shapes(partial(AutoModelForCausalLM.from_config, _config(self.sibling)))
        same = sibling == _shapes(lambda: type(model)(model.config))
        return None if same else "the sibling has other weights than the model"

    def run(self, target: Target, rows: AttackedRows) -> Iterable[Leak]:
        assert self.sibling is not None
        yield leak(target, rows, {"share": 0.0})
        sibling = dict(_load(self.sibling).to(target.device).named_parameters(remove_duplicate=False))
        for share in self.shares:
            model = target.weights_copy()
            with torch.no_grad():
                for name, weight in model.named_parameters():
                    weight.lerp_(sibling[name], share)
            yield leak(target, rows, {"share": share}, model)


def _is_adapter(name: str) -> bool:
    return (Path(name) / ADAPTER_CONFIG).is_file()


def _config(name: str) -> PreTrainedConfig:
    with loading(name):
        base = PeftConfig.from_pretrained(name).base_model_name_or_path if _is_adapter(name) else name
        return AutoConfig.from_pretrained(base)


def _shapes(make: Callable[[], PreTrainedModel]) -> dict[str, Size]:
    """The shape of every weight of a model by name; nothing is allocated."""
    with torch.device("meta"):
        model = make()
    return {name: weight.shape for name, weight in model.named_parameters(remove_duplicate=False)}


def _load(name: str) -> PreTrainedModel:
    with loading(name):
        if _is_adapter(name):
            return merge(load_adapter(name, dtype=torch.float32))
        return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
