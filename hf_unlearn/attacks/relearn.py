"""Relearning: a short fine-tuning, on some of the forget rows or on other texts, and what of the others comes back."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..data.tokenized_row import TokenizedRow
from ..model.fine_tuning import fine_tune
from ..model.new_adapter import with_new_adapter
from .arguments import as_tuple, is_number
from .base import Attack, Leak, Threat
from .rows import AttackedRows
from .target import Target
from .weights import leak, unchangeable

SETS = ("forget", "related", "unrelated")
WEIGHTS = ("full", "lora")
COLLAPSED = 0.5  # of the utility before the first step


@dataclass(frozen=True)
class Relearn(Attack):
    """Fine-tunes a copy of the model and measures, every few steps, how likely the rows' answers are again.

    AdamW at a constant rate, without weight decay, warm-up or clipping, on the mean NLL of the answer tokens of a
    batch, in fp32 and without dropout. Every set, rate, kind of weights and step is a setting of its own, so that what
    counts is the highest leak of a path and not its end; each path begins with step 0, the model as it is. All paths
    go through their rows in the same order, which follows from the target's seed: through all of them, in a new order
    each time, in batches of equal size.

    A path ends early where the loss or a row's probability is no longer finite, and after a measurement in which less
    than half of the utility before the first step was left: the model is destroyed, and no such setting may be
    chosen. Without retain rows utility is not known and ends no path.

    Args:
        rates: learning rates.
        steps: of a path.
        batch: rows of a step; fewer where the set has fewer.
        every: steps between two measurements; the last step is measured too.
        share: of the rows, those that the attacker is given in the set "forget"; their own leak is NaN there.
        sets: what is trained on: "forget" (the rows that the attacker is given), "related" (rows of the same form
            about other things), "unrelated" (texts of another kind). Sets without rows are left out.
        adapters: "full" (all weights) and "lora" (LoRA on all linear layers but the head, with alpha twice the rank).
        rank: of LoRA.

    Paper: Hu et al. 2024, https://arxiv.org/abs/2406.13356; Lynch et al. 2024, https://arxiv.org/abs/2402.16835.
    """

    rates: tuple[float, ...] = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
    steps: int = 100
    batch: int = 8
    every: int = 5
    share: float = 0.1
    sets: tuple[str, ...] = SETS
    adapters: tuple[str, ...] = WEIGHTS
    rank: int = 16

    name = "relearn"
    threat = Threat.WEIGHTS
    given = "a share of the rows, or rows of the same form about other things, or other texts"
    formula = "p(y) after AdamW steps on -log p of rows that the attacker has; the highest over rates and steps"
    paper = "Hu et al. 2024, arXiv:2406.13356"
    teaches = True
    cost = "sets * rates * kinds of weights * steps training steps, and a forward of all rows every few"

    def __post_init__(self) -> None:
        super().__post_init__()
        as_tuple(self, "rates", lambda rate: is_number(rate) and 0 < rate < math.inf, "a rate above 0 and finite")
        as_tuple(self, "sets", SETS.__contains__, f"one of {', '.join(SETS)}")
        as_tuple(self, "adapters", WEIGHTS.__contains__, f"one of {', '.join(WEIGHTS)}")
        self.require_positive("steps", "batch", "every", "rank")
        self.require("share", 0 < self.share <= 0.5, "above 0 and at most .5, as one half of the rows is reported")

    def unfit(self, target: Target, rows: AttackedRows) -> str | None:
        if not self._trained(rows):
            return f"there are no rows to train on ({', '.join(self.sets)})"
        return unchangeable(target)

    def run(self, target: Target, rows: AttackedRows) -> Iterable[Leak]:
        before = leak(target, rows, {})
        assert before.utility is not None
        for name, trained in self._trained(rows).items():
            given = rows.given(self.share) if name == "forget" else []
            for adapter, rate in product(self.adapters, self.rates):
                setting: dict[str, int | float | str] = {"set": name, "rate": rate, "weights": adapter}
                yield Leak(setting | {"step": 0}, _without(before.rows, given), before.utility)
                model = self._copy(target, adapter)
                for step in self._path(target, model, trained, rate):
                    after = leak(target, rows, setting | {"step": step}, model)
                    if not np.isfinite(after.rows).all():
                        break
                    yield replace(after, rows=_without(after.rows, given))
                    if after.utility is not None and after.utility < COLLAPSED * before.utility:
                        break

    def _trained(self, rows: AttackedRows) -> dict[str, Sequence[TokenizedRow]]:
        """The rows of every set that has any."""
        given = [rows.rows[place] for place in rows.given(self.share)]
        sets = {"forget": given, "related": rows.related, "unrelated": rows.unrelated}
        return {name: sets[name] for name in self.sets if len(sets[name])}

    def _path(self, target: Target, model: nn.Module, rows: Sequence[TokenizedRow], rate: float) -> Iterator[int]:
        """Train a model in place, and stop for each measurement: the number of steps so far."""
        for step in fine_tune(
            model, rows, target.collator, steps=self.steps, batch=self.batch, rate=rate, seed=target.seed
        ):
            if step % self.every == 0 or step == self.steps:
                yield step

    def _copy(self, target: Target, adapter: str) -> nn.Module:
        """The weights to train: all of a copy of the model, or a fresh LoRA on it."""
        model = target.weights_copy()
        if adapter == "full":
            return model
        return with_new_adapter(model, self.rank, target.seed)


def _without(leaks: NDArray[np.float64], given: list[int]) -> NDArray[np.float64]:
    """Leaks of all rows, NaN for those that the attacker was given."""
    kept = leaks.copy()
    kept[given] = np.nan
    return kept
