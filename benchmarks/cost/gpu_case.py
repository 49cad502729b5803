"""Runs one case of gpu.py in a process of its own: a model with random weights on the device, its steps timed."""

import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import peft
import torch
import transformers
from transformers import Trainer

from benchmarks.common.environment import machine, versions
from benchmarks.common.synthetic import Sizes, answer_tokens, lora_config, make_model
from benchmarks.cost.gpu_cases import SETTINGS, SHAPES, TINY, TRAINERS, Case, Setting
from benchmarks.cost.step_profile import profiled_step
from benchmarks.cost.trainer_memory import cuda_memory, kept_mib
from benchmarks.cost.trainer_pairs import (
    Method,
    batches_of,
    plain_trainer,
    steps_of,
    training_arguments,
    unlearning_trainer,
)
from hf_unlearn.model import fingerprints

BATCHES = 4
WARMUP, TIMED = 3, 8


def run_case(case: Case, tiny: bool, rate: float | None, log: str, result: str) -> None:
    """Run a case and write its figures to `result`; what it prints, a traceback too, goes to `log`."""
    with open(log, "w", encoding="utf-8", buffering=1) as stream:
        os.dup2(stream.fileno(), sys.stdout.fileno())
        os.dup2(stream.fileno(), sys.stderr.fileno())
        datasets.disable_progress_bars()
        transformers.utils.logging.set_verbosity_error()
        kinds = {"rate": matrix_rate, "losses": losses, "steps": time_steps}
        figures = kinds[case.kind](case, tiny, rate)
        Path(result).write_text(json.dumps(figures), encoding="utf-8")


def matrix_rate(case: Case, tiny: bool, rate: float | None) -> dict[str, Any]:
    """FLOP/s of a bf16 matrix product on random data, and what the card is."""
    size = 512 if tiny else 8192
    left, right = (torch.randn(size, size, device=case.device).bfloat16() for _ in range(2))
    clock = Clock(case.device)
    for _ in range(3):
        left @ right
    for _ in range(10):
        clock.tick()
        left @ right
    clock.tick()
    rate = 2 * size**3 / (statistics.median(clock.intervals()) / 1000)
    return {"size": size, "tflops": rate / 1e12, "machine": machine(case.device == "cuda"), "versions": versions()}


