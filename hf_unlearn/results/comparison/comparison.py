"""`compare`: runs grouped by method and setting, with figures over seeds, tests between methods, front and rank."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ...errors import input_error
from ...metrics import MetricDescription
from ..evaluation_result import EvaluationResult
from ..report import Run
from ..table import description_of
from ..verdict import side_by_side, verdict
from . import grouping
from .notes import setting_notes, setting_rules
from .ranking import Standing, compared_shares, standings
from .read import read_runs, unfinished_in
from .row_tests import RowTest, Scored, row_tests
from .shares import SHARES, RunShares, run_shares
from .spread import Spread, spread

_MODELS = ("before", "oracle")


@dataclass(frozen=True)
class ComparedRun:
    """One run of a method.

    Attributes:
        name: of its folder, nothing of the path.
        seed: of the run.
        level: of its verdict.
        shares: what is left, lost, traced and comes back.
        results: by model: before, after, oracle.
    """

    name: str
    seed: int
    level: str
    shares: RunShares
    results: dict[str, EvaluationResult]


@dataclass(frozen=True)
class ComparedMethod:
    """A method: the runs that differ in nothing but the seed.

    Attributes:
        label: what a table calls it.
        runs: of it, one a seed.
        figures: of the model after unlearning, by metric, over the runs that have it.
        shares: by name, those that every run has.
        standing: rank and front.
    """

    label: str
    runs: list[ComparedRun]
    figures: dict[str, Spread]
    shares: dict[str, Spread]
    standing: Standing


@dataclass(frozen=True)
class ComparedSetting:
    """The methods that may stand in one table: same task, suite, model and rows.

    Attributes:
        title: the setting in a line.
        methods: those that are ranked first, by rank.
        models: figures of "before" and "oracle" over all runs of the setting.
        metrics: what is shown, in order.
        pair: metrics of what was forgotten and of what was kept; None for a suite without such a pair.
        membership_metric: AUC that `traced` is about; "" without one.
        axes: names of the shares that rank and front rest on.
        descriptions: of all metrics.
        tests: between methods, row by row.
        notes: what a reader must know.
        rules: what the shares are, and how methods are ranked.
    """

    title: str
    methods: list[ComparedMethod]
    models: dict[str, dict[str, Spread]]
    metrics: list[str]
    pair: tuple[str, str] | None
    membership_metric: str
    axes: list[str]
    descriptions: dict[str, MetricDescription]
    tests: list[RowTest]
    notes: list[str]
    rules: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        settings: a table each; runs of unlike rows, models or suites are neither averaged nor ranked together.
        notes: what a reader must know of all of it.
    """

    settings: list[ComparedSetting]
    notes: list[str] = field(default_factory=list)


def compare(folders: Iterable[str | os.PathLike[str]]) -> Comparison:
    """Compare runs.

    Args:
        folders: of runs, or folders that contain such.

    Returns:
        a table for each setting. Runs that differ in nothing but the seed are one method.

    Raises:
        ValueError: no folder, one without a run, or no run whose model was evaluated after unlearning.
    """
    named = list(folders)
    found = read_runs(named)
    notes = [f"{name} has not ended, and is left out." for name in unfinished_in(named)]
    runs: list[tuple[str, Run]] = []
    for folder, run in found:
        if "after" in run.evaluations:
            runs.append((folder.absolute().name, run))
        else:
            notes.append(f"{folder.absolute().name} has no evaluation of the model after unlearning, and is left out.")
    if not runs:
        raise input_error(
            expected="runs whose model was evaluated after unlearning",
            got=f"{len(found)} without",
            why="there are no figures to compare",
            fix="hf-unlearn evaluate RUN, for each of them",
        )
    groups = _by_key([(name, run, grouping.setting_facts(run.record, run.evaluations["after"])) for name, run in runs])
    settings = [_setting(group) for _, group in groups]
    if len(groups) > 1:
        apart = ", ".join(grouping.differing([facts for facts, _ in groups]))
        notes.insert(0, f"{len(groups)} tables, neither averaged nor ranked together: the runs differ in {apart}.")
    return Comparison(settings, [*notes, *(note for _, run in runs for note in run.notes)])


def _by_key(
    runs: Sequence[tuple[str, Run, grouping.Facts]],
) -> list[tuple[grouping.Facts, list[tuple[str, Run]]]]:
    """Runs with the same facts together, in the order of their first."""
    groups: dict[tuple[tuple[str, str], ...], tuple[grouping.Facts, list[tuple[str, Run]]]] = {}
    for name, run, facts in runs:
        groups.setdefault(grouping.key_of(facts), (facts, []))[1].append((name, run))
    return list(groups.values())


