"""What a sweep leaves for people and scripts: trials.csv, the table for a terminal, the JSON, sweep.json."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...results.files import atomic_write_text
from ...results.terminal import terminal_table
from .choice import RULE, ScoredTrial, distance, front
from .final import BEST_FILE, FinalRun, mean_figures
from .objectives import Objective
from .run import Sweep

TRIALS_FILE, PLOT_FILE = "trials.csv", "pareto.png"
_HALVES = (
    "Rows: all are trained on. The runs were compared on the calibration half of the rows, by a hash of each. The\n"
    "reported runs were measured on the other half, which nothing was chosen by."
)


def write_trials(sweep: Sweep, folder: Path) -> Path:
    """trials.csv: a line a run, with its values, its figures, the suite's metrics and how it ended."""
    metrics = sorted({name for trial in sweep.trials for name in trial.metrics})
    names = [one.name for one in sweep.objectives]
    on_front = {trial.number for trial in front(sweep.trials)}
    written = io.StringIO()
    table = csv.writer(written, lineterminator="\n")
    values = [parameter.path for parameter in sweep.plan.space]
    table.writerow(
        ["run", "state", "recipe", "front", "best", *values, *names, "distance", "seconds", "note", *metrics]
    )
    for trial in sweep.trials:
        state = "failed" if trial.failure else "done"
        marks = [trial.number in on_front, trial.number == sweep.best.number]
        figures = trial.figures or [""] * len(names)
        far = distance(trial.figures, sweep.objectives) if trial.figures else ""
        row: list[Any] = [
            trial.number,
            state,
            "unchanged" if trial.unchanged else "",
            *("yes" if mark else "" for mark in marks),
        ]
        row += [*(trial.values.get(path, "") for path in values), *figures, far, trial.seconds]
        table.writerow([*row, trial.failure or trial.stop_reason or "", *(trial.metrics.get(m, "") for m in metrics)])
    return atomic_write_text(folder / TRIALS_FILE, written.getvalue())


def sweep_words(sweep: Sweep) -> str:
    """The tables and sentences for a terminal."""
    plan, names = sweep.plan, [one.name for one in sweep.objectives]
    on_front = {trial.number for trial in front(sweep.trials)}
    paths = [parameter.path for parameter in plan.space]
    shown = [trial for trial in sweep.trials if trial.number in on_front or trial.unchanged]
    rows = [_row(trial, sweep, paths) for trial in shown]
    failed = sum(trial.failure is not None for trial in sweep.trials)
    title = f"{len(sweep.trials)} runs, {failed} failed; those on the front, and the unchanged recipe"
    headers = ["Run", *names, "distance", *(path.rpartition(".")[2] for path in paths)]
    notes = [f"* the best: {RULE}.", *(f"{one.name}: {one.words}." for one in sweep.objectives)]
    off = [trial.number for trial in shown if trial.number not in on_front]
    notes += (
        ["The unchanged recipe is not on the front: another run is as good in everything, and better somewhere."]
        if off
        else []
    )
    first = terminal_table(headers, rows, title=title, notes=notes)
    reported = [*_reported("unchanged", sweep.final.unchanged, sweep), *_reported("chosen", sweep.final.best, sweep)]
    counts = ", ".join(
        f"{count} {name}" for name, count in sweep.final.measured.items() if name in ("forget", "retain")
    )
    second = terminal_table(
        ["Recipe", "seed", *names, "distance"], reported, title=f"On rows not chosen by ({counts or 'none'})"
    )
    where = (
        f"Chosen recipe: {plan.folder / BEST_FILE} (hf-unlearn train --config)\n"
        f"All runs: {plan.folder / TRIALS_FILE}\nPlot: {plan.folder / PLOT_FILE}\n"
        f"Reported runs: {plan.folder / 'runs'} (hf-unlearn report, compare)"
    )
    return f"{first}\n\n{second}\n\n{_HALVES}\n{sweep.final.conclusion}\n{where}"


def sweep_data(sweep: Sweep) -> dict[str, Any]:
    """All of it, as JSON takes it."""
    plan = sweep.plan
    on_front = {trial.number for trial in front(sweep.trials)}
    trials = [
        {
            "run": trial.number,
            "unchanged": trial.unchanged,
            "values": dict(trial.values),
            "figures": _named(trial.figures, sweep.objectives),
            "distance": distance(trial.figures, sweep.objectives) if trial.figures else None,
            "front": trial.number in on_front,
            "seconds": trial.seconds,
            "failure": trial.failure,
            "stop_reason": trial.stop_reason,
        }
        for trial in sweep.trials
    ]
    return {
        "task": plan.task,
        "sampler": plan.sampler,
        "seed": plan.seed,
        "space": {one.path: _ends(one) for one in plan.space},
        "objectives": {one.name: one.words for one in sweep.objectives},
        "scales": {one.name: one.scale for one in sweep.objectives},
        "rule": RULE,
        "trials": trials,
        "best": {"run": sweep.best.number, "unchanged": sweep.best.unchanged, "values": dict(sweep.best.values)},
        "reporting": {
            "unchanged": [_final(run, sweep.objectives) for run in sweep.final.unchanged],
            "best": [_final(run, sweep.objectives) for run in sweep.final.best],
            "better": sweep.final.better,
            "conclusion": sweep.final.conclusion,
        },
        "rows": {"calibration": sweep.measured, "reporting": dict(sweep.final.measured), "halves": _HALVES},
        "files": {"folder": str(plan.folder), "best": BEST_FILE, "trials": TRIALS_FILE, "plot": PLOT_FILE},
    }


def _ends(parameter: Any) -> list[Any]:
    return list(parameter.choices or (parameter.low, parameter.high))


def _row(trial: ScoredTrial, sweep: Sweep, paths: Sequence[str]) -> list[str]:
    mark = "*" if trial.number == sweep.best.number else ""
    name = f"{trial.number}{mark}{' unchanged' if trial.unchanged else ''}"
    values = [_short(trial.values.get(path)) for path in paths]
    return [name, *_figures(trial.figures, sweep.objectives), *values]


def _reported(name: str, runs: Sequence[FinalRun], sweep: Sweep) -> list[list[str]]:
    rows = [[name, str(run.seed), *_figures(run.figures, sweep.objectives)] for run in runs]
    return [*rows, [name, "mean", *_figures(mean_figures(runs), sweep.objectives)]] if len(runs) > 1 else rows


def _figures(figures: Sequence[float], objectives: Sequence[Objective]) -> list[str]:
    if not figures:
        return ["failed", *[""] * len(objectives)]
    return [*(f"{figure:.3f}" for figure in figures), f"{distance(figures, objectives):.2f}"]


def _final(run: FinalRun, objectives: Sequence[Objective]) -> dict[str, Any]:
    figures = _named(run.figures, objectives)
    return {"run": run.folder.name, "seed": run.seed, "figures": figures, "failure": run.failure}


def _named(figures: Sequence[float], objectives: Sequence[Objective]) -> dict[str, float]:
    return {one.name: figure for one, figure in zip(objectives, figures, strict=True)} if figures else {}


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
