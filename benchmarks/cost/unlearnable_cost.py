"""What it costs that a training can be undone: time and disk of UnlearnableCallback, and of deleting a row by replay.

    python -m benchmarks.cost.unlearnable_cost --output benchmarks/results/unlearnable_cost_cpu.json

Plain Trainer with and without the callback, in turns, on the same rows in the same order; CPU time of the process,
from the first optimizer step to the last. What the callback takes is measured inside it too, event by event, since the
difference of two trainings on a shared machine is mostly the machine's. Then a row that was first trained in the last
third is deleted, by a replay from the checkpoint before it and by one from the start.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from benchmarks.common.environment import machine, versions
from benchmarks.common.synthetic import Sizes, make_model, make_rows, make_tokenizer
from hf_unlearn.unlearnable import UnlearnableCallback, read_log, replay

EVENTS = ("on_train_begin", "on_substep_end", "on_step_end", "on_save", "on_train_end")


class Clock(TrainerCallback):
    """CPU time when each optimizer step ended, after all other callbacks."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ends.append(time.process_time())


def timed(callback: UnlearnableCallback) -> dict[str, list[float]]:
    """CPU seconds of every event of a callback, by its name, which fill up as it is called."""
    seconds: dict[str, list[float]] = defaultdict(list)

    def wrap(name: str) -> None:
        own = getattr(callback, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            begin = time.process_time()
            answer = own(*args, **kwargs)
            seconds[name].append(time.process_time() - begin)
            return answer

        setattr(callback, name, call)

    for name in EVENTS:
        wrap(name)
    return seconds


def make_trainer(args: argparse.Namespace, rows: Any, folder: Path, *callbacks: TrainerCallback) -> Trainer:
    sizes = Sizes(hidden=args.hidden, layers=args.layers, batch=args.batch)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=args.batch,
        num_train_epochs=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    tokenizer = make_tokenizer(sizes.vocabulary)
    collate = DataCollatorForSeq2Seq(tokenizer)
    trainer = Trainer(make_model(sizes, lora=False), arguments, collate, rows, callbacks=list(callbacks))
    trainer.remove_callback(PrinterCallback)
    return trainer


def per_step(clock: Clock) -> float:
    return (clock.ends[-1] - clock.ends[0]) / (len(clock.ends) - 1)


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Steps of both, events of the callback, bytes of its files and the time of two replays."""
    rows = make_rows(Sizes(), args.rows, seed=0).select_columns(["input_ids", "labels"])
    plain, logged = [], []
    events: dict[str, list[float]] = defaultdict(list)
    for turn in range(args.rounds):
        clocks = Clock(), Clock()
        make_trainer(args, rows, folder / "plain", clocks[0]).train()
        callback = UnlearnableCallback(folder / f"log{turn}")
        seconds = timed(callback)
        make_trainer(args, rows, folder / "logged", callback, clocks[1]).train()
        plain.append(per_step(clocks[0]))
        logged.append(per_step(clocks[1]))
        for name, values in seconds.items():
            events[name] += values
    seconds = timed(callback := UnlearnableCallback(folder / "log", checkpoints=args.checkpoints))
    begin = time.process_time()
    make_trainer(args, rows, folder / "out", callback).train()
    whole = time.process_time() - begin
    log = read_log(folder / "log")
    late = log.steps[2 * log.total_steps // 3].rows["train"][0][0][0]
    deleted = {}
    for name in ("checkpoint", "start"):
        trainer = make_trainer(args, rows, folder / name)
        begin = time.process_time()
        replay(trainer, folder / "log", [rows[late]], from_start=name == "start")
        deleted[name] = time.process_time() - begin
    sizes = {path.name: path.stat().st_size for path in (folder / "log").rglob("*") if path.is_file()}
    ratios = [ours / theirs for ours, theirs in zip(logged, plain, strict=True)]
    return {
        "step_cpu_ms": {"plain": 1e3 * statistics.median(plain), "logged": 1e3 * statistics.median(logged)},
        "step_ratio": {"median": statistics.median(ratios), "rounds": ratios},
        "callback_cpu_ms_per_step": 1e3 * statistics.median(events["on_step_end"]),
        "callback_cpu_ms_once": {
            "before the first step": 1e3 * statistics.median(events["on_train_begin"]),
            "after the last": 1e3 * statistics.median(events["on_train_end"]),
            "a checkpoint's hash": 1e3 * statistics.median(seconds["on_save"]),
        },
        "bytes": {
            "digests of 1000 rows": 1000 * sizes["train.txt"] / args.rows,
            "steps, 1000 rows trained once": 1000 * sizes["steps-0.jsonl"] / args.rows,
            "weights before the first step": sizes["weights.safetensors"],
            "a checkpoint of Trainer": sum(p.stat().st_size for p in log.checkpoint_before(10**9).rglob("*")),
        },
        "delete_a_row_cpu_s": {**deleted, "the training itself": whole},
        "steps": log.total_steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--checkpoints", type=int, default=20, help="steps between two checkpoints")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args, Path(folder))
    described = {name: value for name, value in vars(args).items() if name != "output"}
    text = json.dumps({"machine": machine(cuda=False), "versions": versions(), "run": described, **result}, indent=1)
    print(text)
    if args.output is not None:
        args.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
