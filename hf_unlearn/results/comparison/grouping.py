"""Which runs may stand in one table, and which are one method with several seeds: told by the facts of their records.

Facts are texts by name, so that what two runs differ in can be named.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..evaluation_result import EvaluationResult
from ..record import RunRecord
from ..record_parts import ComponentRecord
from ..schema import as_json

Facts = dict[str, str]

# Arguments that change nothing in what is learnt: what is logged, saved, shown and pushed, where, and what is drawn.
_NO_METHOD = re.compile(
    r"(log|logging|eval|save|hub|report|push|dataloader|disable|include|do)_\w+|seed|data_seed|use_cpu|plugins|run_name"
    r"|project|per_device_eval_batch_size|full_determinism|resume_from_checkpoint|push_to_hub|model_init_kwargs"
)
_SEED_IN_NAME = re.compile(r"(?P<method>.+?)[-_ ]seed[-_ ]?\d+")
_NAMED = 3  # facts that a label names
_HOLDOUT = "holdout"


def setting_facts(record: RunRecord, after: EvaluationResult) -> Facts:
    """What two runs must have in common to stand in one table: task, suite, model, rows, and an oracle or none.

    Holdout rows are not among them: methods that are fitted to one half of them are measured on the other, each
    beside the oracle on the same rows.
    """
    measured = {name: rows.get("sha256") for name, rows in after.rows.items() if name != _HOLDOUT}
    settings = {name: value for name, value in after.settings.items() if name != _HOLDOUT}
    model, forget = record.model, record.sets.get("forget")
    base = {"id": model.id, "origin": model.origin, "revision": model.revision, "architecture": model.architecture}
    # A model that the run itself fitted to the rows first differs from seed to seed.
    weights = {} if record.lineage is None or model.fitted_from else record.lineage.weights_in
    return {
        "task": record.task or "a script",
        "suite": after.suite,
        "settings of the suite": _text(settings),
        "model": _text(base | {"fitted_from": model.fitted_from, "weights": sorted(map(str, weights.values()))}),
        "forget rows": str(forget.sha256 if forget is not None else None),
        "rows of the evaluation": _text(measured),
        "oracle": "an oracle" if "oracle" in record.evaluations else "no oracle",
    }


def method_facts(record: RunRecord) -> Facts:
    """What runs of one method have in common, whatever their seeds."""
    objective = record.objective
    facts = {
        side: _text([_component(term) | {"weight": term.weight} for term in objective.terms if term.side == side])
        for side in ("forget", "retain", "anchor")
    }
    facts |= {name: str(getattr(objective, name)) for name in ("forget_weight", "retain_weight", "anchor_weight")}
    facts["weighting"] = _text(_component(objective.weighting))
    facts["step_wrappers"] = _text([_component(wrapper) for wrapper in objective.step_wrappers])
    facts["optim"] = objective.optimizer
    facts["forget_nll_bound"] = _text([objective.bound.get("setting"), objective.bound.get("sides")])
    for number, phase in enumerate(record.phases, 1):
        report = phase.report.edit if phase.report else phase.suppression.suppression if phase.suppression else None
        facts[f"phase {number}"] = _text([phase.kind, phase.name, as_json(report or phase.arguments), phase.adapter])
    facts |= {name: _text(value) for name, value in record.arguments.items() if not _NO_METHOD.fullmatch(name)}
    facts |= {f"adapter {name}": _text(value) for name, value in (record.model.adapter or {}).items()}
    rows = {name: kept for name, kept in record.sets.items() if name != "forget"}
    return facts | {f"{name} rows": str(kept.sha256)[:12] for name, kept in rows.items()}


def key_of(facts: Facts) -> tuple[tuple[str, str], ...]:
    """Facts as a key; equal for the same facts."""
    return tuple(sorted(facts.items()))


def differing(facts: Sequence[Facts]) -> list[str]:
    """Names of the facts in which some of these differ, in their order."""
    names = dict.fromkeys(name for one in facts for name in one)
    return [name for name in names if len({one.get(name) for one in facts}) > 1]


def labels(groups: Sequence[tuple[Facts, Sequence[RunRecord]]]) -> list[str]:
    """A name for each method: its runs' folders without the seed, or its losses, and what tells it from others.

    Args:
        groups: facts and records of each method, of one setting.
    """
    first = [_folder_name(records) for _, records in groups]
    if len(set(first)) == len(first) and all(first):
        return first
    plain = [_losses(records[0]) for _, records in groups]
    told = []
    for name, (facts, _) in zip(plain, groups, strict=True):
        alike = [other for label, (other, _) in zip(plain, groups, strict=True) if label == name]
        apart = differing(alike)
        shown = [f"{fact} {_short(facts.get(fact))}" for fact in apart[:_NAMED]]
        shown += [f"{len(apart) - _NAMED} more"] if len(apart) > _NAMED else []
        told.append(f"{name} ({', '.join(shown)})" if shown else name)
    return _told_apart(told)


def _told_apart(names: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    told = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        told.append(name if names.count(name) == 1 else f"{name} #{seen[name]}")
    return told


def _folder_name(records: Iterable[RunRecord]) -> str:
    """What the folders of a series are called without their seeds; "" where they are not of one series."""
    names = {match["method"] for record in records if (match := _SEED_IN_NAME.fullmatch(record.name))}
    matched = all(_SEED_IN_NAME.fullmatch(record.name) for record in records)
    return names.pop() if matched and len(names) == 1 else ""


def _losses(record: RunRecord) -> str:
    weighting = record.objective.weighting
    more = [] if record.phases else [wrapper.own or wrapper.name for wrapper in record.objective.step_wrappers]
    more += [weighting.own or weighting.name] if not record.phases and weighting.name != "fixed" else []
    return " + ".join([*record.methods, *more]) or record.name or "unnamed"


def _component(part: ComponentRecord) -> dict[str, Any]:
    return {"name": part.own or part.name, "package": part.package, "version": part.version, **part.arguments}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(as_json(value), sort_keys=True, default=str)


def _short(text: str | None) -> str:
    """A fact as a label has it: a loss by its name, a number as it is."""
    if text is None:
        return "none"
    try:
        value = json.loads(text)
    except ValueError:
        return text[:24]
    if isinstance(value, list):
        names = [one["name"] for one in value if isinstance(one, Mapping) and "name" in one]
        return "+".join(names) or (text[:24] if value else "none")
    return str(value["name"]) if isinstance(value, Mapping) and "name" in value else text[:24]
