"""Bounds and levels that the losses and rules of a run would not read, or would miss: refused before it is loaded."""

from collections.abc import Mapping, Sequence

from ..errors import input_error
from ..losses.base import Loss
from .config import UnlearningConfig


def require_levels_for(terms: Sequence[Loss], args: UnlearningConfig) -> None:
    """Raise for losses and a stop rule that read levels of a run without any.

    Args:
        terms: of all sides.
        args: of the run.
    """
    readers = [term.name for term in terms if term.needs.levels]
    readers += ["stop_at_level"] if args.stop_at_level is not None else []
    if readers and args.levels is None:
        raise input_error(
            expected=f"levels, for {readers[0]}",
            got="none",
            why="there is nothing that the forget rows could be near to",
            fix="set levels='ngram' (or 'holdout', a model, a mapping of row to nats)",
        )
    anchored = args.anchor_loss not in (None, "none")
    if args.recalibrate_steps is not None and not (anchored and isinstance(args.levels, str)):
        raise input_error(
            expected="estimated levels and an anchor, for recalibrate_steps",
            got="no anchor" if isinstance(args.levels, str) else "levels that are given, or none",
            why="without an anchor unseen rows drift with the forget rows, and the levels that follow them run away",
            fix="set levels='ngram' (or 'holdout', a model) and anchor_loss='kl', or leave recalibrate_steps out",
        )
    by_token = [term.name for term in terms if term.needs.token_levels]
    if by_token and isinstance(args.levels, Mapping):
        raise input_error(
            expected=f"levels that are estimated, for the token term of {by_token[0]}",
            got="a mapping of row to nats",
            why="it says nothing of the rows' tokens",
            fix="set token_weight to 0, or levels='ngram' (or 'holdout', a model)",
        )


def require_held(forget: Sequence[Loss], args: UnlearningConfig) -> None:
    """Raise for a row bound that was set and holds none of the forget losses.

    Args:
        forget: terms of the forget side.
        args: of the run; the bound that is there by default is no mistake.
    """
    default = type(args).__dataclass_fields__["forget_nll_bound"].default
    if args.forget_bound_sides == "both" or args.forget_nll_bound in (None, default):
        return
    if all(term.two_sided for term in forget):
        raise input_error(
            expected=f"a forget loss that the row bound holds, for forget_nll_bound={args.forget_nll_bound!r}",
            got=", ".join(term.name for term in forget),
            why="it brings rows back from past their levels by itself, and the bound would have no effect",
            fix="leave forget_nll_bound out, or set it to none",
        )
