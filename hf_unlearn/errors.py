"""User errors in four parts: what was expected, what came, why it matters, what to do. Nothing else."""

import difflib
from collections.abc import Iterable


def input_error(*, expected: str, got: str, why: str, fix: str) -> ValueError:
    """Build (not raise) the ValueError that every check of user input ends with.

    Args:
        expected: what the package needs at this place.
        got: what it was given. Never a row's text: forget data stays out of messages and logs.
        why: what would go wrong if it went on.
        fix: what to change, as a line of code where possible.
    """
    return ValueError(f"Expected {expected}.\nGot: {got}.\nWhy it matters: {why}.\nWhat to do: {fix}.")


_LISTED = 50  # names that a reader may still look through


def nearest(name: str, options: Iterable[str]) -> str:
    """The known names closest to an unknown one, as a phrase for an error's `fix`."""
    options = sorted(options)
    close = difflib.get_close_matches(name, options, n=3, cutoff=0.4)
    known = ", ".join(options) or "none"
    if close:
        likely = f"did you mean {' or '.join(repr(c) for c in close)}?"
        return likely if len(options) > _LISTED else f"{likely} Known names: {known}"
    return f"use one of: {known}"
