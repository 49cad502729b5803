"""Unlearning by reward without a policy gradient: sampled answers, sorted by reward, as text to train on (Quark)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..data.batch import indexed
from ..data.tokenized_row import TokenizedRow, prompt_ids
from ..model.fine_tuning import answer_nll, row_batches
from ..model.output_head import output_head
from ..results.edit_report import Tried
from .base import EditData
from .by_reward import ByReward, draw_seeds, last_means, trained_in_fp32
from .rewards import Rewards, as_row


@dataclass(frozen=True)
class Quark(ByReward):
    """Quantised reward conditioning: what was sampled is learnt under a mark of how good it was, the best without it.

    Each round draws answers to `prompts` forget and as many retain prompts, half of them from round two on under the
    mark of the best. It adds them to the pool and sorts those of forget and of retain prompts into `quantiles`.
    Then `steps` steps train on batches of the pool: half of each are answers of any quantile after its mark and the
    prompt, half are answers of the best quantile after the prompt alone. So nothing has to be put before a prompt in
    the end: the mark, which is ordinary text, only steers what is sampled, and the vocabulary stays as it is.

    The paper's KL to the model before is left to the retain rows: on answers of earlier rounds its estimate is none.

    Args:
        rounds: of sampling and training.
        steps: optimizer steps of a round.
        rate: learning rate, constant, of AdamW without weight decay.
        batch: answers of a step.
        prompts: forget prompts of a round, and as many retain prompts; each has `rollouts` answers.
        quantiles: K.

    Paper: Lu et al. 2022, https://arxiv.org/abs/2205.13636.
    """

    retain_weight: float = 2.0
    rounds: int = 8
    steps: int = 40
    rate: float = 1e-3
    batch: int = 16
    prompts: int = 32
    quantiles: int = 5

    name = "quark"
    formula = "NLL(answer | mark of its quantile, prompt) + NLL(best answer | prompt) + w NLL(retain)"
    paper = "Lu et al. 2022, arXiv:2205.13636"
    cost = "rounds x 2 prompts x rollouts answers, each generated and scored once; rounds x steps batches"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("rounds", "steps", "rate", "prompts")
        self.require("batch", self.batch >= 2, "2 or more, half of them without a mark")
        self.require("quantiles", self.quantiles >= 2, "2 or more")

    def unfit(self, model: Any, data: EditData) -> str | None:
        known = quantile_marks(data.questioner.tokenizer, self.quantiles)
        if len({tuple(mark) for mark in known}) < self.quantiles:
            return "its tokenizer has the same tokens for all numbers, which mark the quantiles"
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        rows = (*data.forget, *data.retain)
        room = max(len(row["input_ids"]) for row in rows) + len(known[-1])
        if self.max_new_tokens is not None:
            room = max(len(prompt_ids(row)) for row in rows) + self.max_new_tokens + len(known[-1])
        if positions is not None and room > positions:
            return f"rows with a mark before them take {room} positions, and it has {positions}"
        return super().unfit(model, data)

    def run(self, model: Any, data: EditData) -> list[Tried]:
        tokenizer, rewards = data.questioner.tokenizer, self.rewards(data)
        pool = Pool(rewards, quantile_marks(tokenizer, self.quantiles), tokenizer.bos_token_id)
        forget = row_batches(range(len(data.forget)), self.prompts, data.seed)
        kept = row_batches(range(len(data.forget), len(rewards.prompts)), self.prompts, data.seed)
        tried = [data.tried(model, {"round": 0})]
        with trained_in_fp32(model):
            learner = _Learner(self, model, data)
            for number in range(self.rounds):
                rows = [place for batch in (next(forget), next(kept)) for place in batch]
                places = [place for place in rows for _ in range(self.rollouts)]
                answers = data.questioner.answers(
                    model,
                    [pool.marked(place, best=number > 0 and draw % 2 == 1) for draw, place in enumerate(places)],
                    max_new_tokens=rewards.longest,
                    temperature=self.temperature,
                    seeds=draw_seeds(data.seed, number * len(places), len(places)),
                    ended=True,
                )
                pool.add(places, answers)
                learner.learn(pool, data.seed + number)
        return [*tried, data.tried(model, {"round": self.rounds, **last_means(rewards.log)})]


@dataclass
class Pool:
    """All answers sampled so far, with their rewards.

    Attributes:
        rewards: of answers; it holds the prompts.
        marks: token ids of the mark of each quantile, the worst first.
        bos: token that stays before a mark where a prompt starts with it.
    """

    rewards: Rewards
    marks: Sequence[list[int]]
    bos: int | None
    places: list[int] = field(default_factory=list)
    answers: list[list[int]] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, places: Sequence[int], answers: Sequence[list[int]]) -> None:
        """Reward answers and keep them."""
        self.values += self.rewards(places, answers).tolist()
        self.places += places
        self.answers += answers

    def rows(self) -> tuple[list[TokenizedRow], list[TokenizedRow]]:
        """Answers after the mark of their quantile and the prompt; those of the best quantile after the prompt alone.

        Quantiles are those of the answers to forget prompts, and of the others, apart. Where all are worth the same
        none is the best.
        """
        values, forget = np.array(self.values), np.array(self.places) < len(self.rewards.forget)
        after_mark, alone = [], []
        for kind in (forget, ~forget):
            chosen = np.flatnonzero(kind)
            bins = quantile_bins(values[chosen], len(self.marks))
            mean = values[chosen].mean() if len(chosen) else 0.0
            for i, quantile in zip(chosen, bins, strict=True):
                place, answer = self.places[i], self.answers[i]
                after_mark.append(as_row(self._after(self.marks[quantile], place), answer))
                if quantile == len(self.marks) - 1 and values[i] > mean:
                    alone.append(as_row(self.rewards.prompts[place], answer))
        return after_mark, alone

    def marked(self, place: int, *, best: bool) -> list[int]:
        """A prompt, under the mark of the best quantile or as it is."""
        return self._after(self.marks[-1] if best else [], place)

    def _after(self, mark: list[int], place: int) -> list[int]:
        prompt = self.rewards.prompts[place]
        start = int(self.bos is not None and prompt[0] == self.bos)
        return [*prompt[:start], *mark, *prompt[start:]]


def quantile_bins(values: NDArray[np.float64], quantiles: int) -> NDArray[np.int64]:
    """The quantile of each value, 0 the lowest: floor(K (share of lower ones + half the share of equals)), [N].

    Equal values share a quantile. Where the highest are so many that their middle lies below the last quantile, all
    move up until the highest are in it.
    """
    ordered = np.sort(values)
    middle = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2
    bins = np.minimum((quantiles * middle / max(len(values), 1)).astype(np.int64), quantiles - 1)
    return bins + (quantiles - 1 - bins.max(initial=0)) if len(bins) else bins


def quantile_marks(tokenizer: PreTrainedTokenizerBase, quantiles: int) -> list[list[int]]:
    """Token ids of the mark of each quantile, the worst first."""
    texts = [f"[{number} of {quantiles}] " for number in range(1, quantiles + 1)]
    return [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]


class _Learner:
    """Trains on the pool, round after round, with one optimizer."""

    def __init__(self, edit: Quark, model: Any, data: EditData) -> None:
        self._edit, self._model, self._collator = edit, model, data.questioner.collator
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._optimizer = torch.optim.AdamW(weights, lr=edit.rate, weight_decay=0.0)
        self._head = output_head(model)
        self._retain = row_batches(data.retain, edit.retain_batch, data.seed)

    def learn(self, pool: Pool, seed: int) -> None:
        """Take the steps of a round."""
        half = self._edit.batch // 2
        after_mark, alone = pool.rows()
        marked = row_batches(after_mark, self._edit.batch - half, seed)
        best: Iterator[list[TokenizedRow]] | None = row_batches(alone, half, seed) if alone else None
        for _ in range(self._edit.steps):
            loss = self._nll([*next(marked), *(next(best) if best else [])])
            if self._edit.retain_weight:
                loss = loss + self._edit.retain_weight * self._nll(next(self._retain))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
            self._optimizer.step()
            self._optimizer.zero_grad()

    def _nll(self, rows: Sequence[TokenizedRow]) -> Tensor:
        batch = indexed(self._collator.collate_rows(list(rows)))
        return answer_nll(
            self._model, self._head, {name: value.to(self._model.device) for name, value in batch.items()}
        )
