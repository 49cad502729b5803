"""What a run was and took, as lines of its card."""

from collections.abc import Mapping
from typing import Any

from ..lineage import lineage_words
from ..record import RECORD_FILE, RunRecord
from .text import adapter_kind, code, finite, number, plain

_SHARDED = ("ZeRO", "FSDP")  # what one process may use too


def training_facts(record: RunRecord) -> list[str]:
    """What the run was and took, a line each; what is not known has no line."""
    model, cost, facts = record.model, record.cost, []
    if model.parameters:
        share = f"{100 * model.trained / model.parameters:.3g}%"
        precision = f"; base weights in {plain(model.dtype)}" if model.dtype else ""
        facts.append(f"Trained: {model.trained:,} of {model.parameters:,} parameters ({share}){precision}.")
    if model.adapter is not None:
        given = ", ".join(f"{key}={value}" for key, value in model.adapter.items() if key != "kind")
        facts.append(f"Adapter: {adapter_kind(model)}{f', {code(given)}' if given else ''}.")
    facts += _steps(record)
    if record.steps or record.arguments or record.seed:
        facts.append(f"Seed: {record.seed}.")
    if record.hardware.get("device"):
        facts.append(f"Hardware: {_hardware(record.hardware)}.")
    amounts = (
        ("seconds", "s of its phases" if record.phases else "s of training"),
        ("peak_memory_mb", "MB peak memory of the process"),
        ("tokens", "tokens"),
    )
    if record.resumed_from:
        amounts = (("seconds", f"s of training (since step {record.resumed_from:,})"), *amounts[1:])
    spent = [f"{number(cost[name])} {unit}" for name, unit in amounts if finite(cost.get(name)) is not None]
    if finite(cost.get("flops")) is not None:
        spent.append(f"{cost['flops']:.2e} FLOPs by Trainer's estimate")
    if (emitted := finite(record.emissions_kg)) is not None:
        spent.append(f"{number(1000 * emitted)} g CO2 equivalents, estimated by codecarbon")
    facts += [f"Cost: {', '.join(spent)}."] if spent else []
    if record.lineage is not None:
        words = "; ".join(f"{name}: {plain(value)}" for name, value in lineage_words(record.lineage))
        facts.append(f"Lineage (first digits of SHA-256; whole in `{RECORD_FILE}`): {words}.")
    return facts


def _steps(record: RunRecord) -> list[str]:
    if not record.steps and not record.planned_steps:
        return []
    planned = f" of {record.planned_steps:,} planned" if record.planned_steps else ""
    unit = "epoch" if record.epochs == 1 else "epochs"
    epochs = f", {number(record.epochs)} {unit} of the forget set" if record.epochs else ""
    lines = [f"Optimizer steps: {record.steps:,}{planned}{epochs}."]
    if record.stop_reason:
        lines.append(f"Stopped early: {plain(record.stop_reason)}.")
    elif record.planned_steps and record.steps >= record.planned_steps:
        lines.append("All planned steps were taken.")
    elif record.planned_steps:
        lines.append("The run ended before all planned steps were taken; no reason is on record.")
    if record.resumed_from:
        lines.append(f"Resumed from step {record.resumed_from:,}; the cost is that of the steps since then.")
    return lines


def _hardware(hardware: Mapping[str, Any]) -> str:
    cores = f" ({hardware['cores']} cores)" if hardware.get("cores") else ""
    words = [plain(hardware["device"]) + cores]
    processes, strategy = hardware.get("processes"), str(hardware.get("strategy") or "")
    if processes == 1:
        words.append(f"{plain(strategy)}, 1 process" if strategy.startswith(_SHARDED) else "1 process")
    elif processes:
        words.append(f"{processes} processes ({plain(strategy or 'DDP')})")
    if hardware.get("precision"):
        words.append(f"precision: {plain(hardware['precision'])}")
    return "; ".join([*words, *([plain(hardware["platform"])] if hardware.get("platform") else [])])
