"""The memory of a run under every packaged config, and the cheapest config that fits."""

from dataclasses import dataclass

from .counts import Counts
from .memory import Memory, Planner
from .request import GIB, Hardware, Request
from .strategies import Kind, Strategy, packaged_strategies


@dataclass(frozen=True)
class Option:
    """A run under one strategy.

    Attributes:
        strategy: how the GPUs share the model.
        memory: of one GPU; None where the run is refused.
        refused: why, where it is.
        fits: whether every GPU, and every machine, has room for it.
    """

    strategy: Strategy
    memory: Memory | None = None
    refused: str | None = None
    fits: bool = False


@dataclass(frozen=True)
class Plan:
    """A run under every strategy that its GPUs allow, cheapest in time first.

    Attributes:
        request: the run.
        counts: of its model.
        hardware: it would have.
        options: all of them.
    """

    request: Request
    counts: Counts
    hardware: Hardware
    options: tuple[Option, ...]

    @property
    def cheapest(self) -> Option | None:
        """The first that fits."""
        return next((option for option in self.options if option.fits), None)


def make_plan(
    request: Request, hardware: Hardware, only: Strategy | None = None, planner: Planner | None = None
) -> Plan:
    """The memory of a run under each strategy.

    Args:
        request: the run.
        hardware: it would have.
        only: look at this strategy alone.
        planner: of the request, where there is one already.
    """
    planner = planner or Planner(request, hardware)
    strategies = [only] if only else [s for s in packaged_strategies(hardware.machines) if _applies(s, hardware.gpus)]
    options = tuple(_option(planner, strategy, hardware) for strategy in strategies)
    return Plan(request, planner.counts, hardware, options)


def _applies(strategy: Strategy, gpus: int) -> bool:
    """One GPU shares with nobody, but can use the machine's memory."""
    if gpus == 1:
        return strategy.kind is Kind.SINGLE or strategy.offload_parameters
    return strategy.kind is not Kind.SINGLE


def _option(planner: Planner, strategy: Strategy, hardware: Hardware) -> Option:
    try:
        memory = planner.memory(strategy, hardware.gpus)
    except ValueError as error:
        return Option(strategy, refused=str(error))
    fits = memory.peak <= hardware.usable
    if hardware.host_memory is not None:
        fits &= memory.host * hardware.gpus / hardware.machines <= hardware.host_memory * GIB
    return Option(strategy, memory, fits=fits)
