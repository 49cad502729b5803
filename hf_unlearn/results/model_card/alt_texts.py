"""What is seen in a card's plots, with the figures of the record, for those who do not see them."""

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

from ..attack_report import CONTROLS, MODEL
from ..attack_words import SUBJECT_WORDS, excess_words, number_words
from ..record import ATTACK_PLOTS, RunRecord
from ..verdict import metric_of, short_figure, side_by_side
from .text import finite, number, plain

_LIKELIHOODS = ("forget_nll", "holdout_nll", "retain_nll", "forget_truth_ratio")
_FEWEST = 3  # settings that make a course
_NLLS = ("forget_nll", "holdout_nll", "retain_nll")


def with_alt_texts(plots: Mapping[str, str], record: RunRecord) -> list[tuple[str, str]]:
    """(text, file) of each plot.

    Args:
        plots: files by title; the name of a file says what it shows, others have their title alone.
        record: with the figures that the plots were drawn from.
    """
    texts = []
    for title, file in plots.items():
        describe = _TEXTS.get(PurePosixPath(file).stem)
        seen = describe(record) if describe is not None else ""
        texts.append((f"{plain(title)}{f': {plain(seen)}' if seen else ''}", file))
    return texts


def _losses(record: RunRecord) -> str:
    """From where to where the NLLs went."""
    entries = [entry for entry in record.log if "loss" in entry and "step" in entry]
    ways = []
    for name in (*_NLLS, "loss"):
        values = [value for value in (finite(entry.get(name)) for entry in entries) if value is not None]
        if len(values) > 1:
            label = name.replace("_nll", " NLL")
            ways.append(f"{label} from {number(values[0])} to {number(values[-1])}")
    steps = f" over {entries[-1]['step']:,} steps" if entries and isinstance(entries[-1]["step"], int) else ""
    return f"lines{steps}, {', '.join(ways)}" if ways else ""


def _plane(record: RunRecord) -> str:
    after = record.evaluations.get("after")
    pair = None if after is None else after.pair
    return "" if pair is None else f"a point for each model, {_figures(record, pair)}"


def _distributions(record: RunRecord) -> str:
    figures = _figures(record, _LIKELIHOODS)
    return f"curves of the share of rows by their NLL; means: {figures}" if figures else ""


def _excess(record: RunRecord) -> str:
    findings = [] if record.attack_report is None else record.attack_report.findings
    words = [f"{one.name} {excess_words(one.excess)}" for one in findings if one.excess is not None]
    return f"a bar for each attack, excess over the controls {', '.join(words)}" if words else ""


def _courses(record: RunRecord) -> str:
    findings = [] if record.attack_report is None else record.attack_report.findings
    words = []
    for one in (finding for finding in findings if len(finding.subjects[MODEL].settings) >= _FEWEST):
        known = {name: one.subjects[name].leak for name in (MODEL, *CONTROLS) if name in one.subjects}
        leaks = [f"{SUBJECT_WORDS.get(name, name)} {number_words(leak)}" for name, leak in known.items()]
        words.append(f"{one.name} ({', '.join(leaks)})")
    return f"leak over what each attack varies, at most {', '.join(words)}" if words else ""


def _figures(record: RunRecord, names: tuple[str, ...]) -> str:
    """Metrics of the models side by side, those that there are."""
    results = side_by_side(record.evaluations)
    metrics = [metric_of(name, results) for name in names] if results else []
    return "; ".join(short_figure(metric) for metric in metrics if metric.figures)


# By the name of a plot's file.
_TEXTS: dict[str, Callable[[RunRecord], str]] = {
    "losses": _losses,
    "plane": _plane,
    "distributions": _distributions,
    f"{ATTACK_PLOTS}_excess": _excess,
    f"{ATTACK_PLOTS}_courses": _courses,
}