class Clock:
    """Marks on the device's time line: CUDA events, so that the host never waits between them."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        self.marks: list[Any] = []

    def tick(self) -> None:
        if not self.cuda:
            self.marks.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self.marks.append(event)

    def intervals(self) -> list[float]:
        """Milliseconds between neighbouring marks."""
        pairs = zip(self.marks, self.marks[1:], strict=False)
        if not self.cuda:
            return [1000 * (later - earlier) for earlier, later in pairs]
        torch.cuda.synchronize()
        return [earlier.elapsed_time(later) for earlier, later in pairs]


def losses(case: Case, tiny: bool, rate: float | None) -> dict[str, Any]:
    """Losses and gradient norms of four steps of tiny models in fp32, to be compared between devices."""
    methods = {
        "grad_ascent + nll": Method("grad_ascent"),
        "simnpo + nll": Method("simnpo"),
        "npo cached + nll": Method("npo"),
        "npo + kl (frozen copy)": Method("npo", "kl"),
        "npo + kl (adapter off)": Method("npo", "kl", lora=True),
    }
    if case.device == "cpu":
        torch.set_num_threads(1)  # models so small are slower with more
    trajectories = {}
    for architecture in ("opt", "llama"):
        sizes = Sizes(architecture, vocabulary=512, hidden=64, layers=2, shortest=16, longest=64, batch=4)
        for name, method in methods.items():
            with tempfile.TemporaryDirectory() as folder:
                model = make_model(sizes, lora=False)
                more = {"max_steps": 4, "logging_steps": 1, "use_cpu": case.device == "cpu"}
                trainer = unlearning_trainer(method, sizes, folder, model, count=16, **more)
                trainer.train()
            rows = [row for row in trainer.state.log_history if "loss" in row]
            trajectories[f"{architecture} {name}"] = [[row["loss"], row["grad_norm"]] for row in rows]
    return {"trajectories": trajectories}


def random_model(setting: Setting, device: str, tiny: bool) -> Any:
    """Weights drawn on the device itself: nothing is read, and nothing goes through the CPU."""
    shape = SHAPES[setting.shape]
    config_class = {"opt": transformers.OPTConfig, "llama": transformers.LlamaConfig}[shape.architecture]
    config = config_class(**shape.config | (TINY[setting.shape] if tiny else {}))
    config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 1, 2
    torch.manual_seed(0)
    with torch.device(device):
        return transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, setting.weights))


def build(case: Case, setting: Setting, sizes: Sizes, folder: str, tiny: bool) -> tuple[Trainer, list[list[Any]]]:
    """The trainer of a case, and the rows of its batches: the same for every trainer of a setting."""
    # The weights are drawn from a seed: that names them, and saves hashing 16 GB for the cache of the reference.
    fingerprints.hash_weights = lambda model: f"{case.setting} of seed 0"
    more = {"bf16": True, "use_cpu": case.device == "cpu", "optim": "adamw_torch_fused"}
    more["activation_checkpointing"] = setting.checkpointing
    losses_of_ours = TRAINERS[case.trainer]
    count = sizes.batch * BATCHES
    if losses_of_ours is not None:
        method = Method(*losses_of_ours, lora=setting.lora)
        model = random_model(setting, case.device, tiny)
        if case.trainer.endswith("padding-free"):
            kind = "flash_attention_2" if "flash" in case.trainer else "flex_attention"
            model.set_attn_implementation(kind if case.device == "cuda" else "sdpa")
            more["padding_free"] = True
        more["torch_compile"] = case.trainer.endswith("compiled")
        ours = unlearning_trainer(method, sizes, folder, model, count=count, **more)
        return ours, batches_of(ours, sizes.batch)
    # Which rows meet in a batch is told by our trainer; a model of any size does for that.
    small = Sizes(vocabulary=sizes.vocabulary, hidden=8, layers=1, longest=sizes.longest)
    pairs = unlearning_trainer(Method("simnpo"), sizes, folder, make_model(small, lora=False), count=count, **more)
    batches, tokenizer = batches_of(pairs, sizes.batch), pairs.processing_class
    del pairs
    model = random_model(setting, case.device, tiny)
    if case.trainer == "TRL SFTTrainer":
        return sft_trainer(setting, model, batches, tokenizer, folder, more), batches
    if setting.lora:
        model = peft.get_peft_model(model, lora_config())
        if setting.checkpointing:
            model.enable_input_require_grads()
    return plain_trainer(model, batches, tokenizer, folder, **more), batches


def sft_trainer(
    setting: Setting, model: Any, batches: list[list[Any]], tokenizer: Any, folder: str, more: dict[str, Any]
) -> Trainer:
    import trl  # not everywhere, and the other cases go without it

    return trl.SFTTrainer(
        model=model,
        args=training_arguments(trl.SFTConfig, folder, len(batches[0]), max_length=None, **more),
        train_dataset=datasets.Dataset.from_list([row for batch in batches for row in batch]),
        processing_class=tokenizer,
        peft_config=lora_config() if setting.lora else None,
    )


def time_steps(case: Case, tiny: bool, rate: float | None) -> dict[str, Any]:
    """Median step, tokens/s, share of the matrix rate, peak memory and synchronisations of one trainer."""
    started, setting, cuda = time.perf_counter(), SETTINGS[case.setting], case.device == "cuda"
    small = cuda and torch.cuda.get_device_properties(0).total_memory < 100 * 2**30
    vocabulary = (TINY[setting.shape] if tiny else SHAPES[setting.shape].config)["vocab_size"]
    shortest, longest = (16, 32) if tiny else (512, 1024)
    batch = setting.small_batch if small else setting.batch
    sizes = Sizes(vocabulary=vocabulary, shortest=shortest, longest=longest, batch=batch)
    with tempfile.TemporaryDirectory() as folder:
        trainer, batches = build(case, setting, sizes, folder, tiny)
        steps = steps_of(trainer)
        for _ in range(WARMUP):
            next(steps)
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        ready, clock = time.perf_counter(), Clock(case.device)
        clock.tick()
        for _ in range(TIMED):
            next(steps)
            clock.tick()
        milliseconds = clock.intervals()
        memory = cuda_memory(trainer) if cuda else kept_mib(trainer)
        synchronisations = synchronisations_of(steps) if cuda else None
        parts = profiled_step(steps, cuda=cuda)
    tokens = [sum(len(row["input_ids"]) for row in batches[(WARMUP + i) % BATCHES]) for i in range(TIMED)]
    work = [model_flops(trainer.model, case, batches[(WARMUP + i) % BATCHES]) for i in range(TIMED)]
    figures = {
        "step_ms": statistics.median(milliseconds),
        "steps_ms": milliseconds,
        "rows": len(batches[0]),
        "tokens_per_step": statistics.mean(tokens),
        "tokens_per_second": statistics.median(1000 * n / ms for n, ms in zip(tokens, milliseconds, strict=True)),
        "setup_seconds": ready - started,
        "synchronisations": synchronisations,
        "parts_ms": parts,
        **memory,
    }
    if rate is not None:
        for key, i in (("share", 0), ("share_with_recomputation", 1)):
            figures[key] = statistics.median(
                flops[i] / (ms / 1000) / (rate * 1e12) for flops, ms in zip(work, milliseconds, strict=True)
            )
    return figures


def model_flops(model: Any, case: Case, rows: list[dict[str, Any]]) -> tuple[float, float]:
    """FLOPs that a step of the case's trainer needs, and the same with what activation checkpointing computes again.

    A matrix of n weights costs 2n a token forward, 2n for the gradient of its input and, where it is trained, 2n for
    its own. Attention costs 2 L len^2 H a row forward (its causal half) and twice that backward. The head counts at
    every token for the others' trainers, and at answer tokens for ours, which needs it nowhere else. A live reference
    is one forward of the retain rows.
    """
    config = model.config.get_text_config()
    layers, hidden, head = config.num_hidden_layers, config.hidden_size, config.vocab_size * config.hidden_size
    setting, ours = SETTINGS[case.setting], TRAINERS[case.trainer] is not None
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad and p.ndim == 2)
    everything = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    tables = {id(e.weight): e.weight.numel() for e in embeddings_of(model)}
    inner = everything - sum(tables.values())  # matrices of the blocks, adapters included
    inner_trained = trained if setting.lora else inner

    def forward(part: list[dict[str, Any]]) -> tuple[float, float]:
        tokens = sum(len(row["input_ids"]) for row in part)
        head_tokens = answer_tokens(part) if ours else tokens
        attention = sum(2 * layers * hidden * len(row["input_ids"]) ** 2 for row in part)
        return 2.0 * inner * tokens + attention, 2.0 * head * head_tokens

    blocks, output = forward(rows)
    tokens = sum(len(row["input_ids"]) for row in rows)
    backward = blocks + output + sum(2 * layers * hidden * len(row["input_ids"]) ** 2 for row in rows)
    backward += 2.0 * inner_trained * tokens + (0 if setting.lora else output)
    total = blocks + output + backward
    losses_of_ours = TRAINERS[case.trainer]
    if losses_of_ours is not None and losses_of_ours[1] == "kl":
        total += sum(forward(rows[len(rows) // 2 :]))
    return total, total + (blocks if setting.checkpointing else 0)


def embeddings_of(model: Any) -> Iterator[torch.nn.Module]:
    """Tables that are looked up, and the head, which is counted by itself."""
    yield model.get_output_embeddings()
    yield from (module for module in model.modules() if isinstance(module, torch.nn.Embedding))


def synchronisations_of(steps: Iterator[None]) -> dict[str, Any]:
    """How often the host waited for the device in one step, and where."""
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            next(steps)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places: dict[str, int] = {}
    for warning in caught:
        if "synchroniz" in str(warning.message):
            path = Path(warning.filename)
            place = f"{path.parent.name}/{path.name}:{warning.lineno}"
            places[place] = places.get(place, 0) + 1
    return {"count": sum(places.values()), "places": places}
