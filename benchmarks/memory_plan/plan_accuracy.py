"""Compares the memory that `hf-unlearn plan` calculates with the peak of real steps of UnlearningTrainer.

    python -m benchmarks.memory_plan.plan_accuracy --output benchmarks/results/plan_accuracy_cpu.json
    python -m benchmarks.memory_plan.plan_accuracy --preset gpu --output benchmarks/results/plan_accuracy_gpu.json

On a CPU the measured peak is the most bytes of tensors alive at once, everything from the model's weights on counted
(live_memory.py, which shares no code with the plan). On a GPU it is torch.cuda.max_memory_allocated. Models have
random weights; rows are random tokens, a third of each prompt. The rows of a batch are up to two tokens shorter than
`max_length`, so that there is a mask. `ratio` is planned / measured; `ratio_of_rest` leaves out of both what the plan
knows exactly: weights, optimizer states, and the weights of a frozen copy.
"""

import argparse
import dataclasses
import gc
import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, PrinterCallback
from trl import ModelConfig, get_peft_config

from benchmarks.common.environment import machine, versions
from benchmarks.common.synthetic import make_tokenizer
from benchmarks.memory_plan.live_memory import LiveMemory
from hf_unlearn import UnlearningConfig, UnlearningTrainer
from hf_unlearn.errors import require_choice
from hf_unlearn.planning.memory import Memory, Planner
from hf_unlearn.planning.request import Request, make_request
from hf_unlearn.planning.strategies import packaged_strategies
from hf_unlearn.tasks.arguments import RunArguments, check_arguments

MIB = 2**20
STEPS = 3
PROMPT = 1 / 3


@dataclass(frozen=True)
class Case:
    """A model and the arguments of a run, as `hf-unlearn train` has them.

    Attributes:
        model: a known shape, or the values of a config.
        arguments: by name.
    """

    model: str | dict[str, Any]
    arguments: dict[str, Any] = field(default_factory=dict)


def llama(hidden: int, layers: int, vocabulary: int = 2048, *, tied: bool = False) -> dict[str, Any]:
    """A small Llama with two query heads to a key."""
    return {
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 32,
        "num_key_value_heads": hidden // 64,
        "tie_word_embeddings": tied,
    }


def opt(hidden: int, layers: int, vocabulary: int = 2048) -> dict[str, Any]:
    """A small OPT."""
    return {
        "model_type": "opt",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "word_embed_proj_dim": hidden,
        "ffn_dim": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 32,
    }


LORA = {"use_peft": True, "lora_r": 8, "lora_target_modules": "all-linear"}
KL = {"forget_loss": "npo", "retain_loss": "kl"}
LONG = {"max_length": 256, "per_device_train_batch_size": 4}
SHORT = {"max_length": 32, "per_device_train_batch_size": 2}
CHECKPOINTED = {"activation_checkpointing": True}

