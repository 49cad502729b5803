"""Unlearning steps on one GPU against plain Trainer and TRL's SFTTrainer, on the same tokens: speed and peak memory.

    python -m benchmarks.cost.gpu --seconds 330 --output benchmarks/results/gpu.json
    python -m benchmarks.cost.gpu --device cpu --tiny          tries the script itself
    python -m benchmarks.cost.gpu --list                       names the cases
    python -m benchmarks.cost.gpu --cases "llama-8b lora"      those whose names hold one of the texts

Models of the shapes of OPT-1.3b and Llama-3.1-8B with random weights drawn on the card; nothing is downloaded. Rows of
512 to 1024 tokens, a third of each prompt; every trainer of a setting takes the same rows in the same batches. A step
is what Trainer does for one optimizer step (step_time.py). 3 steps warm up, 8 are timed by CUDA events; medians.

Every case runs in a process of its own: one that fails is reported with its last line and the others go on. Cases
that no longer fit into --seconds are skipped. The share of the matrix rate is the FLOPs that a step needs (counted in
gpu_case.py) over the measured rate of an 8192^3 matrix product in bf16. "above" is the peak of allocated memory less
weights, gradients and optimizer states. Synchronisations are the waits of the host for the device that torch reports
in one step. "parts_ms" in the file is where the time of one more step went (step_profile.py): the largest are printed.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.cost.gpu_cases import Case, all_cases, unfit

# Before torch is imported: to look for a card without starting CUDA, which a forked process could not use any more.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
# An 8B model nearly fills the card: memory that is free in pieces has to serve.
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Seconds that a case of steps is expected to take until one of its setting has been seen.
EXPECTED = {"llama-8b": 25, "opt-1.3b": 18}
LONGEST_CASE = 100
TOLERANCE = 1e-4


class Runner:
    """Runs cases one after the other, and keeps what came of them in a JSON file."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.started = args, time.monotonic()
        self.method = args.start_method
        self.record: dict[str, Any] = {"settings": {"tiny": args.tiny, "device": args.device}, "results": {}}

    @property
    def left(self) -> float:
        return self.args.seconds - (time.monotonic() - self.started)

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        return self.record["results"]

    def run(self, case: Case) -> None:
        expected = self.expected(case)
        rate = self.results.get("matrix rate", {})
        reason = unfit(case, rate.get("machine", {}).get("gpu_gib"))
        if reason is None and expected > self.left:
            reason = f"about {expected:.0f} s, with {max(self.left, 0):.0f} s left of --seconds"
        if reason is not None:
            result: dict[str, Any] = {"skipped": reason}
        else:
            began = time.monotonic()
            result = self.in_process(case, rate.get("tflops"))
            if "re-initialize CUDA in forked" in result.get("error", "") and self.method == "fork":
                self.method = "spawn"
                result = self.in_process(case, rate.get("tflops"))
            result["seconds"] = time.monotonic() - began
        self.results[case.name] = result
        if case.kind == "losses":
            self.compare_losses()
        self.write()
        print(f"{self.args.seconds - self.left:5.0f} s  {case.name}: {summary(result)}", flush=True)

    def expected(self, case: Case) -> float:
        if case.kind != "steps":
            return 30
        seen = [r["seconds"] for name, r in self.results.items() if name.startswith(case.setting) and "step_ms" in r]
        return max(seen) if seen else EXPECTED[case.setting.split()[0]]

    def in_process(self, case: Case, rate: float | None) -> dict[str, Any]:
        from benchmarks.cost import gpu_case  # heavy: once here, and a forked process has it already

        with tempfile.TemporaryDirectory() as folder:
            log, result = Path(folder, "log"), Path(folder, "result")
            context = multiprocessing.get_context(self.method)
            arguments = (case, self.args.tiny, rate, str(log), str(result))
            process = context.Process(target=gpu_case.run_case, args=arguments)
            process.start()
            process.join(min(LONGEST_CASE, max(self.left, 1)))
            if process.is_alive():
                process.kill()
                process.join()
                return {"error": "took too long and was ended"}
            if result.exists():
                return json.loads(result.read_text(encoding="utf-8"))
            lines = log.read_text(encoding="utf-8").strip().splitlines() if log.exists() else []
            return {"error": lines[-1] if lines else f"exit code {process.exitcode}", "log": lines[-40:]}

    def compare_losses(self) -> None:
        """The largest relative difference of losses and gradient norms from the CPU's."""
        one, cpu = (self.results.get(f"losses {device}", {}) for device in (self.args.device, "cpu"))
        if "trajectories" not in one or "trajectories" not in cpu:
            return
        worst: dict[str, float] = {}
        for name, expected in cpu["trajectories"].items():
            pairs = zip(one["trajectories"][name], expected, strict=True)
            both = [numbers for row, other in pairs for numbers in zip(row, other, strict=True)]
            worst[name] = max(abs(a - b) / max(abs(b), 1e-12) for a, b in both)
        self.record["losses_differ_by"] = worst | {"asked": TOLERANCE}

    def write(self) -> None:
        if self.args.output:
            self.args.output.parent.mkdir(parents=True, exist_ok=True)
            self.args.output.write_text(json.dumps(self.record, indent=2) + "\n", encoding="utf-8")


