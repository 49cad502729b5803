"""The section of a card that says what each phase of a run did, and the YAML that makes the phases again."""

from typing import Any

from huggingface_hub.utils import yaml_dump

from ..phase_record import TRAIN, PhaseRecord, suppression_of
from ..phase_words import phase_rows
from ..record import RunRecord
from ..record_parts import ObjectiveRecord
from .text import NO_FIGURE, code, fenced, formula, objective_table, plain, specification, table


def phase_blocks(phases: list[PhaseRecord]) -> list[str]:
    """Blocks of Markdown: a table of the phases, and the objective of every training but the last."""
    if not phases:
        return []
    rows = phase_rows(phases)
    cells = [
        [str(row.number), plain(row.what), *(_cell(row, name) for name in ("formula", "arguments")), *_figures(row)]
        for row in rows
    ]
    header = ["", "phase", "computes", "arguments", "forget NLL", "retain NLL", "took", "paper"]
    blocks = [table(header, cells)]
    moved = [f"phase {row.number}: {plain(row.moved)}" for row in rows if row.moved]
    if moved:
        blocks.append(f"Weights that moved farthest, as a share of their norm: {'; '.join(moved)}.")
    trainings = [(row.number, phase) for row, phase in zip(rows, phases, strict=True) if phase.kind == TRAIN]
    for number, phase in trainings[:-1]:
        objective = phase.objective or ObjectiveRecord()
        blocks += [f"Phase {number} minimised:", fenced(formula(objective), "text"), objective_table(objective)]
    return blocks


def suppression_words(record: RunRecord) -> str:
    """What a reader must know of a run that ends with a suppression; "" where its weights answer by themselves."""
    report = suppression_of(record)
    if report is None:
        return ""
    held = f" {plain(report.holds)}" if report.holds else ""
    return (
        f"**{report.label[0].upper()}{report.label[1:]}.** {code(report.suppression.name)} changes the answers at "
        f"inference; every figure of the model after unlearning is with it. Removing it restores "
        f"{plain(report.restores).rstrip('.')}.{held}"
    )


def phases_yaml(phases: list[PhaseRecord]) -> str:
    """The phases as a recipe has them; arguments of a training that name a path are left out."""
    entries = [{phase.kind: _spec(phase)} for phase in phases]
    return fenced(yaml_dump({"phases": entries}), "yaml")


def _spec(phase: PhaseRecord) -> Any:
    if phase.report is not None:
        return specification(phase.report.edit)
    if phase.suppression is not None:
        return specification(phase.suppression.suppression)
    objective = phase.objective or ObjectiveRecord()
    sides: dict[str, list[Any]] = {}
    for term in objective.terms:
        sides.setdefault(f"{term.side}_loss", []).append(specification(term))
    losses = {name: terms[0] if len(terms) == 1 else terms for name, terms in sides.items()}
    wrappers = [specification(wrapper) for wrapper in objective.step_wrappers]
    return losses | ({"step_wrappers": wrappers} if wrappers else {}) | phase.arguments


def _cell(row: Any, name: str) -> str:
    text = getattr(row, name)
    return code(text) if text else NO_FIGURE if row.formula else "see Objective" if name == "formula" else NO_FIGURE


def _figures(row: Any) -> list[str]:
    return [plain(text) or NO_FIGURE for text in (row.forget, row.retain, row.took, row.paper)]
