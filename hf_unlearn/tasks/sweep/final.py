"""The runs that a sweep reports: the best recipe and the unchanged one, with fresh seeds, on rows not chosen by."""

import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from ...data.holdout_split import REPORTING
from ...evaluation import load_result
from ...results.files import atomic_write_text
from ...results.record import RECORD_FILE, load_record
from .choice import ScoredTrial, distance
from .job import JobFailed, run_job
from .objectives import UTILITY, UTILITY_TOLERANCE, Objective, find_objectives
from .plan import SweepPlan
from .space import with_values

BEST_FILE, RUNS = "best.yaml", "runs"


@dataclass(frozen=True)
class FinalRun:
    """A run that is reported.

    Attributes:
        folder: of the run.
        seed: of the run.
        figures: of the objectives on the reporting rows; () where it failed.
        failure: why it did.
    """

    folder: Path
    seed: int
    figures: tuple[float, ...] = ()
    failure: str | None = None


@dataclass(frozen=True)
class FinalRuns:
    """What the reported runs say.

    Attributes:
        unchanged: runs of the recipe as it was given.
        best: runs of the best one; () where that is the unchanged recipe.
        better: whether the best one is nearer to the ideal on the reporting rows, in the mean over the seeds; None
            where they are one, or runs failed.
        conclusion: of all this, in words.
        measured: rows of each set that the figures are of.
    """

    unchanged: Sequence[FinalRun]
    best: Sequence[FinalRun]
    better: bool | None
    conclusion: str
    measured: Mapping[str, int] = field(default_factory=dict)


def best_recipe(plan: SweepPlan, best: ScoredTrial) -> dict[str, Any]:
    """The recipe of the best run, as `hf-unlearn train --config` takes it."""
    return {"task": plan.task} | (dict(plan.recipe) if best.unchanged else with_values(plan.recipe, best.values))


def final_runs(
    plan: SweepPlan, best: ScoredTrial, objectives: Sequence[Objective], tell: Callable[[str], None], *, levels: bool
) -> FinalRuns:
    """Write best.yaml, and make the runs that are reported, as far as they are not there yet; processes share them.

    Args:
        plan: of the sweep.
        best: the run that was chosen.
        objectives: with the scales by which was chosen.
        tell: is given a line for people at each step.
        levels: whether the recipe leads rows to levels.
    """
    recipe = best_recipe(plan, best)
    atomic_write_text(plan.folder / BEST_FILE, _commented(plan, best, recipe))
    recipes = {"unchanged": {"task": plan.task} | dict(plan.recipe)}
    if not best.unchanged:
        recipes[f"best-{best.number:04d}"] = recipe
    # By seed, so that what is there when time is up can be compared.
    planned = [(name, seed) for seed in plan.fresh_seeds for name in recipes]
    failures: dict[Path, str] = {}
    # First those that nobody is at, then the others, which are there by then, or were left by a process that died.
    for wait in (0, -1):
        for name, seed in planned:
            folder = plan.folder / RUNS / f"{name}-seed{seed}"
            if folder not in failures:
                with contextlib.suppress(Timeout), FileLock(plan.folder / f"{folder.name}.lock", timeout=wait):
                    failures |= _make(plan, folder, recipes[name], seed, tell)
    runs: dict[str, list[FinalRun]] = {"unchanged": [], "best": []}
    for name, seed in planned:
        folder = plan.folder / RUNS / f"{name}-seed{seed}"
        figures = () if folder in failures else _figures(folder, objectives, levels=levels)
        runs["unchanged" if name == "unchanged" else "best"].append(
            FinalRun(folder, seed, figures, failures.get(folder))
        )
    better, conclusion = _conclusion(runs["unchanged"], runs["best"], objectives)
    return FinalRuns(
        runs["unchanged"], runs["best"], better, conclusion, _measured([*runs["unchanged"], *runs["best"]])
    )