def summary(result: dict[str, Any]) -> str:
    if "skipped" in result:
        return f"skipped: {result['skipped']}"
    if "error" in result:
        return f"FAILED: {result['error']}"
    if "tflops" in result:
        return f"{result['tflops']:.1f} TFLOP/s on {result['machine']['gpu'] or result['machine']['processor']}"
    if "trajectories" in result:
        return f"{len(result['trajectories'])} trajectories"
    return f"{result['step_ms']:.1f} ms a step; {result['setup_seconds']:.0f} s until the first timed one"


def print_table(runner: Runner) -> None:
    """What came of every case, beside the plain Trainer of its setting."""
    differ = runner.record.get("losses_differ_by")
    if differ:
        worst = max(value for name, value in differ.items() if name != "asked")
        print(
            f"losses and gradient norms, {runner.args.device} against cpu: differ by {worst:.1e} ({TOLERANCE} asked)"
        )
    print(
        f"\n{'case':46} {'ms':>8} {'x plain':>7} {'tokens/s':>9} {'share':>6} "
        f"{'peak GiB':>8} {'above':>6} {'x plain':>7} {'syncs':>5}"
    )
    for name, result in runner.results.items():
        if "step_ms" not in result:
            if ":" in name:
                print(f"{name:46} {summary(result)[:72]}")
            continue
        plain = runner.results.get(f"{name.split(':')[0]}: plain Trainer", {})
        syncs = result["synchronisations"]
        cells = [
            (result["step_ms"], "8.1f"),
            (ratio(result, plain, "step_ms"), "7.3f"),
            (result["tokens_per_second"], "9.0f"),
            (100 * result["share"] if "share" in result else None, "5.1f"),
            (gib(result.get("peak_mib")), "8.1f"),
            (gib(result.get("peak_above_mib")), "6.1f"),
            (ratio(result, plain, "peak_above_mib"), "7.3f"),
            (syncs["count"] if syncs else None, "5d"),
        ]
        texts = [format(value, form) if value is not None else "-".rjust(int(form.split(".")[0].strip("df")))
                 for value, form in cells]  # fmt: skip
        texts[3] += "%"
        print(f"{name:46} {' '.join(texts)}")


def print_parts(results: dict[str, dict[str, Any]]) -> None:
    """Of every case, the parts of a step by their share of it."""
    print("\nwhere a step's time goes, % of one under the profiler:")
    for name, result in results.items():
        parts = dict(result.get("parts_ms", {}))
        step = parts.pop("step", None)
        if step is not None:
            largest = sorted(parts.items(), key=lambda part: -part[1])
            print(f"{name:46} {', '.join(f'{part} {100 * ms / step:.0f}' for part, ms in largest)}")


def ratio(result: dict[str, Any], plain: dict[str, Any], key: str) -> float | None:
    return result[key] / plain[key] if key in result and key in plain else None


def gib(mib: float | None) -> float | None:
    return None if mib is None else mib / 1024


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", metavar="TEXT", help="those whose name holds one of these")
    parser.add_argument("--seconds", type=float, default=330, help="cases that no longer fit are skipped")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="models and rows of a size for a CPU")
    parser.add_argument("--start-method", choices=("fork", "spawn"), default="fork", help="of the cases' processes")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument("--output", type=Path, help="JSON file, written after every case")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cases = all_cases(args.device)
    if args.cases:
        cases = [case for case in cases if any(text in case.name for text in args.cases) or case.kind == "rate"]
    if args.list:
        print("\n".join(case.name for case in cases))
        return
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    runner = Runner(args)
    for case in cases:
        runner.run(case)
    print_table(runner)
    print_parts(runner.results)


if __name__ == "__main__":
    main()
