"""What a leaderboard is made of: runs compared, what each of them can be repeated and checked by, published rows."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import input_error
from ...metrics import MetricResult
from ..attack_report import Excess
from ..attack_words import is_relearning
from ..comparison import Comparison, compare
from ..files import read_json
from ..lineage import code_version, file_hash, now
from ..published import PublishedRow
from ..record import RECORD_FILE, RunRecord, load_record
from ..schema import SchemaError, build, check_schema, wrong_file

BOARD_FILE = "leaderboard.json"
FORMAT = 1  # raised when the file's keys change
_MODELS = ("before", "oracle")


@dataclass(frozen=True)
class AttackFigure:
    """What one attack got out of a run.

    Attributes:
        attack: its name.
        relearning: whether it trains the model.
        excess: how much more than out of the model that never saw the rows; None where that was not measured.
    """

    attack: str
    relearning: bool
    excess: Excess | None = None


@dataclass(frozen=True)
class BoardRun:
    """One run of a board: its figures, and the hashes by which they can be repeated and checked.

    Attributes:
        name: of its folder.
        method: that it is a run of, as the table calls it.
        seed: of the run.
        recipe: SHA-256 of its resolved arguments.
        record: SHA-256 of its results.json.
        weights_in: SHA-256 of the files of the model before, by name.
        weights_out: of the files that the run saved.
        code: version of this package, with the commit.
        versions: of the libraries.
        hardware: that it ran on.
        rows: by measured set, how many rows, and the SHA-256 of their token ids.
        figures: of the model after unlearning by metric, with n and interval.
        attacks: that were tried on it.
    """

    name: str
    method: str
    seed: int
    recipe: str = ""
    record: str = ""
    weights_in: dict[str, str] = field(default_factory=dict)
    weights_out: dict[str, str] = field(default_factory=dict)
    code: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    figures: dict[str, MetricResult] = field(default_factory=dict)
    attacks: list[AttackFigure] = field(default_factory=list)


@dataclass(frozen=True)
class Board:
    """A leaderboard.

    Attributes:
        suite: that measures.
        command: that makes the board again; places and tokens left out.
        date: when it was made, in UTC.
        code: version of this package that made it.
        comparison: of its runs: spread over seeds, tests, front, rank.
        runs: in the order of the comparison.
        models: figures of "before" and "oracle" by metric, with n and interval, as the first run has them; the
            comparison has their spread over all runs.
        published: rows of others, which are shown beside and never ranked.
    """

    suite: str
    command: str
    date: str
    code: str
    comparison: Comparison
    runs: list[BoardRun]
    models: dict[str, dict[str, MetricResult]] = field(default_factory=dict)
    published: list[PublishedRow] = field(default_factory=list)


def make_board(
    folders: Sequence[str | os.PathLike[str]], command: str, published: Sequence[PublishedRow] = ()
) -> Board:
    """Make a leaderboard of runs that have ended.

    Args:
        folders: of the runs.
        command: that makes the board again.
        published: rows of others, of the same suite.

    Raises:
        ValueError: no run that was measured after unlearning, runs of several suites, or published rows of another.
    """
    comparison = compare(folders)
    places = {Path(folder).absolute().name: Path(folder) for folder in folders}
    runs = [
        _board_run(places[run.name], method.label)
        for setting in comparison.settings
        for method in setting.methods
        for run in method.runs
    ]
    results = [method.runs[0].results["after"] for setting in comparison.settings for method in setting.methods]
    suites = sorted({result.suite for result in results})
    if len(suites) > 1:
        raise input_error(
            expected="runs of one suite",
            got=f"of {' and '.join(suites)}",
            why="a leaderboard has one set of metrics",
            fix="make one for each: hf-unlearn leaderboard SUITE",
        )
    require_suite(suites[0], published)
    first = load_record(places[runs[0].name]).evaluations
    models = {model: dict(first[model].metrics) for model in _MODELS if model in first}
    return Board(suites[0], command, now(), code_version(), comparison, runs, models, list(published))


def require_suite(suite: str, published: Sequence[PublishedRow]) -> None:
    """Raise for published rows of another suite than a board's."""
    other = next((row for row in published if row.suite != suite), None)
    if other is not None:
        raise input_error(
            expected=f"published figures of the suite {suite}",
            got=f"those of {other.suite} in {other.name}",
            why="they are figures of other rows under other names, and nothing could be read off them together",
            fix=f"import them into a board of {other.suite}",
        )


def _board_run(folder: Path, method: str) -> BoardRun:
    record = load_record(folder)
    lineage = record.lineage
    after = record.evaluations["after"]
    return BoardRun(
        name=folder.absolute().name,
        method=method,
        seed=record.seed,
        recipe="" if lineage is None else lineage.recipe,
        record=file_hash(folder / RECORD_FILE) or "",
        weights_in={} if lineage is None else dict(lineage.weights_in),
        weights_out={} if lineage is None else dict(lineage.weights_out),
        code="" if lineage is None else lineage.code,
        versions=record.versions,
        hardware=record.hardware,
        rows=after.rows,
        figures=dict(after.metrics),
        attacks=_attacks(record),
    )


def _attacks(record: RunRecord) -> list[AttackFigure]:
    findings = [] if record.attack_report is None else record.attack_report.findings
    return [AttackFigure(finding.name, is_relearning(finding), finding.excess) for finding in findings]


def read_board_runs(folder: str | os.PathLike[str]) -> list[BoardRun]:
    """The runs of a written board, to be checked.

    Args:
        folder: of the board, or its leaderboard.json.

    Raises:
        ValueError: there is none, or the file was edited into something else.
    """
    place = Path(folder)
    file = place if place.name.endswith(".json") else place / BOARD_FILE
    try:
        stored = read_json(file)
    except FileNotFoundError:
        raise _no_board(file, "nothing there") from None
    except (OSError, ValueError) as error:
        raise _no_board(file, f"a file that cannot be read ({type(error).__name__})") from None
    if not isinstance(stored, Mapping) or stored.get("format") != FORMAT or not isinstance(stored.get("runs"), list):
        raise _no_board(file, "JSON of another kind, or of another version of hf_unlearn")
    try:
        check_schema(stored["runs"], list[BoardRun], "runs")
    except SchemaError as error:
        raise wrong_file(file, error, "a board is checked by them", "take the file as it was published") from None
    runs: list[BoardRun] = build(stored["runs"], list[BoardRun])
    return runs


def _no_board(file: Path, got: str) -> ValueError:
    return input_error(
        expected=f"the folder of a leaderboard, with its {BOARD_FILE}",
        got=got,
        why="its figures and hashes are compared with what is measured anew",
        fix=f"hf-unlearn leaderboard SUITE makes one; looked for in {file.name}",
    )
