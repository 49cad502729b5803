"""What a record says of the run itself, as pairs of words for people: rows, objective, attacks, cost. No plots."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..deletion_words import deletion_words
from ..lineage import lineage_words
from ..phase_record import suppression_of
from ..phase_words import PhaseRow, phase_rows
from ..record import ComponentRecord, ModelRecord, RunRecord, SetRecord
from ..record_words import level_words, reference_words

Pairs = list[tuple[str, str]]
_OWN = "of the user's own, not described"
_SETS = {"forget": "forget (to be forgotten)", "retain": "retain (to be kept)", "holdout": "holdout (unseen)"}


@dataclass(frozen=True)
class PartFacts:
    """A row of the table of the objective."""

    side: str
    name: str
    weight: str
    arguments: str
    formula: str
    paper: str


@dataclass(frozen=True)
class SetFacts:
    """A row of the table of sets."""

    name: str
    rows: str
    source: str
    sha256: str


@dataclass(frozen=True)
class Facts:
    """All that a run's sections say beside its evaluations."""

    model: Pairs
    sets: list[SetFacts]
    phases: list[PhaseRow]
    suppression: str
    parts: list[PartFacts]
    objective: Pairs
    settings: Pairs
    cost: Pairs
    footer: Pairs = field(default_factory=list)
    deletion: Pairs = field(default_factory=list)


def facts_of(record: RunRecord) -> Facts:
    """What the record says of the run, in words."""
    return Facts(
        model=_model(record.model),
        sets=[_set(name, rows) for name, rows in record.sets.items()],
        phases=phase_rows(record.phases),
        suppression=_suppression(record),
        parts=_parts(record),
        objective=_objective(record),
        settings=[(name, _plain(value)) for name, value in sorted(record.arguments.items())],
        cost=_cost(record),
        footer=[("seed", str(record.seed)), *_lineage(record), *sorted(record.versions.items())],
        deletion=deletion_words(record),
    )


def _lineage(record: RunRecord) -> Pairs:
    return [] if record.lineage is None else lineage_words(record.lineage)


def _suppression(record: RunRecord) -> str:
    """What a run that ends with a suppression is, in a line; "" where its weights answer by themselves."""
    report = suppression_of(record)
    if report is None:
        return ""
    return f"{report.label[0].upper()}{report.label[1:]}: removing it restores {report.restores}."