def _setting(runs: Sequence[tuple[str, Run]]) -> ComparedSetting:
    groups = _by_key([(name, run, grouping.method_facts(run.record)) for name, run in runs])
    labels = grouping.labels([(facts, [run.record for _, run in members]) for facts, members in groups])
    members, notes = [], []
    for label, (_, group) in zip(labels, groups, strict=True):
        once, said = _once(label, [_compared(name, run) for name, run in group])
        members.append(once)
        notes += said
    shares = [_spread_of_shares(group) for group in members]
    broken = [_broken(group) for group in members]
    methods = [
        ComparedMethod(label, group, _figures([run.results["after"] for run in group]), of_method, standing)
        for label, group, of_method, standing in zip(labels, members, shares, standings(shares, broken), strict=True)
    ]
    methods.sort(key=lambda method: (method.standing.rank is None, method.standing.rank or 0))
    every = [run for group in members for run in group]
    results = [result for run in every for result in run.results.values()]
    first = every[0].results["after"]
    attacks = {run.shares.membership_metric for run in every} - {""}
    setting = ComparedSetting(
        title=_title(runs[0][1], first),
        methods=methods,
        models={model: _figures([run.results[model] for run in every if model in run.results]) for model in _MODELS},
        metrics=_shown(results, attacks),
        pair=first.pair,
        membership_metric=next(iter(attacks)) if len(attacks) == 1 else "",
        axes=compared_shares(shares),
        descriptions={name: description_of(name, results) for result in results for name in result.metrics},
        tests=row_tests({method.label: _scored(method.runs) for method in methods}),
        notes=notes,
    )
    return replace(setting, notes=[*notes, *setting_notes(setting)], rules=setting_rules(setting))


def _compared(name: str, run: Run) -> ComparedRun:
    results = side_by_side(run.evaluations)
    shares, level = run_shares(run.record), verdict(run.record).level
    return ComparedRun(name, run.record.seed, level, shares, {model: results[model] for model in results})


def _once(label: str, runs: Sequence[ComparedRun]) -> tuple[list[ComparedRun], list[str]]:
    """The runs of a method, those that are copies of each other once, and what is to be said of equal seeds."""
    kept: dict[tuple[int, str], ComparedRun] = {}
    notes = []
    for run in runs:
        figures = (run.seed, repr(run.results["after"].to_dict()["metrics"]))
        if figures in kept:
            notes.append(f"{run.name} has the seed and the figures of {kept[figures].name}, and counts once.")
        else:
            kept[figures] = run
    for seed, count in Counter(run.seed for run in kept.values()).items():
        if count > 1:
            notes.append(
                f"{label}: {count} runs with seed {seed} count as {count} seeds, which they are only if something "
                "else was drawn anew."
            )
    return list(kept.values()), notes


def _spread_of_shares(runs: Sequence[ComparedRun]) -> dict[str, Spread]:
    values = {name: [run.shares.by_name[name] for run in runs] for name in SHARES}
    return {
        name: spread([value for value in of_runs if value is not None])
        for name, of_runs in values.items()
        if None not in of_runs
    }


def _broken(runs: Sequence[ComparedRun]) -> str:
    broken = sum(run.level == "broken" for run in runs)
    if not broken:
        return ""
    return "the model is broken" if len(runs) == 1 else f"{broken} of {len(runs)} models are broken"


def _figures(results: Sequence[EvaluationResult]) -> dict[str, Spread]:
    names = dict.fromkeys(name for result in results for name in result.metrics)
    return {name: spread([r.metrics[name].value for r in results if name in r.metrics]) for name in names}


def _shown(results: Sequence[EvaluationResult], attacks: Iterable[str]) -> list[str]:
    """The headline of the suite, its pair before it and what ranks rest on behind, of what any of the results has."""
    first = results[0]
    known = dict.fromkeys(name for result in results for name in result.metrics)
    wanted = dict.fromkeys([*(first.pair or ()), *(first.headline or known), *sorted(attacks)])
    return [name for name in wanted if name in known]


def _scored(runs: Sequence[ComparedRun]) -> Scored:
    oracles = [run.results["oracle"] for run in runs if "oracle" in run.results]
    return Scored([run.results["after"] for run in runs], oracles)


def _title(run: Run, after: EvaluationResult) -> str:
    model = run.record.model
    named = model.id if model.origin in ("hub", "lab") and model.id else model.architecture or "a local model"
    rows = run.record.sets.get("forget")
    count = f", {rows.rows:,} forget rows" if rows is not None and rows.rows else ""
    return f"{after.suite}: {named}{count}"