CPU_CASES = {
    "llama, activations": Case(llama(128, 4), LONG),
    "llama, activations, eager": Case(llama(128, 4), {**LONG, "attn_implementation": "eager"}),
    "llama, activations, checkpointing": Case(llama(128, 8), {**LONG, **CHECKPOINTED}),
    "llama, activations, bf16": Case(llama(128, 4), {**LONG, "bf16": True}),
    "llama, weights": Case(llama(256, 6), SHORT),
    "llama, weights, accumulation": Case(llama(256, 6), {**SHORT, "gradient_accumulation_steps": 2}),
    "llama, weights, bf16, checkpointing": Case(llama(256, 6), {**SHORT, "bf16": True, **CHECKPOINTED}),
    "llama, logits": Case(llama(64, 2, 65536), {**LONG, "max_length": 128}),
    "llama, logits, tied": Case(llama(64, 2, 65536, tied=True), {**LONG, "max_length": 128}),
    "llama, KL, frozen copy": Case(llama(256, 4), {**SHORT, **KL}),
    "llama, KL, frozen copy, logits": Case(llama(64, 2, 32768), {**LONG, **KL}),
    "llama, LoRA, KL": Case(llama(128, 4), {**LONG, **LORA, **KL}),
    "llama, LoRA, KL, bf16 weights": Case(llama(256, 6), {**LONG, **LORA, **KL, "dtype": "bfloat16", "bf16": True}),
    "llama, LoRA, checkpointing, bf16 weights": Case(
        llama(256, 6), {**LONG, **LORA, **CHECKPOINTED, "dtype": "bfloat16", "bf16": True}
    ),
    "llama, LoRA, logits": Case(llama(64, 2, 65536), {**LONG, **LORA}),
    "llama, RMU": Case(llama(128, 6), {**LONG, "forget_loss": "rmu", "retain_loss": "hidden"}),
    "opt, activations": Case(opt(128, 4), LONG),
    "opt, activations, batch 8": Case(opt(128, 4), {**LONG, "per_device_train_batch_size": 8}),
    "opt, activations, checkpointing": Case(opt(128, 8), {**LONG, **CHECKPOINTED}),
    "opt, weights, sophia": Case(opt(256, 6), {**SHORT, "optim": "sophia"}),
    "opt, weights, adafactor": Case(opt(256, 6), {**SHORT, "optim": "adafactor"}),
    "opt, weights, sgd": Case(opt(256, 6), {**SHORT, "optim": "sgd"}),
    "opt, weights, bf16 weights": Case(opt(256, 6), {**SHORT, "dtype": "bfloat16"}),
    "opt, logits, undial": Case(opt(64, 2, 50272), {**LONG, "forget_loss": "undial", "retain_loss": "none"}),
    "opt, LoRA, DPO": Case(opt(128, 4), {**LONG, **LORA, "forget_loss": "dpo"}),
}

_GPU = {"max_length": 512, "bf16": True}
GPU_CASES = {
    "opt-1.3b": Case("opt-1.3b", {**_GPU, "per_device_train_batch_size": 4}),
    "opt-1.3b, checkpointing, KL": Case("opt-1.3b", {**_GPU, **KL, **CHECKPOINTED, "per_device_train_batch_size": 8}),
    "opt-1.3b, LoRA, KL": Case(
        "opt-1.3b", {**_GPU, **KL, **LORA, "dtype": "bfloat16", "per_device_train_batch_size": 8}
    ),
    "llama-8b, LoRA, KL": Case(
        "llama-8b", {**_GPU, **KL, **LORA, "dtype": "bfloat16", "per_device_train_batch_size": 2}
    ),
    "llama-8b, LoRA, checkpointing": Case(
        "llama-8b", {**_GPU, **LORA, **CHECKPOINTED, "dtype": "bfloat16", "per_device_train_batch_size": 8}
    ),
    "llama-1b, adamw_torch": Case(
        "llama-1b", {**_GPU, "optim": "adamw_torch", "per_device_train_batch_size": 2, "max_length": 1024}
    ),
}
PRESETS = {"cpu": CPU_CASES, "gpu": GPU_CASES}


def request_of(case: Case, model: str, device: str) -> tuple[Request, dict[str, Any]]:
    """What the plan is asked, and all arguments of the run by name."""
    words = ["--model_name_or_path", model, "--output_dir", "unused"]
    for name, value in case.arguments.items():
        words += [f"--{name}", str(value)]
    values = check_arguments("custom", RunArguments, None, words)
    request = make_request(values, answers=1 - PROMPT)
    return dataclasses.replace(request, on_cpu=device == "cpu"), values


def rows_of(vocabulary: int, length: int, count: int, seed: int) -> datasets.Dataset:
    """Rows of random tokens with an alternative answer as long as the first, up to two tokens short of `length`."""
    generator, prompt, rows = np.random.default_rng(seed), round(length * PROMPT), []
    for i in range(count):
        ids = generator.integers(3, min(vocabulary, 2000), length - i % 3).tolist()
        labels = [-100] * prompt + ids[prompt:]
        rows.append(
            {"input_ids": ids, "labels": labels, "alternate_input_ids": ids, "alternate_labels": labels},
        )
    return datasets.Dataset.from_list(rows)


