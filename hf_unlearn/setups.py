"""How a run is set up (adapters, sharding, cached references), and what is refused in which. It detects nothing."""

import enum
from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from .errors import input_error


class Setup(enum.StrEnum):
    """A property of a run that a loss or a step wrapper may not work with."""

    LORA = "LoRA"
    CACHED_REFERENCE = "reference='precomputed'"
    ZERO_1_2 = "DeepSpeed ZeRO-1 or 2"
    ZERO_3 = "DeepSpeed ZeRO-3"
    FSDP = "FSDP"
    SIXTEEN_BITS = "trainable weights in 16 bits"
    REENTRANT = "reentrant activation checkpointing"


# setup -> why it is refused
Refused = Mapping[Setup, str]


class Part(Protocol):
    """A loss or a step wrapper."""

    @property
    def name(self) -> str:
        """As configs call it."""
        ...

    @property
    def refused(self) -> Refused:
        """Setups that it does not work in."""
        ...


def require_supported(parts: Iterable[Part], setups: Collection[Setup]) -> None:
    """Raise for the first part that does not work in a setup of the run.

    Raises:
        ValueError: naming the part, the setup and the reason.
    """
    for part in parts:
        for setup, why in part.refused.items():
            if setup in setups:
                raise input_error(
                    expected=f"{part.name} without {setup}",
                    got=f"{part.name} under {setup}",
                    why=why,
                    fix=f"leave {setup} out, or use another one; `hf-unlearn methods` says what works where",
                )


def support(refused: Refused) -> str:
    """What works, in a line for people."""
    names = {"LoRA": {Setup.LORA}, "DDP": set(), "ZeRO-1 and 2": {Setup.ZERO_1_2}, "ZeRO-3": {Setup.ZERO_3}}
    works = [name for name, setups in (names | {"FSDP2": {Setup.FSDP}}).items() if not setups & refused.keys()]
    reasons = dict.fromkeys(refused.values())
    without = [f"{', '.join(s for s in refused if refused[s] == why)} ({why})" for why in reasons]
    return ", ".join(works) + ("; not with " + "; ".join(without) if without else "")
