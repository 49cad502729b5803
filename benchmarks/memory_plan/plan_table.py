"""Prints the table of docs/scaling.md: memory per GPU of common shapes under every packaged config, as Markdown.

    python -m benchmarks.memory_plan.plan_table

Calculated by hf_unlearn.planning, nothing is run. plan_accuracy.py compares such figures with measured ones.
"""

import argparse

import torch
import transformers
from peft import LoraConfig

from hf_unlearn.planning import Hardware, Option, Planner, Request, load_config, make_plan
from hf_unlearn.planning.optimizer_states import optimizer_cost
from hf_unlearn.planning.request import GIB
from hf_unlearn.training.method_specs import forget_losses, retain_losses
from hf_unlearn.training.objective import Objective

MODELS = ("opt-1.3b", "opt-2.7b", "llama-8b", "llama-70b")
GPUS = (1, 8, 16)
BATCH, LENGTH = 4, 1024


def request_of(model: str, lora: bool, retain: str) -> Request:
    """NPO with a retain loss, in bf16 with activation checkpointing; fp32 weights, or LoRA on bf16 ones."""
    return Request(
        model,
        load_config(model),
        LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None,
        Objective(forget_losses("npo"), retain_losses(retain)),
        optimizer_cost("adamw_torch_fused"),
        dtype=torch.bfloat16 if lora else torch.float32,
        mixed=torch.bfloat16,
        checkpointing=True,
        batch=BATCH,
        length=LENGTH,
    )


def cells(model: str, lora: bool, retain: str) -> dict[str, dict[int, Option]]:
    """Options by config and GPUs."""
    request = request_of(model, lora, retain)
    planner, options = Planner(request), {}
    for gpus in GPUS:
        for option in make_plan(request, Hardware(gpus=gpus), planner=planner).options:
            name = "ddp" if option.strategy.name == "none" else option.strategy.name
            options.setdefault(name, {})[gpus] = option
    return options


def cell(option: Option | None) -> str:
    """GiB per GPU; struck out where they are more than a GPU has."""
    if option is None or option.memory is None:
        return "-"
    size = f"{option.memory.peak / GIB:.1f}"
    return size if option.fits else f"~~{size}~~"


def table(retain: str) -> str:
    """All models, full parameters beside LoRA."""
    header = ["model", "config", *(f"full, {n} GPU" for n in GPUS), *(f"LoRA, {n} GPU" for n in GPUS)]
    lines = [f"| {' | '.join(header)} |", "|---|---|" + "---:|" * (2 * len(GPUS))]
    for model in MODELS:
        full, lora = cells(model, False, retain), cells(model, True, retain)
        order = ["ddp", "zero1", "zero2", "zero3", "fsdp2", "zero3_offload"]
        for i, name in enumerate(order):
            sizes = [cell(kind[name].get(n)) for kind in (full, lora) for n in GPUS]
            lines.append(f"| {model if i == 0 else ''} | {name} | {' | '.join(sizes)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--retain_loss", default="kl")
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    print(
        f"GiB per GPU at the peak of a step, calculated by `hf-unlearn plan`: NPO with a retain loss "
        f"`{args.retain_loss}`, {BATCH} forget and {BATCH} retain rows of {LENGTH} tokens a GPU, bf16 with "
        f"activation checkpointing, `adamw_torch_fused`. Full parameters: fp32 weights, and for KL a frozen copy; "
        f"LoRA (r=16, all linear layers): bf16 weights, the reference is the model with its adapter off. Struck out: "
        f"more than the 92% of 80 GiB that the plan counts on. One GPU with `ddp` is one process without a config. "
        f"`zero3_offload` takes memory of the machine too, which the plan prints.\n"
    )
    print(table(args.retain_loss))


if __name__ == "__main__":
    main()
