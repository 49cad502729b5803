"""Measures rows of a published leaderboard again from their weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import snapshot_download

from ...errors import input_error
from ...evaluation import EvaluationResult, load_result
from ...metrics import MetricResult
from ...model.loading import loading
from ...model.weight_files import weight_file_hashes
from ...results.leaderboard import BoardRun, read_board_runs
from ...results.terminal import terminal_table
from ...training.hooks.run_description import device_name
from ..command_file import read_command
from ..evaluate_saved import measure_saved

# On the same versions and the same machine nothing but the way through a file may change a figure.
_SAME = 1e-6
# But for figures of sorted losses, and of draws that their order decides: rounding swaps neighbours.
_OF_ORDER, _SWAPPED = ("token_ks", "level_ks", "token_ks_chance", "level_ks_chance", "loss_features_auc"), 0.002
# Metrics of what an evaluation cost, which are other ones each time.
_COSTS = ("seconds", "forwards")


@dataclass(frozen=True)
class OtherFigure:
    """A figure that is not as published.

    Attributes:
        metric: its name.
        published: what the board has.
        measured: what came out now; None where it was not measured.
        within: whether it lies in the published interval; False without one.
    """

    metric: str
    published: float
    measured: float | None
    within: bool


@dataclass(frozen=True)
class VerifiedRun:
    """What became of a row.

    Attributes:
        name: of the run.
        figures: how many were compared.
        others: those that are not equal.
        changed: what else differs, in words: weights, rows, versions.
        wrong: why it does not hold; () where it does.
    """

    name: str
    figures: int = 0
    others: list[OtherFigure] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether weights and figures are those of the board."""
        return not self.wrong


def verify_board(
    board: str | Path,
    rows: Sequence[str] = (),
    *,
    runs: str | Path | None = None,
    weights: str | None = None,
    revision: str | None = None,
    more: Sequence[str] = (),
) -> list[VerifiedRun]:
    """Measure the runs of a board again, and compare.

    A row holds where its files have the published hashes and every figure is equal to 1e-6 (of sorted losses to .002),
    or, where versions of libraries or the device differ, lies in the published 95% interval.

    Args:
        board: folder of it, or its leaderboard.json.
        rows: names of runs or methods; () for all.
        runs: folder that contains those of the runs; None for the board's own.
        weights: folder or Hub id with the weights of the one run that is chosen; None for its own folder.
        revision: of the Hub's repository.
        more: flags of the evaluation, such as --use_cpu.

    Raises:
        ValueError: there is no board, no such row in it, several rows for one set of weights, or no such repository.
    """
    published = read_board_runs(board)
    place = Path(board)
    beside = (place.parent if place.name.endswith(".json") else place) if runs is None else Path(runs)
    chosen = [run for run in published if not rows or run.name in rows or run.method in rows]
    unknown = [row for row in rows if not any(row in (run.name, run.method) for run in published)]
    if unknown or not chosen:
        raise input_error(
            expected=f"rows of the board: {', '.join(run.name for run in published) or 'none'}",
            got=", ".join(unknown) or "none",
            why="there is nothing to measure again",
            fix="pass the name of a run or of a method",
        )
    if weights is not None and len(chosen) > 1:
        raise input_error(
            expected="--row with the one run that --weights are of",
            got=f"{len(chosen)} runs",
            why="each run has weights of its own",
            fix=f"--row {chosen[0].name}",
        )
    files = None if weights is None else _files(weights, revision)
    return [_verified(run, beside / run.name, files, more) for run in chosen]


def _files(weights: str, revision: str | None) -> Path:
    """The folder of weights, fetched from the Hub where there is none of that name."""
    if Path(weights).is_dir():
        return Path(weights)
    with loading(weights):
        return Path(snapshot_download(weights, revision=revision))


def _verified(run: BoardRun, folder: Path, files: Path | None, more: Sequence[str]) -> VerifiedRun:
    if not folder.is_dir():
        return VerifiedRun(run.name, wrong=["its folder is not there: --runs names where the folders of runs lie"])
    hashes = weight_file_hashes(files or folder)
    own = {name: sha for name, sha in run.weights_out.items() if "/" not in name}
    if not own or hashes != own:
        changed = sorted(name for name in {*hashes, *own} if hashes.get(name) != own.get(name))
        said = f"other weights than published: {', '.join(changed)}" if own else "no hash of weights was published"
        return VerifiedRun(run.name, wrong=[said])
    result, device = _measured(folder, files or folder, more)
    return compared(run, result, device)


def _measured(folder: Path, files: Path, more: Sequence[str]) -> tuple[EvaluationResult, str]:
    """What the suite of the run in a folder says of the weights in another, and the device it was measured on."""
    from .. import make_task

    task_name, parsed = read_command(folder, *more)
    task = make_task(task_name, parsed)
    kept = {name: folder / f"evaluation_{name}.json" for name in ("before", "oracle")}
    others = {name: load_result(file) for name, file in kept.items() if file.is_file()}
    try:
        result = measure_saved(task, parsed, "after", str(files), others)
    finally:
        if task.cache is not None:
            task.cache.close()
    return result, device_name(parsed.args.device)


def compared(run: BoardRun, result: EvaluationResult, device: str) -> VerifiedRun:
    """A published run beside what was measured now on a device."""
    published = {name: figure for name, figure in run.figures.items() if name not in _COSTS}
    others = [
        OtherFigure(name, figure.value, None if now is None else now.value, now is not None and _inside(figure, now))
        for name, figure in published.items()
        if (now := result.metrics.get(name)) is None or not _equal(name, figure.value, now.value)
    ]
    changed = _changes("version of ", run.versions, result.versions)
    changed += _changes("", {"device": str(run.hardware.get("device", device))}, {"device": device})
    wrong = []
    if result.rows != run.rows:
        names = sorted(name for name in {*result.rows, *run.rows} if result.rows.get(name) != run.rows.get(name))
        wrong.append(f"other rows than published: {', '.join(names)}")
    failed = [other for other in others if not (changed and other.within)]
    if failed:
        said = ", ".join(f"{f.metric} {f.published:.6g}, now {_written(f.measured)}" for f in failed)
        wrong.append(f"{len(failed)} of {len(published)} figures are others: {said}")
    if not published:
        wrong.append("no figure was published")
    return VerifiedRun(run.name, len(published), others, changed, wrong)


def _written(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.6g}"


def _changes(prefix: str, then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [
        f"{prefix}{name}: {then[name]} then, {now[name]} now"
        for name in then
        if now.get(name, then[name]) != then[name]
    ]


def _equal(metric: str, one: float, other: float) -> bool:
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return math.isclose(one, other, rel_tol=_SAME, abs_tol=_SWAPPED if metric in _OF_ORDER else _SAME)


def _inside(published: MetricResult, now: MetricResult) -> bool:
    return published.low is not None and published.high is not None and published.low <= now.value <= published.high


def verification_words(verified: Sequence[VerifiedRun]) -> str:
    """What came of it, for a terminal."""
    rows = [
        [
            run.name,
            "yes" if run.holds else "no",
            f"{run.figures - len(run.others)} of {run.figures}",
            "; ".join(run.wrong) or "-",
        ]
        for run in verified
    ]
    notes = list(dict.fromkeys(change for run in verified for change in run.changed))
    return terminal_table(["run", "holds", "figures equal", "why not"], rows, notes=notes)