def _make(
    plan: SweepPlan, folder: Path, recipe: Mapping[str, Any], seed: int, tell: Callable[[str], None]
) -> dict[Path, str]:
    """Make a run unless it is there; why it failed, by its folder."""
    if _is_whole(folder):
        return {}
    tell(f"Run for the report: {folder.name} ...")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = folder / "recipe.yaml"
    atomic_write_text(config, yaml.safe_dump(dict(recipe), sort_keys=False))
    words = ["--output_dir", str(folder), "--seed", str(seed), "--evaluated_half", REPORTING]
    try:
        run_job("report", folder, {"task": plan.task, "values": recipe, "config": str(config), "words": words})
    except (JobFailed, ValueError) as error:
        why = str(error).splitlines()[0]
        tell(f"{folder.name} failed: {why}; log: {folder / 'log.txt'}")
        return {folder: why}
    return {}


def _figures(folder: Path, objectives: Sequence[Objective], *, levels: bool) -> tuple[float, ...]:
    """The figures of a run on its rows, beside its own evaluations of the model before and of the oracle."""
    results = {path.stem.removeprefix("evaluation_"): load_result(path) for path in folder.glob("evaluation_*.json")}
    names = [one.name for one in objectives]
    own = find_objectives(results["before"], results.get("oracle"), levels=levels, asked=names)
    return tuple(one.figure(results["after"]) for one in own)


def _is_whole(folder: Path) -> bool:
    """Whether a run has ended: record and card are written last, after the evaluation."""
    whole = (folder / RECORD_FILE).is_file() and (folder / "README.md").is_file()
    return whole and "after" in load_record(folder).evaluations


def mean_figures(runs: Sequence[FinalRun]) -> tuple[float, ...]:
    """The mean of each figure over the runs that have any; () without one."""
    figures = [run.figures for run in runs if run.figures]
    return tuple(sum(column) / len(figures) for column in zip(*figures, strict=True))


def _conclusion(
    unchanged: Sequence[FinalRun], best: Sequence[FinalRun], objectives: Sequence[Objective]
) -> tuple[bool | None, str]:
    """Whether the chosen recipe is the better one on the reporting rows, and a sentence that says so."""
    if not best:
        return None, "No run came nearer to the ideal than the recipe as it is: keep it."
    if not all(run.figures for run in (*unchanged, *best)):
        return None, "Whether the chosen recipe is better is not known: a run for the report failed."
    distances = [[distance(run.figures, objectives) for run in runs] for runs in (unchanged, best)]
    before, after = (sum(each) / len(each) for each in distances)
    seeds = "1 seed" if len(best) == 1 else f"mean of {len(best)} seeds"
    said = f"distance to the ideal {after:.2f} in place of {before:.2f}, {seeds}"
    place = [one.name for one in objectives].index(UTILITY) if any(o.name == UTILITY for o in objectives) else None
    lost = None if place is None else mean_figures(best)[place]
    if lost is not None and lost > max(UTILITY_TOLERANCE, mean_figures(unchanged)[place or 0]):
        return (
            False,
            f"On rows not chosen by, the chosen recipe loses too much utility ({100 * lost:.1f} points): keep yours.",
        )
    if not after < before:
        return False, f"On rows not chosen by, the chosen recipe is not better than yours ({said}): keep yours."
    apart = max(distances[1]) < min(distances[0])
    if not apart:
        nearer = "the chosen recipe is nearer to the ideal than yours in the mean"
        return True, f"On rows not chosen by, {nearer}, but the seeds overlap, so that it may be chance: {said}."
    how = "in the one seed that was run" if len(best) == 1 else "in every seed"
    return True, f"On rows not chosen by, the chosen recipe is better than yours {how}: {said}."


def _measured(runs: Sequence[FinalRun]) -> dict[str, int]:
    for run in runs:
        if run.figures:
            return {
                name: rows["count"] for name, rows in load_result(run.folder / "evaluation_after.json").rows.items()
            }
    return {}


def _commented(plan: SweepPlan, best: ScoredTrial, recipe: Mapping[str, Any]) -> str:
    drawn = "the unchanged recipe" if best.unchanged else ", ".join(best.values)
    head = f"# Chosen by hf-unlearn sweep: run {best.number}, {drawn}. For hf-unlearn train --config.\n"
    return head + yaml.safe_dump(dict(recipe), sort_keys=False)
