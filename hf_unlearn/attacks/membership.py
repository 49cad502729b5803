"""Membership inference: whether the likelihood of its answer tells a row from rows that were never seen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..data.tokenized_row import TokenizedRow, trained_ids
from ..metrics.membership import loss_scores, min_k_scores, zlib_scores
from ..metrics.unseen import drawn_folds, loss_features
from .base import Attack, Leak, Threat
from .placement import SCORE, placed, placed_by_classifier, too_few
from .rows import AttackedRows
from .target import Target

Floats = NDArray[np.float64]

# Rows that were trained to be unlikely are as well told as rows that are too likely.
_SIDES = {"likelier": 1.0, "unlikelier": -1.0}


@dataclass(frozen=True)
class Membership(Attack):
    """Tells the rows from rows that no model was trained on, by the log-probabilities of their answers.

    Three scores, each from both sides, as a row that was pushed below what is usual stands out too: the mean
    log-probability (Yeom et al.), the mean of the lowest share k (Shi et al.), and the mean over the compressed size
    (Carlini et al.); and a cross-validated logistic regression on mean, quantiles, min-k and zlib score, which is told
    which of the other rows were trained. The first setting is a guess: 0.5 for every row. Rows and never-seen rows
    must be alike but for the training: what else tells them apart shows in the oracle's leak, and without an oracle it
    cannot be told from a leak.

    Args:
        k: share of the tokens in min-k, above 0 and up to 1.

    Paper: Yeom et al. 2018, https://arxiv.org/abs/1709.01604; Carlini et al. 2021, https://arxiv.org/abs/2012.07805;
    Shi et al. 2024, https://arxiv.org/abs/2310.16789.
    """

    k: float = 0.4

    name = "membership"
    threat = Threat.LOGITS
    formula = "P(score(never-seen row) < score(row)), score in {mean lp, min-k lp, lp / zlib, classifier}"
    paper = (
        "Yeom et al. 2018, arXiv:1709.01604; Carlini et al. 2021, arXiv:2012.07805; Shi et al. 2024, arXiv:2310.16789"
    )
    given = "the rows whole and never-seen rows; the classifier also which other rows were trained"
    score = SCORE
    cost = "a forward of all rows"
    content = False
    places = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("k", 0 < self.k <= 1, "above 0 and up to 1")

    def unfit(self, target: Target, rows: AttackedRows) -> str | None:
        return too_few(rows)

    def run(self, target: Target, rows: AttackedRows) -> Iterable[Leak]:
        yield Leak({"by": "guess"}, np.full(len(rows.rows), 0.5))
        own = self._scores(target, rows.rows)
        unseen = own if rows.control else self._scores(target, rows.unseen)
        for by in ("loss", "zlib", "min_k"):
            for side, sign in _SIDES.items():
                yield Leak({"by": by, "side": side}, placed(sign * own[by], sign * unseen[by], rows))
        features, others = own["features"], unseen["features"]
        if np.isfinite(features).all() and np.isfinite(others).all():  # else the scores above tell the rows
            split = partial(drawn_folds, seed=target.seed)
            yield Leak({"by": "classifier"}, placed_by_classifier(features, others, rows, split))

    def _scores(self, target: Target, rows: Sequence[TokenizedRow]) -> dict[str, Floats]:
        logps = target.logps(rows)
        texts = [target.text(trained_ids(row["labels"])) for row in rows]
        return {
            "loss": loss_scores(logps),
            "zlib": zlib_scores(logps, texts),
            "min_k": min_k_scores(logps, self.k),
            "features": loss_features(logps, texts),
        }
