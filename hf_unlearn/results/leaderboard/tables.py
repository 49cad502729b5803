"""The tables that a leaderboard has beside those of a comparison: published rows, and how runs can be checked."""

from ...metrics import MetricDescription
from ..comparison.tables import Table
from ..evaluation_result import EvaluationResult
from ..table import description_of
from .board import Board, BoardRun

_SHOWN = 12  # characters of a hash
_APART = (
    "Measured by other code on models of its own, as its logs have it: not ranked, and not to be read as one table."
)


def tables_beside(board: Board) -> list[Table]:
    """Published rows, where there are any, and the provenance of the runs."""
    return [*([_published(board)] if board.published else []), _provenance(board)]


def _published(board: Board) -> Table:
    """Rows of others, a column each, with what they lack."""
    metrics = dict.fromkeys(name for row in board.published for name in row.figures)
    described = {name: _description(name) for name in metrics}
    rows = [
        [described[name].title, *(_cell(described[name], row.figures.get(name)) for row in board.published)]
        for name in metrics
    ]
    rows.append(["not in the log", *(", ".join(row.missing) or "-" for row in board.published)])
    rows.append(["log (SHA-256)", *(row.digest[:_SHOWN] for row in board.published)])
    notes = [_APART, *dict.fromkeys(sentence for row in board.published for sentence in row.differences)]
    headers = ["figure", *(f"{row.name} ({row.source})" for row in board.published)]
    return Table("Published by others", headers, rows, notes)


def _provenance(board: Board) -> Table:
    rows = [
        [run.name, run.method, str(run.seed), _attacks(run), *_hashes(run), _code(run.code), _hardware(run)]
        for run in board.runs
    ]
    headers = ["run", "method", "seed", "relearning brings back", "recipe", "weights out", "code", "hardware"]
    return Table("The runs, and what they can be checked by", headers, rows)


def _description(metric: str) -> MetricDescription:
    none: list[EvaluationResult] = []
    return description_of(metric, none)


def _cell(described: MetricDescription, value: float | None) -> str:
    return "-" if value is None else described.write(value)


def _attacks(run: BoardRun) -> str:
    """The largest excess of the relearning attacks."""
    found = [attack.excess for attack in run.attacks if attack.relearning and attack.excess is not None]
    if not found:
        return "not tested"
    worst = max(found, key=lambda excess: excess.value)
    return f"{worst.value:.3f} [{worst.low:.3f}, {worst.high:.3f}]"


def _hashes(run: BoardRun) -> list[str]:
    weights = ", ".join(sha[:_SHOWN] for sha in run.weights_out.values())
    return [run.recipe[:_SHOWN] or "-", weights or "-"]


def _code(code: str) -> str:
    version, comma, commit = code.partition(", commit ")
    return f"{version}{comma}{commit[:_SHOWN]}{'+changes' if commit.endswith('+changes') else ''}" or "-"


def _hardware(run: BoardRun) -> str:
    known = [run.hardware.get(name) for name in ("device", "processes", "precision")]
    return ", ".join(str(value) for value in known if value is not None) or "-"
