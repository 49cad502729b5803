"""The argument `levels` as a command line, a recipe and a script write it, and the bound that reads it."""

import math
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ...errors import input_error, value_error
from ..method_specs import parse_text

SOURCES = NGRAM, HOLDOUT, MODEL, GIVEN = "ngram", "holdout", "model", "given"
_ROW = re.compile(r"\d+")


def levels_setting(levels: Any, bound: float | str | None) -> Any:
    """`levels` decoded: a source's name, a model's name or path, levels by forget row, or None.

    Args:
        levels: as given; a mapping may have come from JSON, whose keys are texts.
        bound: `forget_nll_bound`.

    Raises:
        ValueError: a mapping whose keys are no rows or whose values are no levels, or a bound at levels without any.
    """
    levels = parse_text(levels)
    if isinstance(levels, str) and levels.lower() in ("none", "null"):
        levels = None
    if isinstance(levels, Mapping):
        levels = _by_row(levels)
    elif levels is not None and (not isinstance(levels, str) or not levels.strip()):
        raise value_error(
            "levels", "ngram, holdout, a model's name or path, a mapping of row to nats, or none", levels
        )
    if isinstance(levels, str):
        _require_no_slip(levels)
    if levels is None and bound == "levels":
        raise input_error(
            expected="levels together with forget_nll_bound='levels'",
            got="none",
            why="there is no level at which a row could be held",
            fix="set levels='ngram' (or 'holdout', a model, a mapping), or another forget_nll_bound",
        )
    return levels


def _require_no_slip(name: str) -> None:
    """Raise for a slip in the name of a source, which would be looked up as a model's on the Hub."""
    slips = get_close_matches(name, (NGRAM, HOLDOUT), n=1, cutoff=0.7)
    if slips and name not in (NGRAM, HOLDOUT) and not Path(name).is_dir():
        hint = f"did you mean {slips[0]!r}? A model of this name is given by its path"
        raise value_error("levels", "ngram, holdout or a model's name or path", name, hint)


def reads_holdout(levels: Any) -> bool:
    """Whether levels of this setting are calibrated on holdout rows."""
    return isinstance(levels, str)


def splits_holdout(args: Any) -> bool:
    """Whether a run is fitted to holdout rows, so that half of them are to be left for measuring.

    Args:
        args: of the run.
    """
    return reads_holdout(args.levels) or args.anchor_loss not in (None, "none")


def profile_model(levels: Any) -> str | None:
    """The name or path of the causal language model that levels of this setting are profiled by, or None."""
    return levels if isinstance(levels, str) and levels not in (NGRAM, HOLDOUT) else None


def _by_row(levels: Mapping[Any, Any]) -> dict[int, float]:
    decoded = {}
    for row, level in levels.items():
        number = int(row) if isinstance(row, str) and _ROW.fullmatch(row) else row
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise value_error("levels", "by index of the forget row (0, 1, ...)", row)
        if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < math.inf:
            raise value_error(f"levels[{number}]", "a finite number above 0", level, "nats per token")
        decoded[number] = float(level)
    return decoded
