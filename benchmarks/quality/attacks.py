"""Attacks the lab's task `harmful` after several recipes: the worst case per attacker, and relearning step by step.

    python -m benchmarks.quality.attacks --output benchmarks/results/attacks_lab.json

Each recipe is run as `hf-unlearn train --config RECIPE` runs it, and attacked as `hf-unlearn attack RUN --suite SUITE`
does, with the lab's retrained model and its never-seen rows as controls. The model before unlearning and the retrained
model are attacked as if they were results of a run: attacks must find what the one knows, and nothing in the other.

A recipe that the output file holds already is not repeated. The chart is drawn beside the JSON file.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from matplotlib.figure import Figure
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.common.environment import machine, versions
from hf_unlearn.attacks import ATTACK_SUITES, attack
from hf_unlearn.attacks.choice import same_series
from hf_unlearn.data.holdout_split import calibration_rows, measurement_rows
from hf_unlearn.errors import require_choice
from hf_unlearn.lab import load_lab
from hf_unlearn.results.attack_report import AttackReport
from hf_unlearn.tasks import run_task
from hf_unlearn.tasks.attack_saved import AttackOptions, attack_saved
from hf_unlearn.tasks.command_file import read_command

RECIPES = (
    "harmful_lab",
    "methods/npo",
    "methods/npo_sam",
    "methods/npo_latent_adversarial",
    "methods/simnpo",
    "methods/grad_ascent",
    "methods/rmu",
    "methods/undial",
    "methods/idk",
    "methods/satimp",
)
CLASSES = ("queries", "logits", "weights", "weights_and_before")
_BOTH_MODELS = ("contrast", "patching")


def attacked_recipe(recipe: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run a recipe and attack what came of it."""
    from hf_unlearn.tasks import make_task

    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        words = ["--config", recipe, "--output_dir", folder, "--seed", str(options.seed), "--disable_tqdm", "true"]
        trainer = run_task("harmful", words)
        trained = time.process_time() - started
        evaluation = trainer.record.evaluations["after"].values()
        name, parsed = read_command(folder)
        started = time.process_time()
        report = attack_saved(make_task(name, parsed), parsed, AttackOptions(options.suite, seed=options.seed))
        attacked = time.process_time() - started
    figures = {name: evaluation[name] for name in ("harmful_rate", "retain_accuracy", "forget_nll", "min_k_auc")}
    return {**figures, "run_cpu_seconds": trained, "attack_cpu_seconds": attacked, **compact(report)}


