"""The phases of a run in words, for its card and its report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .edit_report import MeanNll, Tried
from .phase_record import PhaseRecord
from .record_parts import ComponentRecord

_FARTHEST = 3  # kinds of layers that are named


@dataclass(frozen=True)
class PhaseRow:
    """A row of the table of phases.

    Attributes:
        number: of the phase.
        what: "edit msa", "training npo".
        formula: what it computes; of a training "" (the objective has it).
        arguments: of the edit or suppression, or how many steps were taken.
        forget: mean NLL of the forget rows before and after it, nats per token; "" where it was not measured.
        retain: the same of the retain rows.
        took: seconds, and tokens where they were counted.
        moved: which weights moved farthest.
        paper: where it is from.
    """

    number: int
    what: str
    formula: str
    arguments: str
    forget: str
    retain: str
    took: str
    moved: str
    paper: str


def phase_rows(phases: list[PhaseRecord]) -> list[PhaseRow]:
    """A row for each phase, in order."""
    return [_row(number, phase) for number, phase in enumerate(phases, 1)]


def _row(number: int, phase: PhaseRecord) -> PhaseRow:
    took = _took(phase.cost)
    if phase.report is not None:
        report = phase.report
        moved = [f"{kind.layers} {kind.distance:.3g}" for kind in report.moved[:_FARTHEST] if kind.distance]
        arguments = [*_named(report.edit.arguments), *_chosen(report.tried)]
        levels = report.before, report.after
        return _of_component(number, f"edit {phase.name}", report.edit, arguments, levels, took, ", ".join(moved))
    if phase.suppression is not None:
        held = phase.suppression
        arguments = [*_named(held.suppression.arguments), f"answers take {held.slower:.2g} times as long"]
        levels = held.without, held.suppressed
        return _of_component(number, f"suppression {phase.name}", held.suppression, arguments, levels, took, "")
    steps = f"{phase.steps:,} of {phase.planned_steps:,} steps"
    stopped = f"; stopped early: {phase.stop_reason}" if phase.stop_reason else ""
    adapter = "; an adapter, merged" if phase.adapter else ""
    return PhaseRow(number, f"training {phase.name}", "", f"{steps}{adapter}{stopped}", "", "", took, "", "")


def _of_component(
    number: int,
    what: str,
    component: ComponentRecord,
    arguments: list[str],
    levels: tuple[MeanNll, MeanNll],
    took: str,
    moved: str,
) -> PhaseRow:
    start, end = levels
    return PhaseRow(
        number,
        f"{what} ({component.origin})" if component.origin else what,
        component.formula,
        ", ".join(arguments),
        _change(start.forget, end.forget),
        _change(start.retain, end.retain),
        took,
        moved,
        component.paper,
    )


def _named(values: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in values.items()]


def _chosen(tried: list[Tried]) -> list[str]:
    """The setting that was chosen, where there was a choice."""
    return next(([f"chosen: {', '.join(_numbers(one.setting))}"] for one in tried if one.chosen), [])


def _numbers(values: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()]


def _change(before: float | None, after: float | None) -> str:
    return "" if before is None or after is None else f"{before:.3g} -> {after:.3g}"


def _took(cost: Mapping[str, float]) -> str:
    parts = [f"{cost['seconds']:.3g} s"] if "seconds" in cost else []
    return ", ".join([*parts, *([f"{cost['tokens']:,.0f} tokens"] if cost.get("tokens") else [])])
