"""Levels of the model before unlearning, on which runs are bounded and stopped: row bound, stop target, retain NLL."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.pairing import is_stream
from ..data.prepare import TrainSets
from ..errors import input_error
from ..model.score_rows import RowLogps, RowScorer
from .config import UnlearningConfig
from .levels.levels import Levels
from .levels.setting import reads_holdout
from .model_setup import log_vocabulary

# Training rows that stand for the whole retain set, which may be far larger than what a run sees of it.
_RETAIN_SAMPLE = 512


def watched_rows(retain: Any) -> Any:
    """Retain rows whose NLL before unlearning the guard compares with: all of a small set, else one in so many."""
    if retain is None or is_stream(retain) or len(retain) <= _RETAIN_SAMPLE:
        return retain
    return retain.select(np.linspace(0, len(retain) - 1, _RETAIN_SAMPLE, dtype=int).tolist())


@dataclass(frozen=True)
class Baseline:
    """Levels taken from the model before unlearning, nats per token.

    Attributes:
        bound: where a forget row stops pushing: one number, one per forget row [N], or None.
        forget_target: forget NLL at which the run stops, or None.
        retain_nll: NLL of the retain rows, which the guard compares with, or None.
        holdout_nll: NLL of the holdout rows, or None.
        levels: what a model that never saw the forget rows would give them, or None.
    """

    bound: float | Tensor | None = None
    forget_target: float | None = None
    retain_nll: float | None = None
    holdout_nll: float | None = None
    levels: Levels | None = None

    def retain_limit(self, args: UnlearningConfig) -> float | None:
        """Retain NLL above which the run stops, or None."""
        if self.retain_nll is None or args.stop_retain_nll_increase is None:
            return None
        return self.retain_nll + args.stop_retain_nll_increase


def needs_holdout(args: UnlearningConfig) -> bool:
    """Whether a level is to be calibrated on rows that the model has never seen."""
    return (
        reads_holdout(args.levels)
        or args.forget_nll_bound in ("holdout", "holdout_quantiles")
        or args.stop_forget_nll == "holdout"
    )


def measures_before(args: UnlearningConfig) -> bool:
    """Whether levels, a bound or a stop rule rest on what the model before unlearning gives to rows."""
    return needs_holdout(args) or args.stop_retain_nll_increase is not None


def measure_baseline(
    model: nn.Module,
    args: UnlearningConfig,
    scorer: RowScorer,
    sets: TrainSets,
    retain: Any,
    levels: Levels | None = None,
    unseen: RowLogps | None = None,
) -> Baseline:
    """Measure what the arguments ask for, and nothing else.

    Args:
        model: before unlearning.
        args: of the run.
        scorer: how rows are scored.
        sets: their forget rows are ranked for "holdout_quantiles"; the model has never seen their holdout rows.
        retain: tokenised rows that the retain guard is to watch, or None.
        levels: of the forget rows, where the arguments ask for them.
        unseen: scores of the holdout rows, where they are known already.
    """
    if unseen is None and needs_holdout(args):
        unseen = scorer(model, sets.holdout, "likelihoods of holdout rows")
    holdout_nll = None if unseen is None else unseen.mean_nll()
    retain_nll = None
    if args.stop_retain_nll_increase is not None and retain is not None:
        retain_nll = scorer(model, retain, "likelihoods of retain rows").mean_nll()
    target = holdout_nll if args.stop_forget_nll == "holdout" else args.stop_forget_nll
    assert not isinstance(target, str)
    return Baseline(
        bound=_bound(model, args, scorer, sets.forget, unseen, levels),
        forget_target=target,
        retain_nll=retain_nll,
        holdout_nll=holdout_nll,
        levels=levels,
    )


def _bound(
    model: nn.Module,
    args: UnlearningConfig,
    scorer: RowScorer,
    forget: Any,
    unseen: RowLogps | None,
    levels: Levels | None,
) -> float | Tensor | None:
    if args.forget_nll_bound == "levels":
        assert levels is not None
        return levels.rows
    if args.forget_nll_bound == "log_vocab":
        return log_vocabulary(scorer.accelerator.unwrap_model(model))
    if args.forget_nll_bound == "holdout":
        assert unseen is not None
        return float(unseen.nll_per_token().mean())
    if args.forget_nll_bound == "holdout_quantiles":
        assert unseen is not None
        before = scorer(model, forget, "likelihoods of forget rows").nll_per_token()
        return matched_quantiles(before, unseen.nll_per_token()).to(scorer.accelerator.device)
    assert not isinstance(args.forget_nll_bound, str)
    return args.forget_nll_bound


def matched_quantiles(forget: Tensor, unseen: Tensor) -> Tensor:
    """For each forget row the unseen rows' quantile at its own rank: [N], [M] -> [N], nats per token.

    The least memorised forget row gets the highest bound, so that the bounded set can take the shape of unseen data
    and not just its mean.
    """
    ranks = torch.empty_like(forget)
    ranks[forget.argsort(stable=True)] = (torch.arange(len(forget), dtype=forget.dtype) + 0.5) / len(forget)
    return torch.quantile(unseen, ranks)


def require_measurable(args: UnlearningConfig, holdout: Any) -> None:
    """Raise when a level is to be measured on rows that are not there."""
    calibrated = [
        name
        for name, names in (("forget_nll_bound", ("holdout", "holdout_quantiles")), ("stop_forget_nll", ("holdout",)))
        if getattr(args, name) in names
    ]
    calibrated += ["levels"] if reads_holdout(args.levels) else []
    if calibrated and holdout is None:
        raise input_error(
            expected=f"train_dataset['holdout'], for {calibrated[0]}={getattr(args, calibrated[0])!r}",
            got="no holdout rows",
            why="the level of unseen data is measured on rows that the model was never trained on",
            fix="pass train_dataset={'forget': ..., 'retain': ..., 'holdout': ...}, or a number",
        )
