"""Contrast: what two published checkpoints, before and after unlearning, give away by what they differ in."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..data.tokenized_row import prompt_ids
from ..evaluation.generation import answer_room, left_padded
from ..evaluation.stop_rule import StopRule
from ..model.score_rows import evaluation_mode
from .answer_scores import ANSWER_SCORE, answer_scores, expected_answers, longest_answer, unasked
from .arguments import as_tuple, is_number
from .base import Attack, Leak, Threat
from .lockstep import Steps, Way, batches, common_way, grown
from .rows import AttackedRows
from .target import Target

# Instead of the log of a probability of 0, nats: less than any other, and 0 times it is 0.
_NEVER = -1e4


@dataclass(frozen=True)
class Contrast(Attack):
    """Greedy decoding of (1 + w) log p_before - w log p_after among tokens that the model before finds likely.

    y_t = argmax over tokens v with log p_before(v) >= max log p_before - c. What the two models agree on cancels, and
    what unlearning took away stands out.

    Who has the model before has most of the rows from it alone: w = 0, which comes first, is its own greedy answer,
    whatever the model after is. So the leak itself says little of the unlearning. What does is how much more the
    pair gives away than the model before with a retrained model in its place: the same attack on the oracle. The
    paper's point is that even exact retraining leaks in this way: publishing both models gives the rows away. An
    adapter beside its base is such a pair.

    Args:
        weights: w, above 0; 0 is always among the settings.
        margin: c, nats, above 0.

    Paper: Wu et al. 2025, https://arxiv.org/abs/2505.24379; its guidance scale is 1 + w, and 5 nats are its code's.
    """

    weights: tuple[float, ...] = (0.5, 1.0, 2.0)
    margin: float = 5.0

    name = "contrast"
    threat = Threat.WEIGHTS_AND_BEFORE
    given = "the prompts, and the model before unlearning"
    score = ANSWER_SCORE
    cost = "two models' answers to each row for each weight"
    formula = "argmax (1 + w) log p_before - w log p_after, log p_before >= max - c"
    paper = "Wu et al. 2025, arXiv:2505.24379"

    def __post_init__(self) -> None:
        super().__post_init__()
        as_tuple(self, "weights", lambda value: is_number(value) and 0 < value < math.inf, "above 0 and finite")
        self.require_positive("margin")

    def unfit(self, target: Target, rows: AttackedRows) -> str | None:
        return (
            unasked(rows.rows) if target.before is not None else "there is no model before unlearning to contrast with"
        )

    def run(self, target: Target, rows: AttackedRows) -> Iterable[Leak]:
        expected = expected_answers(target, rows.rows)
        texts = [target.text(ids) for ids in expected]
        prompts = [prompt_ids(row) for row in rows.rows]
        way = common_way([target.before, target.model])
        for weight in (0.0, *sorted(self.weights)):
            answers = self.answers(target, prompts, weight, longest_answer(expected), way)
            yield Leak({"w": weight}, answer_scores(target, [target.text(ids) for ids in answers], texts))

    def answers(
        self, target: Target, prompts: Sequence[Sequence[int]], weight: float, max_new_tokens: int, way: Way
    ) -> list[list[int]]:
        """Token ids of what is decoded behind each prompt, in order, without what ends it."""
        models: tuple[Any, Any] = (target.before, target.model)
        rooms = [min(max_new_tokens, *(answer_room(model, len(prompt)) for model in models)) for prompt in prompts]
        stop = StopRule.of(target.before, target.tokenizer, target.ends)
        answers: list[list[int]] = [[] for _ in prompts]
        with evaluation_mode(models[0]), evaluation_mode(models[1]):
            for places in batches(prompts, rooms, way, target.batch_size):
                asked = [prompts[place] for place in places]
                ids, mask = left_padded(asked, target.tokenizer.pad_token_id or 0).values()
                before, after = (Steps(model, way.cached) for model in models)
                going = set(places)
                for _ in range(rooms[places[0]]):
                    tokens = self._chosen(before(ids, mask), after(ids, mask), weight)
                    ids, mask = grown(ids, mask, tokens)
                    for place, token in zip(places, tokens.tolist(), strict=True):
                        if place in going:
                            answers[place].append(token)
                            if stop.strip(answers[place]) != answers[place]:
                                going.remove(place)
                    if not going:
                        break
        return [stop.strip(ids) for ids in answers]

    def _chosen(self, before: Tensor, after: Tensor, weight: float) -> Tensor:
        """The next token of each row: two [B, V] of logits -> [B]."""
        shared = min(before.shape[-1], after.shape[-1])  # a vocabulary may have been padded
        old = before[:, :shared].log_softmax(-1)
        new = after[:, :shared].log_softmax(-1).to(old.device).clamp(min=_NEVER)
        likely = old >= old.max(-1, keepdim=True).values - self.margin
        return ((1 + weight) * old - weight * new).masked_fill(~likely, -math.inf).argmax(-1)
