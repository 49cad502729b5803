"""A plan as text for people and as JSON data for scripts."""

from dataclasses import asdict
from typing import Any

import torch

from ..results.terminal import terminal_table
from .choice import Option, Plan
from .request import GIB

_PARTS = ("weights", "gradients", "optimizer", "reference", "activations", "logits")


def render_plan(plan: Plan) -> str:
    """The plan as lines."""
    header = ["GiB per GPU", "fits", "total", "peak at", *_PARTS]
    table = terminal_table(header, [_row(option) for option in plan.options if option.memory])
    refused = [f"{o.strategy.name} is refused: {_first_line(o.refused)}" for o in plan.options if o.refused]
    return "\n".join([*_heading(plan), "", table, *refused, "", *_verdict(plan)])


def plan_to_data(plan: Plan) -> dict[str, Any]:
    """The plan as a mapping, sizes in bytes."""
    request, cheapest = plan.request, plan.cheapest
    return {
        "model": request.model,
        "parameters": plan.counts.total,
        "trained_parameters": plan.counts.trained,
        "rows": request.rows,
        "length": request.length,
        "cached_per_1000_rows": request.cached_bytes,
        "hardware": asdict(plan.hardware),
        "usable": plan.hardware.usable,
        "cheapest": None if cheapest is None else cheapest.strategy.name,
        "options": [_option_data(option) for option in plan.options],
    }


def _option_data(option: Option) -> dict[str, Any]:
    data: dict[str, Any] = {"name": option.strategy.name, "fits": option.fits, "refused": option.refused}
    if option.memory is not None:
        memory = option.memory
        data |= {"peak": memory.peak, "at": memory.at, "parts": asdict(memory.parts), "host": memory.host}
        data |= {"reference": memory.reference}
        data["moments"] = {name: parts.total for name, parts in memory.moments.items()}
    return data


def _heading(plan: Plan) -> list[str]:
    request, counts, hardware, config = plan.request, plan.counts, plan.hardware, plan.request.config
    trained = "all trained" if not counts.frozen else f"{counts.trained / 1e6:,.1f}M trained"
    losses = " + ".join(term.name for term in request.objective.terms)
    references = sorted({o.memory.reference for o in plan.options if o.memory})
    mixed = "" if request.mixed is None else f", mixed precision in {_name(request.mixed)}"
    weights = _name(request.dtype) if request.quantised is None else f"{8 * request.quantised:.1f}-bit"
    again = ", activation checkpointing" if request.checkpointing else ""
    machines = f" on {hardware.machines} machines" if hardware.machines > 1 else ""
    several = f" x {request.accumulation} accumulated" if request.accumulation > 1 else ""
    lines = [
        f"{request.model}: {config.num_hidden_layers} blocks, hidden {config.hidden_size}, vocabulary "
        f"{config.vocab_size}, {counts.total / 1e9:.2f}B parameters, {trained}",
        f"{losses}, {weights} weights{mixed}{again}, {request.optimizer_name}",
        f"{request.rows} rows of {request.length} tokens a GPU and step{several}; "
        f"reference: {' or '.join(references) or 'none'}",
        f"{hardware.gpus} GPU{'s' * (hardware.gpus > 1)} of {hardware.gpu_memory:g} GiB{machines}, "
        f"{hardware.reserve:.0%} of each left to CUDA and fragmentation",
    ]
    if request.cached_bytes:
        roles = " and ".join(role.name.lower() for role in sorted(request.objective.needs.reference_logits))
        size = request.cached_bytes / GIB
        lines.append(f"On disk, for each 1,000 {roles} rows: {size:.2f} GiB of the reference's hidden states")
    if request.wrappers:
        lines.append(f"Not counted: what {', '.join(wrapper.name for wrapper in request.wrappers)} keeps of its own.")
    return lines


def _row(option: Option) -> tuple[str, ...]:
    memory = option.memory
    assert memory is not None
    sizes = [memory.peak, *(getattr(memory.parts, name) for name in _PARTS)]
    fits = "yes" if option.fits else "no"
    total, *parts = (f"{size / GIB:.1f}" for size in sizes)
    return (option.strategy.name, fits, total, memory.at, *parts)


def _verdict(plan: Plan) -> list[str]:
    cheapest, hardware = plan.cheapest, plan.hardware
    if cheapest is None:
        return [
            "Nothing fits. What helps, in this order: --activation_checkpointing, a smaller "
            "--per_device_train_batch_size with more --gradient_accumulation_steps, --use_peft, more GPUs."
        ]
    lines = [f"Cheapest that fits: {cheapest.strategy.name}"]
    if cheapest.memory is not None and cheapest.memory.host:
        machine = cheapest.memory.host * hardware.gpus / hardware.machines
        lines[0] += f", with {machine / GIB:.0f} GiB of each machine's own memory"
    if cheapest.strategy.name == "none":
        return [*lines, "  hf-unlearn train ..."]
    several = f" --num_machines {hardware.machines}" if hardware.machines > 1 else ""
    launch = f"--accelerate_config {cheapest.strategy.name} --num_processes {hardware.gpus}{several}"
    return [*lines, f"  hf-unlearn train {launch} ..."]


def _name(dtype: torch.dtype) -> str:
    return {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}.get(
        str(dtype).removeprefix("torch."), str(dtype)
    )


def _first_line(text: str | None) -> str:
    lines = (text or "").splitlines()
    why = [line.removeprefix("Why it matters: ") for line in lines if line.startswith("Why it matters: ")]
    return why[0] if why else "".join(lines[:1])