def duration(seconds: float) -> str:
    """Seconds as people say them: "48 s", "12 min 3 s", "1 h 12 min"."""
    if not math.isfinite(seconds):
        return str(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def training_time(record: RunRecord) -> str:
    """Of the run, or of what came after a checkpoint that it went on from; "" where it is not known."""
    seconds = record.cost.get("seconds")
    since = f" (since step {record.resumed_from:,})" if record.resumed_from else ""
    return "" if seconds is None else f"{duration(seconds)}{since}"


def _model(model: ModelRecord) -> Pairs:
    # A local model's id could be a path.
    name = model.id if model.id and model.origin == "hub" else "a local model"
    if model.origin == "lab":
        name = f"the lab's{f' ({model.id})' if model.id else ''}"
    if model.fitted_from:
        name = f"{model.fitted_from}, fitted to the rows first"
    pairs = [("model", f"{name} at {model.revision}" if model.revision else name)]
    if model.architecture:
        pairs.append(("architecture", f"{model.architecture}, {model.dtype}" if model.dtype else model.architecture))
    if model.parameters:
        share = f" ({model.trained / model.parameters:.2%})" if model.trained != model.parameters else ""
        pairs.append(("trained", f"{model.trained:,} of {model.parameters:,} parameters{share}"))
    if model.adapter:
        state = "merged into the weights" if model.merged else "not merged: without it the model is as before"
        pairs.append(("adapter", f"{_listed(model.adapter)}; {state}"))
    return pairs


def _set(name: str, set_record: SetRecord) -> SetFacts:
    source = {"hub": "Hub", "lab": "lab"}.get(set_record.origin, "local, not published")
    if set_record.id and set_record.origin in ("hub", "lab"):
        source += f": {set_record.id}" + (f" at {set_record.revision}" if set_record.revision else "")
    rows = "a stream" if set_record.rows is None else f"{set_record.rows:,}"
    return SetFacts(_SETS.get(name, name), rows, source, set_record.sha256 or "not known")


def _parts(record: RunRecord) -> list[PartFacts]:
    objective = record.objective
    rows = [_part(term.side, term, f"{term.weight:g}") for term in objective.terms]
    rows += [_part("step", wrapper, "") for wrapper in objective.step_wrappers]
    if objective.weighting.own or objective.weighting.name != "fixed":
        rows.append(_part("weighting", objective.weighting, ""))
    return rows


def _part(side: str, part: ComponentRecord, weight: str) -> PartFacts:
    formula = part.formula or (_OWN if part.own else "")
    origin = f" ({part.origin})" if part.origin else ""
    return PartFacts(side, f"{part.own or part.name}{origin}", weight, _listed(part.arguments), formula, part.paper)


def _objective(record: RunRecord) -> Pairs:
    objective, bound = record.objective, record.objective.bound
    if record.phases and not objective.terms:  # nothing was minimised
        return [("recipe", record.recipe)] if record.recipe else []
    pairs = [
        ("weight of the forget side", f"{objective.forget_weight:g}"),
        ("weight of the retain side", f"{objective.retain_weight:g}"),
        ("weighting", objective.weighting.own or objective.weighting.name),
    ]
    if any(term.side == "anchor" for term in objective.terms):
        pairs.insert(2, ("weight of the anchor", f"{objective.anchor_weight:g}"))
    if objective.optimizer:
        pairs.append(("optimizer", objective.optimizer))
    pairs.append(("bound of the forget rows", _bound(bound)))
    if record.holdout_nll is not None:
        pairs.append(("NLL of unseen rows before", f"{record.holdout_nll:.3f} nats per token"))
    if record.levels is not None:
        every = record.arguments.get("recalibrate_steps")
        words = level_words(record.levels, by_task=record.task is not None, every=every)
        pairs.append(("levels of the forget rows", words))
    pairs.append(("reference", reference_words(record.reference) or record.reference))
    if record.recipe:
        pairs.append(("recipe", record.recipe))
    return pairs


def _bound(bound: Mapping[str, Any]) -> str:
    setting = bound.get("setting")
    named = f" ({setting})" if isinstance(setting, str) else ""
    named += ", from both sides" if bound.get("sides") == "both" else ""
    if isinstance(bound.get("nats"), int | float):
        return f"{bound['nats']:.3f} nats per token{named}"
    if isinstance(bound.get("low"), int | float) and isinstance(bound.get("high"), int | float):
        return f"{bound['low']:.3f} to {bound['high']:.3f} nats per token, a row its own{named}"
    return f"none{named}"


def _cost(record: RunRecord) -> Pairs:
    cost, pairs = record.cost, []
    seconds, tokens = cost.get("seconds"), cost.get("tokens")
    if seconds is not None:
        pairs.append(("training time", training_time(record)))
    if cost.get("peak_memory_mb") is not None:
        pairs.append(("peak memory of the process", f"{cost['peak_memory_mb']:,.0f} MB"))
    planned = f" of {record.planned_steps} planned" if record.planned_steps else ""
    if record.steps or planned or not record.phases:
        pairs.append(("optimizer steps", f"{record.steps}{planned}"))
    if record.epochs:
        pairs.append(("epochs of the forget set", f"{record.epochs:g}"))
    if record.stop_reason:
        pairs.append(("stopped early", record.stop_reason))
    if tokens and seconds:
        pairs.append(("tokens per second", f"{tokens / seconds:,.0f}"))
    if cost.get("flops"):
        pairs.append(("operations", f"{cost['flops']:.3g} FLOP"))
    if record.emissions_kg is not None:
        kilograms = record.emissions_kg
        words = f"{kilograms:.2f} kg" if kilograms >= 1 else f"{kilograms * 1000:.2g} g"
        pairs.append(("emissions", f"{words} CO2 equivalents (codecarbon)"))
    pairs += [(name, _plain(value)) for name, value in record.hardware.items() if value not in (None, "")]
    return pairs


def _listed(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {_plain(value)}" for name, value in arguments.items())


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + _listed(value) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_plain(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
