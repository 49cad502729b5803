"""Paired tests between methods, row by row: whether one does better on rows like these than another."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...metrics import mean
from ..evaluation_result import EvaluationResult

TEST = (
    "Wilcoxon signed-rank test, two-sided, over rows that are paired; a row's score is its mean over the seeds of a "
    "method. p is corrected by Holm for all tests of the table. The interval is of the mean difference, by 1,000 "
    "bootstrap resamples of the rows. Both speak of further rows like these, for the models as they were trained; "
    "whether it holds for further seeds, the spread over seeds says"
)
_FORGET, _RETAIN = "forget_nll", "retain_nll"
_FEW = 6  # rows: with fewer, no such test can give p below 0.05


@dataclass(frozen=True)
class RowTest:
    """Two methods on the same rows.

    Attributes:
        first, second: the methods.
        score: what a row's score is, in words; less is better.
        n: rows.
        difference: mean over rows of the first's score minus the second's: below 0, the first is better.
        low, high: 95% interval of it.
        p: of the Wilcoxon signed-rank test.
        p_holm: of the same, corrected for all tests of the setting.
    """

    first: str
    second: str
    score: str
    n: int
    difference: float
    low: float
    high: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class Scored:
    """The row scores of a method's runs: the results of the model after unlearning, and those of the oracle."""

    after: Sequence[EvaluationResult]
    oracle: Sequence[EvaluationResult]


def row_tests(methods: Mapping[str, Scored]) -> list[RowTest]:
    """All pairs of methods, on forget rows and on retain rows, where all runs of both have scores of the same rows.

    On forget rows the score is how far the NLL per token is from the oracle's, whichever side it lies on, and is left
    out where there is no oracle: neither more nor less of the NLL alone is better. On retain rows it is the NLL.
    """
    tests: list[tuple[str, str, str, NDArray[np.float64]]] = []
    for (first, mine), (second, others) in itertools.combinations(methods.items(), 2):
        for metric, words in ((_FORGET, "forget rows: distance of the NLL from the oracle's"),
                              (_RETAIN, "retain rows: NLL")):  # fmt: skip
            pair = _scores(mine, metric), _scores(others, metric)
            compared = [*mine.after, *others.after]
            compared += [*mine.oracle, *others.oracle] if metric == _FORGET else []
            if pair[0] is None or pair[1] is None or not _same_rows(compared, metric):
                continue
            apart = pair[0] - pair[1]
            if len(apart) >= _FEW and np.isfinite(apart).all():
                tests.append((first, second, words, apart))
    p_values = [_p_of(apart) for *_, apart in tests]
    found = []
    for (first, second, words, apart), p, p_holm in zip(tests, p_values, holm(p_values), strict=True):
        figure = mean(apart)
        ends = (_end(figure.low), _end(figure.high))
        found.append(RowTest(first, second, words, figure.n, figure.value, *ends, p, p_holm))
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected by Holm 1979: the i-th smallest of m times m - i + 1, never below the one before, at most 1.

    Args:
        p_values: in any order, in which the corrected ones come back.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = largest
    return corrected


def _p_of(differences: NDArray[np.float64]) -> float:
    from scipy.stats import wilcoxon  # scipy.stats takes a quarter of a second, which other commands have no use for

    if not differences.any():
        return 1.0  # no row tells them apart, of which the test would make a NaN
    return float(wilcoxon(differences).pvalue)


def _scores(method: Scored, metric: str) -> NDArray[np.float64] | None:
    """[rows] means over the runs of a method; None where a run has none, or another number of rows."""
    of_runs = [_of_run(after, metric) for after in method.after]
    if metric == _FORGET:
        if len(method.oracle) != len(method.after):
            return None
        levels = [_of_run(oracle, metric) for oracle in method.oracle]
        pairs = zip(of_runs, levels, strict=True)
        of_runs = [abs(nll - level) if len(nll) == len(level) else nll[:0] for nll, level in pairs]
    lengths = {len(scores) for scores in of_runs}
    return None if len(lengths) != 1 or lengths == {0} else np.mean(of_runs, axis=0)


def _of_run(result: EvaluationResult, metric: str) -> NDArray[np.float64]:
    return np.array(result.row_scores.get(metric, ()), dtype=np.float64)


def _same_rows(results: Sequence[EvaluationResult], metric: str) -> bool:
    name = metric.removesuffix("_nll")
    hashes = {result.rows.get(name, {}).get("sha256") for result in results}
    return len(hashes) == 1 and None not in hashes


def _end(end: float | None) -> float:
    return math.nan if end is None else end
