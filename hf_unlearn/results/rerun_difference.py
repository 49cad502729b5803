"""How near a run came that was done again: weights, figures, and what was different about it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ..metrics import MetricResult
from ..model.weight_files import WEIGHT_FILES, weight_file_hashes
from .lineage import file_hash
from .record import RunRecord, load_record
from .suppression_report import SUPPRESSION_FOLDER
from .terminal import terminal_table

_ROUNDING = 1e-9  # share of a figure that its way through a file may change
_HARDWARE = ("device", "processes", "strategy", "precision", "platform", "cores")


@dataclass(frozen=True)
class WeightDifference:
    """How far the weights of two runs are apart.

    Attributes:
        equal: bit for bit; with a suppressor, its files as well.
        largest: absolute difference of a weight; None where the runs do not have the same tensors.
        mean: of all weights' absolute differences; likewise.
        tensor: that the largest one is in; None where they are equal.
    """

    equal: bool
    largest: float | None = 0.0
    mean: float | None = 0.0
    tensor: str | None = None


@dataclass(frozen=True)
class FigureDifference:
    """A figure of both runs.

    Attributes:
        model: "before", "after", "oracle" or another evaluation.
        metric: its name.
        then: of the first run.
        now: of the second.
        low, high: 95% interval of the first; None where it has none.
        within: whether one of the two lies in the other's interval; None where neither has one.
    """

    model: str
    metric: str
    then: float
    now: float
    low: float | None
    high: float | None
    within: bool | None


@dataclass(frozen=True)
class RerunDifference:
    """A run beside the same run done again.

    Attributes:
        weights: how far apart they are.
        figures: of evaluations that both have.
        missing: evaluations that only the first has.
        differences: what else is not the same, by name: (then, now).
    """

    weights: WeightDifference
    figures: list[FigureDifference] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    differences: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def outside(self) -> list[FigureDifference]:
        """Figures that are outside of each other's intervals."""
        return [figure for figure in self.figures if figure.within is False]

    @property
    def same(self) -> bool:
        """Whether the weights are equal bit for bit, or every figure that has an interval is within."""
        # An adapter's files say nothing of the base that they belong to.
        if self.weights.equal and "weights in" not in self.differences:
            return True
        measured = any(figure.model == "after" and figure.within for figure in self.figures)
        return measured and not self.outside and not self.missing


def compare_rerun(first: str | Path, again: str | Path) -> RerunDifference:
    """Compare the folders of two runs.

    Raises:
        ValueError: one of them has no record.
    """
    then, now = load_record(first), load_record(again)
    shared = [name for name in then.evaluations if name in now.evaluations]
    return RerunDifference(
        weights=_weights(Path(first), Path(again), then, now),
        figures=[figure for name in shared for figure in _figures(name, then, now)],
        missing=[name for name in then.evaluations if name not in shared and name in ("before", "after", "oracle")],
        differences=_differences(then, now),
    )


def _weights(first: Path, again: Path, then: RunRecord, now: RunRecord) -> WeightDifference:
    hashes = [
        record.lineage.weights_out if record.lineage is not None else weight_file_hashes(folder)
        for folder, record in ((first, then), (again, now))
    ]
    # A run that ends with a suppression leaves the weights as they were: what it made lies beside them.
    suppressors = _suppressor(first) == _suppressor(again)
    if hashes[0] and hashes[0] == hashes[1]:
        return WeightDifference(suppressors, tensor=None if suppressors else SUPPRESSION_FOLDER)
    old, new = _tensors(first), _tensors(again)
    shapes = [
        {name: (tuple(shape), str(dtype)) for name, (_, shape, dtype) in tensors.items()} for tensors in (old, new)
    ]
    if not old or shapes[0] != shapes[1]:
        return WeightDifference(False, None, None)
    largest, total, count, where, equal = 0.0, 0.0, 0, None, suppressors
    for name in old:
        pair = [_read(tensors[name][0], name) for tensors in (old, new)]
        equal = equal and torch.equal(*pair)  # a NaN is equal to nothing
        apart = (pair[0].double() - pair[1].double()).abs()
        if apart.numel() and float(apart.max()) > largest:
            largest, where = float(apart.max()), name
        total, count = total + float(apart.sum()), count + apart.numel()
    # Files of other names or sizes may hold the same weights.
    return WeightDifference(equal, largest, total / max(1, count), where)


def _suppressor(folder: Path) -> dict[str, str | None]:
    """Hashes of the files of a suppressor; {} where there is none."""
    place = folder / SUPPRESSION_FOLDER
    return {file.relative_to(place).as_posix(): file_hash(file) for file in place.rglob("*") if file.is_file()}


