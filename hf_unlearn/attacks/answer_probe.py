"""Answer probe: whether the hidden state at a prompt's end tells the row's own answer from those of other rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.tokenized_row import prompt_ids, trained_ids
from ..model.hidden_states import decoder_blocks
from .base import Attack, Leak, Threat
from .blocks import from_the_top, no_blocks
from .placement import shares_below
from .probe import prompt_states
from .prompt_parts import special_tokens
from .rows import AttackedRows
from .target import Target

Floats = NDArray[np.float64]

_FEWEST = 16  # retain rows: below, there are hardly two that share a token of their answers


@dataclass(frozen=True)
class AnswerProbe(Attack):
    """Ridge regression from hidden states at the prompt's end to the tokens of the answer, fitted on retain rows.

    A model that hides an answer may still be about to give it. For each token that two answers of retain rows hold or
    more, a linear map of the hidden state says how likely the answer holds it, in standard deviations. An answer's
    score is the sum over its tokens that the prompt does not hold, over the root of their number, and the leak is
    where the row's own answer stands among those of its half of the rows. What a prompt tells of its answer by its
    topic shows in the controls, too. The first setting is a guess, 0.5 for every row; one more shows what shuffled
    answers give.

    Args:
        every: each so many layers, from the last one down.
        ridge: of the maps, in units of the states' variance; above 0.
        fitted: retain rows that the maps are fitted on, at most.

    Paper: Alain et al. 2016, https://arxiv.org/abs/1610.01644.
    """

    every: int = 1
    ridge: float = 1.0
    fitted: int = 500

    name = "answer_probe"
    threat = Threat.WEIGHTS
    formula = "P(s(other row's answer) < s(own answer)), s(y) = sum_t w_t h_l / sqrt(n), w_t fitted on retain rows"
    paper = "Alain et al. 2016, arXiv:1610.01644"
    given = "the prompts, the answers of all rows without which is whose, and retain rows"
    score = "share of the other rows' answers that stand below the row's own (0.5 is chance)"
    content = False
    cost = "a forward of all rows and some retain rows, and a system of equations a layer"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("every", self.every >= 1, "1 or above")
        self.require_positive("ridge")
        self.require("fitted", self.fitted >= _FEWEST, f"{_FEWEST} or above")

    def unfit(self, target: Target, rows: AttackedRows) -> str | None:
        if len(rows.retain) < _FEWEST or min(rows.tuned.sum(), (~rows.tuned).sum()) < 2:
            return f"it needs {_FEWEST} retain rows to fit the probe on, and two rows in either half to tell apart"
        return no_blocks(target.model)

    def run(self, target: Target, rows: AttackedRows) -> Iterable[Leak]:
        yield Leak({"by": "guess"}, np.full(len(rows.rows), 0.5))
        layers = from_the_top(decoder_blocks(target.model), self.every)
        known = list(rows.retain[: self.fitted])
        fitted, asked = (prompt_states(target, group, layers, "last") for group in (known, rows.rows))
        special = special_tokens(target.tokenizer)
        known_answers, own_answers = ([trained_ids(row["labels"]) for row in group] for group in (known, rows.rows))
        tokens = sorted({token for answer in known_answers for token in answer} - special)
        answers, own = _held(known_answers, tokens), _held(own_answers, tokens)
        prompts = _held([prompt_ids(row) for row in rows.rows], tokens)
        shuffled = np.random.default_rng(target.seed).permutation(len(known))
        for labels, order, tried in (("shuffled", shuffled, layers[:1]), ("true", np.arange(len(known)), layers)):
            for layer in tried:
                predicted, common = predict_tokens(fitted[layer], answers[order], asked[layer], self.ridge)
                flags = (predicted, own[:, common], prompts[:, common])
                leak = np.empty(len(rows.rows))
                for half in (rows.tuned, ~rows.tuned):  # apart, so that what is reported has no part in the choice
                    leak[half] = answer_placements(*(of_rows[half] for of_rows in flags))
                yield Leak({"by": "probe", "layer": layer, "labels": labels}, leak)


def predict_tokens(states: Floats, answers: Floats, asked: Floats, ridge: float) -> tuple[Floats, NDArray[np.intp]]:
    """How likely answers hold tokens, in standard deviations, and the tokens: ([N, V'], [V']).

    Args:
        states: [M, H] of rows whose answers are known.
        answers: [M, V] flags of the tokens that they hold.
        asked: [N, H] of rows whose answers are not.
        ridge: in units of the states' variance.
    """
    share = answers.mean(0)
    common = np.flatnonzero((answers.sum(0) >= 2) & (share < 1))
    deviation = np.sqrt(share[common] * (1 - share[common]))
    spread = states.std(0) + 1e-9
    known, unknown = (states - states.mean(0)) / spread, (asked - states.mean(0)) / spread
    inner = known @ known.T  # [M, M]: rows are fewer than tokens, and mostly than widths
    inner[np.diag_indices_from(inner)] += ridge * len(known)
    weights = np.linalg.solve(inner, (answers[:, common] - share[common]) / deviation)
    return unknown @ known.T @ weights, common


def answer_placements(predicted: Floats, answers: Floats, prompts: Floats) -> Floats:
    """Where each row's own answer stands among those of the others, ties counted half, [N].

    Args:
        predicted: [N, V] how likely each row's answer holds a token.
        answers: [N, V] flags of the tokens that answers hold.
        prompts: [N, V] flags of the tokens that prompts hold, which tell nothing of the answer.
    """
    new = 1 - prompts
    scores = (predicted * new) @ answers.T / np.sqrt(np.maximum(new @ answers.T, 1))  # [N rows, N answers]
    return np.array([shares_below(own[[i]], np.delete(own, i))[0] for i, own in enumerate(scores)])


def _held(lists: Sequence[Sequence[int]], tokens: Sequence[int]) -> Floats:
    """Flags of the tokens that lists hold, [N, tokens]; other tokens are passed over."""
    columns = {token: column for column, token in enumerate(tokens)}
    flags = np.zeros((len(lists), len(tokens)))
    for line, held in zip(flags, lists, strict=True):
        line[[columns[token] for token in held if token in columns]] = 1
    return flags
