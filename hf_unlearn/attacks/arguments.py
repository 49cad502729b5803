"""Arguments of attacks that are several values: tuples in Python, lists in YAML and JSON."""

from collections.abc import Callable
from typing import Any

from ..component import Component


def as_tuple(component: Component, argument: str, fits: Callable[[Any], bool], expected: str) -> None:
    """Make an argument a tuple, so that equal budgets are equal components, and raise unless every value fits.

    Args:
        component: a frozen dataclass, in its `__post_init__`.
        argument: its name.
        fits: whether a value may be one of the argument's.
        expected: what values must be, as the end of "... must be".

    Raises:
        ValueError: no list or tuple, an empty one, a value twice, or one that does not fit.
    """
    given = getattr(component, argument)
    fitting = isinstance(given, list | tuple) and all(map(fits, given))  # lists in lists do not, and have no hash
    right = fitting and len(given) == len(set(given)) > 0
    component.require(argument, right, f"one or more different values, each {expected}")
    object.__setattr__(component, argument, tuple(given))


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 1 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_number(value: Any) -> bool:
    """Whether a value is a number, NaN not being one."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
