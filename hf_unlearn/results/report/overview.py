"""Several runs at a glance: grouped by their methods, mean and range over the runs of each, and the planes of all."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ..table import description_of
from ..verdict import side_by_side
from .planes import method_words, plane, plane_caption
from .read import Run
from .sections import Drawing, Section, drawing_of


@dataclass(frozen=True)
class Measure:
    """A figure of the overview: value or mean, its interval or range, and what is measured."""

    value: str
    spread: str
    label: str


@dataclass(frozen=True)
class MethodGroup:
    """The runs of one method and suite.

    Attributes:
        number: of the group on the page.
        method: its name.
        suite: of the runs.
        sections: of the runs.
        forgetting: mean and range over the runs; None where none has it.
        utility: likewise.
        answers: by question, how many runs have which word: "2 of 3 yes".
    """

    number: int
    method: str
    suite: str
    sections: list[Section]
    forgetting: Measure | None
    utility: Measure | None
    answers: list[tuple[str, str]]

    @property
    def anchor(self) -> str:
        """Of the group."""
        return f"method-{self.number}"


@dataclass(frozen=True)
class Planes:
    """The planes of several runs by suite, side by side under one caption."""

    drawings: dict[str, Drawing]
    caption: str


def method_groups(sections: Sequence[Section]) -> list[MethodGroup]:
    """The sections by method and suite, in the order in which the first of each was given."""
    grouped: dict[tuple[str | None, ...], list[Section]] = {}
    for section in sections:
        grouped.setdefault(_alike(section.run), []).append(section)
    return [
        MethodGroup(i, group[0].method, group[0].suite, group, _mean(group, 0), _mean(group, 1), _answers(group))
        for i, group in enumerate(grouped.values(), 1)
    ]


def by_method(runs: Sequence[Run]) -> list[Run]:
    """The runs so that those of one group follow each other, else in the order in which they were given."""
    first: dict[tuple[str | None, ...], int] = {}
    for i, run in enumerate(runs):
        first.setdefault(_alike(run), i)
    return sorted(runs, key=lambda run: first[_alike(run)])


def measured(section: Section, which: int) -> Measure | None:
    """The model after unlearning in the overview: how much is left of the forgotten (0), or how much was kept (1)."""
    evaluated = section.evaluated
    if evaluated is None or evaluated.pair is None or "after" not in section.models:
        return None
    metric = evaluated.pair[which]
    figure = evaluated.metrics.get(metric)
    if figure is None:
        return None
    described = description_of(metric, [evaluated])
    spread = ""
    if figure.low is not None and figure.high is not None:
        spread = ", ".join(described.write(end).removesuffix("%") for end in (figure.low, figure.high))
    return Measure(described.write(figure.value), spread, described.title)


def planes_of(sections: Sequence[Section]) -> Planes | None:
    """A plane for each suite, its points numbered like the runs; None where no suite has its pair of metrics."""
    drawings: dict[str, Drawing] = {}
    shown: dict[str, Run] = {}
    captions = []
    for suite in dict.fromkeys(section.suite for section in sections):
        runs = {str(section.number): section.run for section in sections if section.suite == suite}
        plot = plane(runs)
        if plot is not None:
            drawings[suite] = drawing_of(plot.panels[0], f"plane-{len(drawings) + 1}")
            captions.append(plot.caption)
            shown |= runs
    if not drawings:
        return None
    # Said once: the metrics of a plane stand at its axes.
    with_oracle = any("oracle" in run.evaluations for run in shown.values())
    return Planes(drawings, captions[0] if len(captions) == 1 else plane_caption(shown, with_oracle))


def _alike(run: Run) -> tuple[str | None, ...]:
    """What the runs of a group have in common, without which a mean over them says nothing."""
    suite = next((result.suite for result in side_by_side(run.evaluations).values()), "")
    return method_words(run.record), suite, run.record.model.id


def _mean(sections: Sequence[Section], which: int) -> Measure | None:
    """The mean over runs, and their smallest and largest value."""
    figures, described = [], None
    for section in sections:
        evaluated = section.evaluated
        if measured(section, which) is not None and evaluated is not None and evaluated.pair is not None:
            metric = evaluated.pair[which]
            described = description_of(metric, [evaluated])
            figures.append(evaluated.metrics[metric].value)
    if described is None or not all(map(math.isfinite, figures)):
        return None
    low, high = (described.write(end).removesuffix("%") for end in (min(figures), max(figures)))
    return Measure(described.write(fmean(figures)), f"{low} to {high}", described.title)


def _answers(sections: Sequence[Section]) -> list[tuple[str, str]]:
    words: dict[str, Counter[str]] = {}
    for section in sections:
        for answer in section.verdict.answers:
            words.setdefault(answer.question, Counter())[answer.word] += 1
    return [
        (question, ", ".join(f"{word} {count} of {len(sections)}" for word, count in counts.items()))
        for question, counts in words.items()
    ]