def build(request: Request, values: dict[str, Any], folder: str, device: str) -> UnlearningTrainer:
    """The trainer of a case; its model has random weights and is made where it is trained.

    `device` is "cuda", "cpu", or "fsdp2" for a CPU that accelerate is to take for a GPU.
    """
    torch.manual_seed(0)
    with torch.device("cuda" if device == "cuda" else "cpu"):
        model = AutoModelForCausalLM.from_config(
            request.config, dtype=request.dtype, attn_implementation=request.attention
        )
    names = ("forget_loss", "retain_loss", "max_length", "per_device_train_batch_size", "activation_checkpointing")
    names += ("bf16", "optim", "gradient_accumulation_steps", "forget_nll_bound")
    args = UnlearningConfig(
        output_dir=folder,
        reference_cache_dir=folder,
        max_steps=STEPS,
        per_device_eval_batch_size=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=device == "cpu",
        dataloader_pin_memory=False,
        **{name: values[name] for name in names},
    )
    count = STEPS * request.batch * request.accumulation
    vocabulary = request.config.vocab_size
    model_config = ModelConfig(
        **{argument.name: values[argument.name] for argument in dataclasses.fields(ModelConfig)}
    )
    trainer = UnlearningTrainer(
        model=model,
        args=args,
        train_dataset={
            name: rows_of(vocabulary, request.length, count, i) for i, name in enumerate(("forget", "retain"))
        },
        processing_class=make_tokenizer(min(vocabulary, 2048)),
        peft_config=get_peft_config(model_config),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def measured_peak(request: Request, values: dict[str, Any], device: str) -> int:
    """Bytes at the peak of a few steps, weights included."""
    gc.collect()
    with tempfile.TemporaryDirectory() as folder:
        if device == "cpu":
            with LiveMemory() as memory:
                trainer = build(request, values, folder, device)
                trainer.train()
            peak = memory.peak(everything=True)
        else:
            torch.cuda.empty_cache()
            before = torch.cuda.memory_allocated()
            trainer = build(request, values, folder, device)
            torch.cuda.reset_peak_memory_stats()
            trainer.train()
            peak = torch.cuda.max_memory_allocated() - before
        del trainer
    gc.collect()
    return peak


def compare(case: Case, device: str) -> dict[str, Any]:
    """Planned and measured peak of a case."""
    with tempfile.TemporaryDirectory() as folder:
        name = case.model
        if not isinstance(name, str):
            AutoConfig.for_model(**name).save_pretrained(folder)
            name = folder
        request, values = request_of(case, name, device)
        started = time.perf_counter()
        planned: Memory = Planner(request).memory(packaged_strategies()[0], 1)
        seconds = time.perf_counter() - started
        peak = measured_peak(request, values, device)
    parts = planned.parts
    known = planned.moments["optimizer"]
    exact = known.weights + known.reference + planned.moments["forward"].optimizer
    return {
        "planned_mib": planned.peak / MIB,
        "measured_mib": peak / MIB,
        "ratio": planned.peak / peak,
        "ratio_of_rest": (planned.peak - exact) / (peak - exact),
        "at": planned.at,
        "parts_mib": {name: size / MIB for name, size in dataclasses.asdict(parts).items()},
        "plan_seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--only", nargs="+", help="names of cases")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    for name in args.only or ():
        require_choice("--only", name, PRESETS[args.preset])
    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    device = "cuda" if args.preset == "gpu" else "cpu"
    results = {}
    print(f"{'case':44} {'planned':>9} {'measured':>9} {'ratio':>6} {'rest':>6}  peak at")
    for name, case in PRESETS[args.preset].items():
        if args.only and name not in args.only:
            continue
        results[name] = result = compare(case, device)
        print(
            f"{name:44} {result['planned_mib']:9.1f} {result['measured_mib']:9.1f} {result['ratio']:6.3f} "
            f"{result['ratio_of_rest']:6.3f}  {result['at']}",
            flush=True,
        )
    ratios = [result["ratio"] for result in results.values()]
    print(f"ratios from {min(ratios):.3f} to {max(ratios):.3f}")
    if args.output:
        figures = {"machine": machine(device == "cuda"), "versions": versions(), "cases": results}
        args.output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
