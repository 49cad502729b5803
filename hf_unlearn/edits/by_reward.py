"""What edits by reward share: the arguments of the reward, who judges, and the setups that they cannot be done in."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import PartialState
from torch import nn

from ..data.tokenized_row import prompt_ids
from ..evaluation import HarmfulnessJudge
from ..evaluation.judges.judge import source_name
from ..model.forward_patching import restored_forward
from .base import Edit, EditData
from .rewards import Rewards, RewardWeights

OVERLAP = "overlap"
_SEEDS = 1_000_003  # of draws, for each seed of a run
_LAST = 5  # calls that the logged reward is the mean of


@dataclass(frozen=True)
class ByReward(Edit):
    """Trains on the model's own answers, by what they are worth. It changes behaviour, and hardly what is known.

    Args:
        rollouts: answers that are drawn to a prompt.
        temperature: of the draws.
        behaviour, fluency, overlap, boundary: weights of the parts of the reward (`RewardParts.rewards`).
        judge: who flags the behaviour for the reward: a text classifier (folder, or id on the Hub), "overlap" for
            overlap with the row's own answer, or None for the judge of the run, and overlap where it has none.
        retain_weight: of the mean NLL of a batch of retain rows, added to the loss of every step.
        retain_batch: retain rows of a step.
        max_new_tokens: of an answer; None for as many as the longest row's own answer has.
    """

    rollouts: int = 8
    temperature: float = 1.0
    behaviour: float = 1.0
    fluency: float = 2.0
    overlap: float = 1.0
    boundary: float = 2.0
    judge: str | None = None
    retain_weight: float = 1.0
    retain_batch: int = 8
    max_new_tokens: int | None = None

    reads = frozenset({"forget", "retain"})
    needs_before = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("temperature", "retain_batch")
        self.require_not_negative("behaviour", "fluency", "overlap", "boundary", "retain_weight")
        self.require("rollouts", self.rollouts >= 2, "2 or more: an answer is worth more or less than others")
        self.require("max_new_tokens", self.max_new_tokens is None or self.max_new_tokens > 0, "above 0")

    def unfit(self, model: Any, data: EditData) -> str | None:
        if PartialState().num_processes > 1:
            return f"{PartialState().num_processes} processes would each train a model of their own"
        special = set(data.questioner.tokenizer.all_special_ids)
        empty = sum(special.issuperset(prompt_ids(row)) for row in (*data.forget, *data.retain))
        return f"{empty} rows have no prompt to answer" if empty else None

    def warnings(self, data: EditData) -> list[str]:
        reports = None if data.judge is None else str(getattr(data.judge, "name", "the judge of the run"))
        if self.judge is None and reports is not None:
            same = reports
        elif reports is None and self.judge in (None, OVERLAP):
            same = "overlap with the row's own answer"
        elif reports is not None and self.judge is not None and reports.startswith(f"{source_name(self.judge)} ("):
            same = reports
        else:
            return []
        return [
            f"The answers were rewarded by what also reports on them ({same}): its figures are of what was trained "
            "for. Let another judge give the reward (judge=...), or another report."
        ]

    def rewards(self, data: EditData) -> Rewards:
        """The rewards of answers to the rows' prompts."""
        judge = data.judge if self.judge is None else None if self.judge == OVERLAP else HarmfulnessJudge(self.judge)
        weights = RewardWeights(self.behaviour, self.fluency, self.overlap, self.boundary)
        rewards = Rewards(data.questioner, data.before, data.forget, data.retain, weights, judge)
        rewards.longest = self.max_new_tokens or rewards.longest
        return rewards


def draw_seeds(seed: int, drawn: int, count: int) -> list[int]:
    """Seeds of the next answers, so that equal prompts get unlike draws.

    Args:
        seed: of the run.
        drawn: answers that were drawn before.
        count: of answers.
    """
    return [_SEEDS * seed + drawn + number for number in range(count)]


def last_means(log: list[dict[str, float]]) -> dict[str, float]:
    """The means of the parts of the reward over the last calls, for a report."""
    last = log[-_LAST:]
    names = dict.fromkeys(name for entry in last for name in entry)
    values = {name: [entry[name] for entry in last if name in entry] for name in names}
    return {name: sum(numbers) / len(numbers) for name, numbers in values.items()}


@contextmanager
def trained_in_fp32(model: nn.Module) -> Iterator[None]:
    """Weights of 16 bits are of 32 inside, and rounded once at the end: steps of small rates would be lost in them."""
    types = {weight: weight.dtype for weight in model.parameters() if weight.dtype in (torch.bfloat16, torch.float16)}
    for weight in types:
        weight.data = weight.data.float()
    try:
        yield
    finally:
        for weight, dtype in types.items():
            weight.data = weight.data.to(dtype)


@contextmanager
def settings_restored(model: Any) -> Iterator[None]:
    """What a Trainer writes into a model's settings is taken back: special tokens, tags, a patched forward."""
    holders = (model.config, model.config.get_text_config(), model.generation_config)
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "use_cache")
    kept = [(holder, {name: getattr(holder, name) for name in names if hasattr(holder, name)}) for holder in holders]
    tags = copy.copy(getattr(model, "model_tags", None))
    try:
        with restored_forward(model):
            yield
    finally:
        for holder, values in kept:
            for name, value in values.items():
                setattr(holder, name, value)
        model.model_tags = tags
