"""Errors of user input: four parts where a run could be lost or come out wrong, one line for ranges and choices."""

import difflib
import errno
import math
import re
from collections.abc import Iterable

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Libraries in other languages give words, not numbers.
_FULL_WORDS = re.compile(r"No space left|Disk quota|File too large|PytorchStreamWriter failed|unexpected pos")


def input_error(*, expected: str, got: str, why: str, fix: str) -> ValueError:
    """Build (not raise) the error of input that would cost a run, or give it a meaning that was not asked for.

    Args:
        expected: what the package needs at this place.
        got: what it was given. Never a row's text: forget data stays out of messages and logs.
        why: what would go wrong if it went on.
        fix: what to change, as a line of code where possible.
    """
    end = "" if fix.endswith("?") else "."  # "did you mean 'npo'?" has its own
    return ValueError(f"Expected {expected}.\nGot: {got}.\nWhy it matters: {why}.\nWhat to do: {fix}{end}")


def is_full_disk(error: BaseException | None) -> bool:
    """Whether something failed for want of room on a disk."""
    while error is not None:
        if (isinstance(error, OSError) and error.errno in _FULL) or _FULL_WORDS.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def full_disk_error(*, expected: str, got: str, why: str, fix: str) -> OSError:
    """Build (not raise) the error of a disk that is full, in the four parts of `input_error`."""
    return OSError(errno.ENOSPC, str(input_error(expected=expected, got=got, why=why, fix=fix)))


def value_error(name: str, expected: str, got: object, hint: str = "") -> ValueError:
    """Build (not raise) the one-line error of an argument: "beta must be above 0, got -1".

    Args:
        name: of the argument, as the user writes it.
        expected: what it must be, as the end of a sentence.
        got: the value. Never a row's text.
        hint: what was probably meant, or what to change; follows a semicolon.
    """
    return ValueError(f"{name} must be {expected}, got {got!r}" + (f"; {hint}" if hint else ""))


def require_range(
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    whole: bool = False,
    hint: str = "",
) -> None:
    """Raise unless a value is a finite number within bounds.

    Args:
        name: of the argument, as the user writes it.
        value: any object; True and False are no numbers.
        above: lower bound, excluded.
        at_least: lower bound, included.
        below: upper bound, excluded.
        at_most: upper bound, included.
        whole: whether only an int will do.
        hint: why these bounds, or what to change; follows a semicolon.

    Raises:
        ValueError: one line, with the bounds and the value.
    """
    bounds = {"above": above, "at least": at_least, "below": below, "at most": at_most}
    number = value if isinstance(value, int if whole else int | float) and not isinstance(value, bool) else math.nan
    # Written so that NaN, which compares as false with everything, is outside of every range.
    inside = (
        -math.inf < number < math.inf
        and (above is None or number > above)
        and (at_least is None or number >= at_least)
        and (below is None or number < below)
        and (at_most is None or number <= at_most)
    )
    if not inside:
        limits = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)
        kind = "a whole number" if whole else "a finite number"
        kind += " of" if limits.startswith("at ") else ""
        raise value_error(name, f"{kind} {limits}".rstrip(), value, hint)


def choice_error(name: str, value: object, options: Iterable[str]) -> ValueError:
    """Build (not raise) the one-line error of an unknown name, with the known names that are spelled alike."""
    return value_error(name, "a known name", value, nearest(str(value), options))


def require_choice(name: str, value: object, options: Iterable[str]) -> None:
    """Raise unless a value is one of the known names.

    Raises:
        ValueError: one line, with the value and the nearest names.
    """
    options = list(options)
    if value not in options:
        raise choice_error(name, value, options)


_LISTED = 50  # names that a reader may still look through


def nearest(name: str, options: Iterable[str]) -> str:
    """The known names closest to an unknown one, as a phrase for an error's `fix` or hint."""
    options = sorted(options)
    close = difflib.get_close_matches(name, options, n=3, cutoff=0.4)
    known = ", ".join(options) or "none"
    if close:
        likely = f"did you mean {' or '.join(repr(c) for c in close)}?"
        return likely if len(options) > _LISTED else f"{likely} Known names: {known}"
    return f"use one of: {known}"
