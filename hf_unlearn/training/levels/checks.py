"""Levels that cannot be had, or that nothing would read: refused before the model is loaded."""

from collections.abc import Mapping
from typing import Any

from ...data.pairing import is_stream
from ...data.prepare import TrainSets
from ...errors import input_error
from ...losses.base import Needs
from ..config import UnlearningConfig
from .setting import NGRAM

_FEWEST = 2  # calibration rows, below which there is no spread to speak of


def require_levels(args: UnlearningConfig, sets: TrainSets, needs: Needs) -> None:
    """Raise for levels of a run that cannot be estimated from its rows, or that have no effect.

    Args:
        args: of the run.
        sets: tokenised; their holdout rows are the calibration half.
        needs: of the losses.
    """
    if args.levels is None:
        return
    if args.forget_nll_bound != "levels" and args.stop_at_level is None and not (needs.levels or needs.token_levels):
        raise input_error(
            expected="something that reads levels: unseen_level, forget_nll_bound='levels' or stop_at_level",
            got=f"levels={_shown(args.levels)} and none of them",
            why="the levels would be measured, and nothing would stop or be pulled there",
            fix="set forget_loss='unseen_level' or forget_nll_bound='levels', or leave levels out",
        )
    forget: Any = sets.forget
    unseen: Any = sets.holdout
    if is_stream(forget):
        raise _a_stream("forget", "every forget row has a level of its own")
    if args.levels == NGRAM and is_stream(sets.counted):
        raise _a_stream("retain", "the n-gram is counted on all of it before the first step")
    if isinstance(args.levels, Mapping):
        _require_every_row(args.levels, len(forget))
    elif unseen is not None and not is_stream(unseen) and len(unseen) < _FEWEST:
        raise input_error(
            expected="holdout rows enough to calibrate levels on (50 or more)",
            got=f"{len(unseen)} in the calibration half",
            why="a level is what the model gives to rows that it never saw",
            fix="pass more holdout rows, or levels as a mapping of row to nats",
        )


def require_both_parts(held: int, followed: int) -> None:
    """Raise where recalibrate_steps leaves no unseen rows to the anchor, or none that the levels could follow.

    Args:
        held: calibration rows that the anchor holds.
        followed: those on which levels are estimated again.
    """
    if min(held, followed) == 0:
        raise input_error(
            expected="holdout rows enough for an anchor and for levels that follow the model (50 or more)",
            got=f"{held} for the anchor and {followed} for the levels in the calibration half",
            why="a row that the anchor holds says nothing of what unseen rows lose",
            fix="pass more holdout rows, or leave recalibrate_steps out",
        )


def _require_every_row(levels: Mapping[Any, float], rows: int) -> None:
    missing, unknown = sorted(set(range(rows)) - set(levels)), sorted(set(levels) - set(range(rows)))
    if missing or unknown:
        raise input_error(
            expected=f"levels of the {rows} forget rows, by index from 0 to {rows - 1}",
            got=f"no level of row {missing[0]}" if missing else f"a level of row {unknown[0]}, which there is not",
            why="a row without a level has no aim, and a level of another set would be wrong for this one",
            fix="give every forget row its level, in the order of train_dataset['forget']",
        )


def _a_stream(name: str, why: str) -> ValueError:
    fix = "pass it as a datasets.Dataset, or leave levels out"
    return input_error(expected=f"the {name} set with a length, for levels", got="a stream", why=why, fix=fix)


def _shown(levels: Any) -> str:
    return f"a mapping of {len(levels)} rows" if isinstance(levels, Mapping) else repr(levels)
