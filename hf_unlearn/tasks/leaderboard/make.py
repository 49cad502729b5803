"""Does the runs of a leaderboard and writes it beside them."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import input_error, nearest
from ...results.leaderboard import Board, make_board, write_board
from ...results.leaderboard.board import require_suite
from ...results.published import PublishedRow
from ...training.hooks.run_description import is_path
from .. import TASKS, default_recipe
from ..command_words import is_secret, kept_words
from ..series import PlannedRun, Series, plan_series, run_series

# Suites that are measured by a task of another name.
_TASK_OF = {"tofu": "privacy"}
_MEASURED_BY = {name: suite for suite, name in _TASK_OF.items()}


@dataclass(frozen=True)
class BoardRequest:
    """What a command asks for.

    Attributes:
        suite: that measures, or the name of a task.
        methods: packaged recipes, recipe files, names or specs of losses.
        seeds: texts of whole numbers.
        words: of the command line for every run.
        launch: flags of accelerate with their values.
        published: rows of others.
    """

    suite: str
    methods: Sequence[str]
    seeds: Sequence[str]
    words: Sequence[str]
    launch: Sequence[str] = ()
    published: Sequence[PublishedRow] = field(default=())


def plan_board(request: BoardRequest) -> tuple[Path, list[PlannedRun]]:
    """The folder of a board and its runs, all of them checked.

    Raises:
        ValueError: a suite that no task measures, published rows of another one, no methods, or what a series of runs
            refuses.
    """
    task = _task_of(request.suite)
    require_suite(_MEASURED_BY.get(task, task), request.published)
    if not request.methods:
        raise input_error(
            expected="--methods with the methods of the board",
            got="none",
            why="each is a row of it",
            fix=f"hf-unlearn leaderboard {request.suite} --methods npo simnpo unseen_level --seeds 0 1 2",
        )
    words = list(request.words)
    if not any(word.partition("=")[0] == "--config" for word in words) and default_recipe(task) is not None:
        words = ["--config", str(default_recipe(task)), *words]
    if not any(word.partition("=")[0].replace("-", "_") == "__output_dir" for word in words):
        words += ["--output_dir", f"unlearned/leaderboard-{request.suite}"]
    return plan_series(Series(task, request.methods, request.seeds, words, request.launch))


def make_leaderboard(request: BoardRequest) -> tuple[Board | None, list[Path], bool]:
    """Do the runs of a board that are not done yet, and write it.

    Returns:
        the board (None where every run failed), what was written, and whether all runs are in it.

    Raises:
        ValueError: as `plan_board` does, before anything is run.
    """
    output, runs = plan_board(request)
    done = run_series(runs)
    if not done:
        return None, [], False
    board = make_board(done, command_of(request), request.published)
    return board, write_board(board, output), len(done) == len(runs)


def command_of(request: BoardRequest) -> str:
    """The command that makes the board again, without tokens and places of the machine that it was given on."""
    words = [_without_place(word) for word in kept_words(request.words, lambda flag: not is_secret(flag))]
    seeds = ["--seeds", *request.seeds] if request.seeds else []
    given = ["hf-unlearn", "leaderboard", request.suite, "--methods", *request.methods, *seeds, *words]
    return shlex.join(given)


def _without_place(word: str) -> str:
    """A word of a command line with the name of a file in place of its path."""
    flag, is_whole, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{flag}{is_whole}{Path(value).name if is_path(value) else value}"


def _task_of(suite: str) -> str:
    """The task whose runs a suite measures."""
    known: Mapping[str, str] = {**{_MEASURED_BY.get(task, task): task for task in TASKS}, **_TASK_OF}
    task = known.get(suite, suite if suite in TASKS else None)
    if task is None:
        raise input_error(
            expected=f"a suite that runs are measured with: {', '.join(known)}",
            got=repr(suite),
            why="the rows of a board are runs, and a run is measured by the suite of its task",
            fix=f"{nearest(suite, known)}; hf-unlearn evaluate --suite {suite} measures single models",
        )
    return task