def _tensors(folder: Path) -> dict[str, tuple[Path, Any, Any]]:
    """Name -> file, shape and type of every tensor in a folder."""
    tensors = {}
    for file in sorted(folder.glob(WEIGHT_FILES)):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118
                part = weights.get_slice(name)
                tensors[name] = (file, part.get_shape(), part.get_dtype())
    return tensors


def _read(file: Path, name: str) -> Tensor:
    with safe_open(file, framework="pt") as weights:
        tensor: Tensor = weights.get_tensor(name)
    return tensor if tensor.dtype != torch.bool else tensor.int()


def _figures(name: str, then: RunRecord, now: RunRecord) -> list[FigureDifference]:
    old, new = then.evaluations[name].metrics, now.evaluations[name].metrics
    return [
        FigureDifference(
            *(name, metric, old[metric].value, new[metric].value, old[metric].low, old[metric].high),
            within=_within(old[metric], new[metric]),
        )
        for metric in old
        if metric in new
    ]


def _within(old: MetricResult, new: MetricResult) -> bool | None:
    """Whether a figure lies in the other's interval; an interval without width may be that of a few equal rows."""
    if old.value == new.value or (math.isnan(old.value) and math.isnan(new.value)):
        return True
    inside = [
        low - _ROUNDING * abs(low) <= value <= high + _ROUNDING * abs(high)
        for value, low, high in ((new.value, old.low, old.high), (old.value, new.low, new.high))
        if low is not None and high is not None
    ]
    return any(inside) if inside else None


def _differences(then: RunRecord, now: RunRecord) -> dict[str, tuple[Any, Any]]:
    pairs: dict[str, tuple[Any, Any]] = {"seed": (then.seed, now.seed), "steps": (then.steps, now.steps)}
    pairs |= _by_key("version of ", then.versions, now.versions)
    hardware = [{name: record.hardware.get(name) for name in _HARDWARE} for record in (then, now)]
    pairs |= _by_key("hardware: ", *hardware)
    pairs |= _by_key("argument ", then.arguments, now.arguments)
    rows = [{role: rows.sha256 for role, rows in record.sets.items()} for record in (then, now)]
    pairs |= _by_key("rows: ", *rows)
    if then.lineage is not None and now.lineage is not None:
        for name in ("code", "recipe", "weights_in"):
            pairs[name.replace("_", " ")] = (getattr(then.lineage, name), getattr(now.lineage, name))
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _by_key(prefix: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {f"{prefix}{name}": (then.get(name), now.get(name)) for name in sorted({*then, *now})}


def difference_words(comparison: RerunDifference) -> str:
    """The comparison as lines for people."""
    weights, lines, changed = comparison.weights, [], comparison.differences.items()
    if weights.equal:
        lines.append("Weights: equal bit for bit.")
    elif weights.tensor == SUPPRESSION_FOLDER:
        lines.append("Weights: equal bit for bit; the suppressor's files are not.")
    elif weights.largest is None:
        lines.append("Weights: not of the same tensors.")
    else:
        lines.append(
            f"Weights: not equal. Largest difference of a weight {weights.largest:.3g} ({weights.tensor}), "
            f"mean {weights.mean:.3g}."
        )
    words = {True: "within its interval", False: "OUTSIDE", None: "no interval"}
    rows = []
    for figure in comparison.figures:
        interval = "-" if figure.low is None else f"[{figure.low:.4g}, {figure.high:.4g}]"
        came = "equal" if figure.then == figure.now else words[figure.within]
        rows.append([figure.model, figure.metric, f"{figure.then:.4g}", interval, f"{figure.now:.4g}", came])
    if rows:
        lines += ["", terminal_table(["model", "figure", "then", "95% interval", "now", ""], rows), ""]
    lines += [f"Not measured again: {name}." for name in comparison.missing]
    lines += [f"Differs: {name}: {_short(then)} then, {_short(now)} now." for name, (then, now) in changed]
    if not comparison.differences:
        lines.append("Versions, code, hardware, arguments and rows are the same.")
    verdict = "the run came out the same" if comparison.same else "the run did not come out the same"
    if comparison.same and not comparison.weights.equal:
        verdict += " within its intervals"
    return "\n".join([*lines, f"{verdict[0].upper()}{verdict[1:]}."])


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {str(sha)[:12]}" for name, sha in value.items()) or "none"
    text = "none" if value is None else str(value)
    return text[:12] if len(text) == 64 else text