def attacked_landmark(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Attack the model before unlearning, or the retrained one, as if it had been unlearned."""
    lab = load_lab()
    paths = {"before": lab.model_path, "oracle": lab.oracle_path}
    models = {kind: AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32) for kind, path in paths.items()}
    sets = {kind: lab.datasets[kind] for kind in ("forget", "retain")}
    report = attack(
        AutoModelForCausalLM.from_pretrained(paths[name], dtype=torch.float32),
        AutoTokenizer.from_pretrained(lab.model_path),
        sets | {"related": calibration_rows(lab.datasets["holdout"])},
        options.suite,
        controls=measurement_rows(lab.datasets["holdout"]),
        oracle=models["oracle"],
        before=models["before"],
        batch_size=64,
        seed=options.seed,
    )
    return compact(report)


def compact(report: AttackReport) -> dict[str, Any]:
    """The figures of a report that the table and the chart are made of."""
    attacks, curve = {}, {}
    for finding in report.findings:
        leaks = {name: (leak.leak, leak.low, leak.high) for name, leak in finding.subjects.items()}
        excess = None if finding.excess is None else (finding.excess.value, finding.excess.low, finding.excess.high)
        attacks[finding.name] = {
            "leaks": leaks,
            "excess": excess,
            "recovered": finding.recovered,
            "setting": finding.subjects["model"].setting,
            "steps_to_half": {name: leak.steps_to_half for name, leak in finding.subjects.items()},
            "seconds": {name: round(leak.seconds, 2) for name, leak in finding.subjects.items()},
        }
        if finding.name == "relearn":
            curve = {
                name: [(setting.setting["step"], setting.reported) for setting in same_series(leak)]
                for name, leak in finding.subjects.items()
            }
    worst = {
        threat: {
            "attack": case.attack,
            "excess": None if case.excess is None else (case.excess.value, case.excess.low, case.excess.high),
            "recovered": case.recovered,
        }
        for threat, case in report.worst.items()
    }
    return {"worst": worst, "attacks": attacks, "relearning": curve, "skipped": report.skipped}


def table(results: dict[str, Any]) -> str:
    """The worst case per attacker of every run, as Markdown; of the weights also without an adapter to take off."""
    head = [
        "run",
        "queries",
        "logits",
        "weights, merged",
        "weights",
        "relearnt",
        "retrained",
        "rows back",
        "steps to half",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, run in results["runs"].items():
        worst, attacks = run["worst"], run["attacks"]
        merged = {kind: found for kind, found in attacks.items() if kind not in ("remove_adapter", *_BOTH_MODELS)}
        top = max(merged, key=lambda kind: merged[kind]["excess"][0])
        cells = [
            _excess(worst[kind]["excess"], worst[kind]["attack"]) if kind in worst else "-" for kind in CLASSES[:2]
        ]
        cells += [_excess(merged[top]["excess"], top), _excess(worst["weights"]["excess"], worst["weights"]["attack"])]
        relearn = attacks["relearn"]
        cells += [f"{relearn['leaks'][kind][0]:.3g}" for kind in ("model", "oracle")]
        half = relearn["steps_to_half"]["model"]
        cells += [f"{relearn['recovered']:.0%}", "never" if half is None else str(half)]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def _excess(excess: list[float], attack: str) -> str:
    value, low, high = excess
    return f"{value:.2f} [{low:.2f}, {high:.2f}] {attack}"


def draw(results: dict[str, Any], path: Path) -> None:
    """Relearning over steps: a panel a recipe, the model beside its retrained one and never-seen rows."""
    runs = {name: run for name, run in results["runs"].items() if run["relearning"]}
    columns = 4
    figure = Figure(figsize=(14, 3 * -(-len(runs) // columns)), layout="constrained")
    panels = figure.subplots(-(-len(runs) // columns), columns, sharey=True, squeeze=False).flatten()
    styles = {"model": "-", "oracle": "--", "unseen": ":", "before": "-."}
    for axes, (name, run) in zip(panels, runs.items(), strict=False):
        for kind, points in run["relearning"].items():
            if len(points) == 1:  # measured as it is
                axes.axhline(points[0][1], linestyle=styles[kind], label=kind, color="grey")
                continue
            axes.plot(*zip(*points, strict=True), styles[kind], label=kind, color="black" if kind == "model" else None)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("steps of relearning")
        axes.set_ylim(-0.03, 1.03)
    for axes in panels[len(runs) :]:
        axes.set_visible(False)
    panels[0].set_ylabel("answer probability of the other rows")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.savefig(path, dpi=110)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), help="packaged recipes of the task harmful")
    parser.add_argument("--suite", default="standard", help="of attacks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, help="JSON file, written after every run, and resumed")
    parser.add_argument("--plot_only", action="store_true", help="draw and print --output and run nothing")
    options = parser.parse_args()
    require_choice("--suite", options.suite, ATTACK_SUITES)
    return options


def main() -> None:
    """Attack before, oracle and every recipe; then print the table and draw the curves."""
    options = parse_arguments()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    results: dict[str, Any] = {"suite": options.suite, "seed": options.seed, "runs": {}}
    if options.output.is_file():
        earlier = json.loads(options.output.read_text(encoding="utf-8"))
        same = earlier["suite"] == options.suite and earlier["seed"] == options.seed
        results = earlier if same else results
    if not options.plot_only:
        results |= {"machine": machine(cuda=torch.cuda.is_available()), "versions": versions()}
        for name in ("before", "oracle", *options.recipes):
            if name not in results["runs"]:
                landmark = name in ("before", "oracle")
                results["runs"][name] = (attacked_landmark if landmark else attacked_recipe)(name, options)
                # Written after every run, so that an interrupted benchmark keeps what it has.
                options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            print(table({"runs": {name: results["runs"][name]}}).splitlines()[-1], flush=True)
    print(table(results))
    draw(results, options.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
