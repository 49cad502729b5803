"""What the parts of a method share: a name, a formula, checked arguments, and the setups that they do not work in."""

import dataclasses
import enum
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from .errors import input_error, value_error


class TrainingSetup(enum.StrEnum):
    """A property of a run that a component may not work with."""

    LORA = "LoRA"
    CACHED_REFERENCE = "reference='precomputed'"
    ZERO_1_2 = "DeepSpeed ZeRO-1 or 2"
    ZERO_3 = "DeepSpeed ZeRO-3"
    FSDP = "FSDP"
    SIXTEEN_BITS = "trainable weights in 16 bits"
    REENTRANT = "reentrant activation checkpointing"


# setup -> why a component does not work in it, as the end of a sentence
IncompatibleSetups = Mapping[TrainingSetup, str]


@dataclass(frozen=True)
class Component:
    """A part of a method that users choose by name: a loss, a step wrapper, a weighting.

    A component is a frozen dataclass whose fields are the arguments that stand in its formula, so that two of the same
    arguments are equal, and name and arguments are all that configs, checkpoints and records need to build it again:

        @dataclass(frozen=True)
        class Tempered(Loss):
            beta: float = 1.0

            name = "tempered"
            formula = "beta log p(y)"

            def __post_init__(self) -> None:
                super().__post_init__()
                self.require_positive("beta")

    Arguments are checked against their annotations: float takes any number but NaN, int whole numbers alone, str and
    bool their own kind, `X | None` None as well. Arguments of other types are left to the subclass, and so are ranges.

    Class attributes:
        name: in configs, logs and records.
        formula: what it computes, in a line of plain text; `hf-unlearn methods` and the model card print it.
        paper: where it is from: authors, year, arXiv number.
        incompatible_with: setups that it does not work in, each with the reason; a run in one of them is refused.

    Raises:
        ValueError: an argument of another type.
        TypeError: a class without a `name`.
    """

    name: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    incompatible_with: ClassVar[IncompatibleSetups] = {}

    def __post_init__(self) -> None:
        if not self.name:
            raise TypeError(
                f"{type(self).__name__} needs a class attribute `name`, by which it is logged and recorded"
            )
        for argument in dataclasses.fields(self):
            expected = _expected_type(getattr(self, argument.name), argument.type)
            if expected is not None:
                raise self.argument_error(argument.name, expected)

    def argument_error(self, argument: str, expected: str) -> ValueError:
        """Build (not raise) the one-line error of an argument that the formula cannot be computed with."""
        hint = f"it enters the formula {self.formula}" if self.formula else ""
        return value_error(f"{argument} of {self.name}", expected, getattr(self, argument), hint)

    def require(self, argument: str, holds: bool, expected: str) -> None:
        """Raise `argument_error` unless what is expected of an argument holds."""
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


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


# annotation -> what a value must be, in words and as a function
_TYPES: dict[str, tuple[str, Callable[[object], bool]]] = {
    "float": ("a number", _is_number),
    "int": ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "str": ("a text", lambda value: isinstance(value, str)),
    "bool": ("True or False", lambda value: isinstance(value, bool)),
    "None": ("None", lambda value: value is None),
}


def _expected_type(value: object, annotation: object) -> str | None:
    """What a value must be where it is not what its annotation says; None where it is, or where that is not known."""
    # By name: a module with postponed annotations has texts. A class is printed by its name, a union as it is written.
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    names = text.split(" | ")
    if not _TYPES.keys() >= set(names) or any(_TYPES[name][1](value) for name in names):
        return None
    return " or ".join(_TYPES[name][0] for name in names)


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
