"""What losses, step wrappers and weightings share: a name, a formula, checked arguments, setups they do not fit."""

import dataclasses
import enum
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .errors import input_error


class TrainingSetup(enum.StrEnum):
    """A property of a run that a loss or a step wrapper may not work with."""

    LORA = "LoRA"
    CACHED_REFERENCE = "reference='precomputed'"
    ZERO_1_2 = "DeepSpeed ZeRO-1 or 2"
    ZERO_3 = "DeepSpeed ZeRO-3"
    FSDP = "FSDP"
    SIXTEEN_BITS = "trainable weights in 16 bits"
    REENTRANT = "reentrant activation checkpointing"


# setup -> why a component does not work in it
IncompatibleSetups = Mapping[TrainingSetup, str]


@dataclass(frozen=True)
class Component:
    """A part of the method, built from a name and arguments that stand in its formula.

    The fields of a subclass are its arguments. A field declared as float takes any number but NaN, one declared as
    int whole numbers alone, str and bool their own kind; fields of other types are left to the subclass, and so are
    ranges.

    Class attributes: `name` (in configs, logs and records), `formula` and `paper` (what `hf-unlearn methods` prints),
    `incompatible_with` (setups that it does not work in, with the reason).

    Raises:
        ValueError: an argument of another type.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    paper: ClassVar[str] = ""
    incompatible_with: ClassVar[IncompatibleSetups] = {}

    def __post_init__(self) -> None:
        for argument in dataclasses.fields(self):
            problem = _type_problem(getattr(self, argument.name), argument.type)
            if problem is not None:
                raise self.argument_error(argument.name, problem)

    def argument_error(self, argument: str, expected: str) -> ValueError:
        """The error of an argument that the component cannot be computed with."""
        return input_error(
            expected=f"{argument} of {self.name} to be {expected}",
            got=repr(getattr(self, argument)),
            why=f"it enters the formula {self.formula}",
            fix="`hf-unlearn methods` lists the arguments with their defaults",
        )

    def require(self, argument: str, holds: bool, expected: str) -> None:
        """Raise unless what is expected of an argument holds."""
        if not holds:
            raise self.argument_error(argument, expected)

    def require_positive(self, *arguments: str) -> None:
        """Raise unless arguments are above 0 and finite."""
        for argument in arguments:
            self.require(argument, 0 < getattr(self, argument) < math.inf, "above 0 and finite")

    def require_not_negative(self, *arguments: str) -> None:
        """Raise unless arguments are 0 or above and finite."""
        for argument in arguments:
            self.require(argument, 0 <= getattr(self, argument) < math.inf, "0 or above and finite")


def _type_problem(value: Any, declared: Any) -> str | None:
    """What a value should be to pass for a declared type; None where it does."""
    # A module with postponed annotations has their names.
    kind = declared if isinstance(declared, str) else getattr(declared, "__name__", "")
    if kind == "float":
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
        return None if is_number else "a number"
    if kind == "int":
        return None if isinstance(value, int) and not isinstance(value, bool) else "a whole number"
    if kind == "str":
        return None if isinstance(value, str) else "a text"
    if kind == "bool":
        return None if isinstance(value, bool) else "True or False"
    return None


def require_supported(components: Iterable[Component], setups: Collection[TrainingSetup]) -> None:
    """Raise for the first component that does not work in a setup of the run.

    Raises:
        ValueError: naming the component, the setup and the reason.
    """
    for component in components:
        for setup, why in component.incompatible_with.items():
            if setup in setups:
                raise input_error(
                    expected=f"{component.name} without {setup}",
                    got=f"{component.name} under {setup}",
                    why=why,
                    fix=f"leave {setup} out, or use another one; `hf-unlearn methods` says what works where",
                )


def support(incompatible: IncompatibleSetups) -> str:
    """What works, in a line for people."""
    strategies: dict[str, set[TrainingSetup]] = {
        "LoRA": {TrainingSetup.LORA},
        "DDP": set(),
        "ZeRO-1 and 2": {TrainingSetup.ZERO_1_2},
        "ZeRO-3": {TrainingSetup.ZERO_3},
        "FSDP2": {TrainingSetup.FSDP},
    }
    works = [name for name, setups in strategies.items() if not setups & incompatible.keys()]
    reasons = dict.fromkeys(incompatible.values())
    without = [f"{', '.join(s for s in incompatible if incompatible[s] == why)} ({why})" for why in reasons]
    return ", ".join(works) + ("; not with " + "; ".join(without) if without else "")
