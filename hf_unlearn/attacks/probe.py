"""Linear probe: whether the hidden state at a prompt's end tells rows that were trained from rows never seen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.tokenized_row import TokenizedRow, answer_start
from ..metrics.unseen import classifier_scores
from ..model.hidden_states import decoder_blocks
from .base import Attack, Leak, Threat
from .blocks import batches, from_the_top, hidden_states, no_blocks
from .placement import SCORE, classes, consecutive_folds, placed_by_decision, too_few
from .rows import AttackedRows
from .target import Target

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LinearProbe(Attack):
    """Logistic regression on hidden states at the prompt's end, layer by layer: trained rows against never-seen ones.

    A model may have lost the answer and still know the question. Each row is scored by a probe that was fitted without
    it and without its neighbours: the folds are runs of rows that follow each other, as the rows of one thing mostly
    do, so that no probe has met that thing's name. The first setting is a guess, 0.5 for every row; one more shows
    what a probe fitted on shuffled labels gives. What tells the two sets' wording apart shows in the oracle's leak,
    too, and without an oracle it cannot be told from a leak.

    Args:
        at: what of the prompt is read: its "last" hidden state, or the "mean" over its tokens.
        every: each so many layers, from the last one down.

    Paper: Alain et al. 2016, https://arxiv.org/abs/1610.01644.
    """

    at: str = "last"
    every: int = 1

    name = "probe"
    threat = Threat.WEIGHTS
    formula = "P(w h_l(never-seen row) < w h_l(row)), w a logistic regression of other rows at layer l"
    paper = "Alain et al. 2016, arXiv:1610.01644"
    given = "the prompts, never-seen rows, and which of the other rows were trained"
    score = SCORE
    cost = "a forward of all rows, and five fits a layer"
    content = False
    places = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("at", self.at in ("last", "mean"), "'last' or 'mean'")
        self.require("every", self.every >= 1, "1 or above")

    def unfit(self, target: Target, rows: AttackedRows) -> str | None:
        return too_few(rows) or no_blocks(target.model)

    def run(self, target: Target, rows: AttackedRows) -> Iterable[Leak]:
        yield Leak({"by": "guess"}, np.full(len(rows.rows), 0.5))
        layers = from_the_top(decoder_blocks(target.model), self.every)
        own = prompt_states(target, rows.rows, layers, self.at)
        unseen = own if rows.control else prompt_states(target, rows.unseen, layers, self.at)
        for labels, tried in (("shuffled", layers[:1]), ("true", layers)):
            for layer in tried:
                leak = _placed(own[layer], unseen[layer], rows, target.seed if labels == "shuffled" else None)
                yield Leak({"by": "probe", "layer": layer, "labels": labels}, leak)


def prompt_states(target: Target, rows: Sequence[TokenizedRow], layers: Sequence[int], at: str) -> dict[int, Floats]:
    """By layer the "last" hidden state of each row's prompt or their "mean", [N, H]; what is no finite number is 0."""
    states: dict[int, dict[int, Floats]] = {layer: {} for layer in layers}
    for places, batch in batches(target, rows):
        for layer, hidden in hidden_states(target.model, batch, layers).items():
            for place, tokens in zip(places, hidden, strict=True):
                prompt = tokens[: max(1, answer_start(rows[place]))].float()
                read = prompt[-1] if at == "last" else prompt.mean(0)
                states[layer][place] = torch.nan_to_num(read, 0.0, 0.0, 0.0).cpu().double().numpy()
    return {layer: np.stack([of_rows[place] for place in range(len(rows))]) for layer, of_rows in states.items()}


def _placed(own: Floats, unseen: Floats, rows: AttackedRows, shuffle: int | None) -> Floats:
    """Placement by a probe; with a seed by one whose labels are shuffled, within folds: what fitting alone gives."""
    table, member = classes(own, unseen, rows)
    folds = consecutive_folds(member)
    labels = member.copy()
    if shuffle is not None:
        generator = np.random.default_rng(shuffle)
        for fold in np.unique(folds):
            labels[folds == fold] = generator.permutation(labels[folds == fold])
    return placed_by_decision(classifier_scores(table, labels, folds), member, folds, rows)
