"""`hf-unlearn leaderboard`: methods over seeds as a board that can be repeated and checked."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .command import CommandParser, Verb, add_json, tell
from .train_series import split_series

if TYPE_CHECKING:  # at run time these take seconds to import
    from ..results.published import PublishedRow

_VERIFY = "verify"
_OWN = ("import", "import_retrained", "dry_run", "json")


def _arguments(parser: CommandParser) -> None:
    parser.usage = (
        "hf-unlearn leaderboard SUITE --methods M ... --seeds N ...\n"
        "                              [--import FILE ...] [--output_dir DIR]\n"
        "                              [--ARGUMENT VALUE ...]\n"
        "       hf-unlearn leaderboard verify BOARD [--row NAME ...] [--runs DIR]\n"
        "                              [--weights W [--revision R]]"
    )
    parser.epilog = (
        "SUITE is harmful, copyright, tofu, custom or a task; without a model and rows it is the lab's. The arguments "
        "of hf-unlearn train work too, --attack among them. Each run is a process of its own; the same command goes "
        "on after a kill. verify measures rows again from their weights and ends with 1 where one does not hold."
    )
    parser.add_argument("suite", nargs="?", metavar="SUITE", help="what measures, or verify")
    parser.add_argument("board", nargs="?", metavar="BOARD", help="of verify: folder of a board, or leaderboard.json")
    parser.add_argument("--methods", nargs="+", metavar="M", help="recipes (npo edits/msa ./x.yaml) or losses")
    parser.add_argument("--seeds", nargs="+", metavar="N", help="seeds of each method")
    parser.add_argument("--import", nargs="+", metavar="FILE", help="logs of OpenUnlearning or TOFU, shown beside")
    parser.add_argument("--import_retrained", metavar="FILE", help="TOFU's log of the retrained model")
    parser.add_argument("--output_dir", metavar="DIR", help="folder of board and runs")
    parser.add_argument("--dry_run", action="store_true", help="print the runs, and end")
    parser.add_argument("--row", nargs="+", metavar="NAME", help="of verify: runs or methods (default: all)")
    parser.add_argument("--runs", metavar="DIR", help="of verify: where the folders of runs lie (default: BOARD)")
    parser.add_argument("--weights", metavar="W", help="of verify: folder or Hub id with the weights of one --row")
    parser.add_argument("--revision", metavar="R", help="of verify: of the Hub's repository")
    parser.add_argument("--use_cpu", action="store_true", help="stay on the CPU where there is an accelerator")
    add_json(parser)


def _run(args: argparse.Namespace) -> int:
    return _verify(args) if args.suite == _VERIFY else _make(args)


def _verify(args: argparse.Namespace) -> int:
    from ..errors import input_error
    from ..results.schema import as_json
    from ..tasks.leaderboard import verification_words, verify_board

    # The command takes what it does not know, which may be an argument of a run: here there is none.
    strict = CommandParser(prog="hf-unlearn leaderboard")
    _arguments(strict)
    strict.parse_args(args.given)
    if args.board is None:
        raise input_error(
            expected="hf-unlearn leaderboard verify BOARD",
            got="no board",
            why="rows are measured again against its figures and hashes",
            fix="pass the folder of a board, or its leaderboard.json",
        )
    if args.revision is not None and args.weights is None:
        raise input_error(
            expected="--revision together with --weights",
            got="--revision alone",
            why="it is a revision of the repository that the weights lie in",
            fix="add --weights owner/name, or leave it out",
        )
    more = ["--use_cpu"] if args.use_cpu else []
    verified = verify_board(
        args.board, args.row or (), runs=args.runs, weights=args.weights, revision=args.revision, more=more
    )
    data = [as_json(run) | {"holds": run.holds} for run in verified]
    tell(args, verification_words(verified), data)
    return 0 if all(run.holds for run in verified) else 1


def _make(args: argparse.Namespace) -> int:
    from ..plugins import load_plugins
    from ..results.leaderboard import board_data, board_text
    from ..tasks.leaderboard import BoardRequest, make_leaderboard, plan_board
    from .train import plugins_of, split_launch

    _require_first(args)
    words = _words_of_runs(args.given[1:])
    load_plugins(plugins_of(words))
    series, rest = split_series(words)
    launch, rest = split_launch(rest)
    request = BoardRequest(
        args.suite,
        series.methods if series else [],
        series.seeds if series else [],
        rest,
        [word for name, value in launch.items() for word in (f"--{name}", value)],
        _published(vars(args)["import"] or (), args.import_retrained),
    )
    if args.dry_run:
        output, runs = plan_board(request)
        lines = [f"hf-unlearn train {' '.join(run.arguments)} --output_dir {run.folder}" for run in runs]
        tell(args, "\n".join(lines), {"folder": str(output), "runs": [[*run.arguments] for run in runs]})
        return 0
    board, written, whole = make_leaderboard(request)
    if board is None:
        return 1
    named = f"\n\nLeaderboard: {', '.join(map(str, written))}"
    tell(args, board_text(board) + named, board_data(board))
    return 0 if whole else 1


def _published(files: Sequence[str], retrained: str | None) -> "list[PublishedRow]":
    """Logs of others; the retrained model's goes with those that need it."""
    from ..results.published import read_published

    rows = [read_published(file) for file in files]
    if retrained is None:
        return rows
    return [
        read_published(file, retrained) if row.source == "TOFU" else row for file, row in zip(files, rows, strict=True)
    ]


def _require_first(args: argparse.Namespace) -> None:
    """Refuse what would be taken for something else: a suite behind flags, and a second word beside it."""
    from ..errors import input_error

    if args.suite is not None and args.given[0] == args.suite and args.board is None:
        return
    raise input_error(
        expected="the suite first, then flags: hf-unlearn leaderboard SUITE --methods ...",
        got=" ".join(args.given[:2]) or "nothing",
        why="behind a flag, a word may be one of its values",
        fix=f"hf-unlearn leaderboard {args.suite or 'harmful'} --methods npo simnpo --seeds 0 1 2",
    )


def _words_of_runs(given: Sequence[str]) -> list[str]:
    """The words that are a run's or a series', without those of this command alone."""
    rest, reading = [], False
    for word in given:
        if word.startswith("--"):
            name, is_whole, _ = word.removeprefix("--").partition("=")
            own = name in _OWN
            reading = own and name.startswith("import") and not is_whole
            if own:
                continue
        elif reading:
            continue
        rest.append(word)
    return rest


LEADERBOARD = Verb("methods over seeds as a board that can be repeated and checked", _arguments, _run, open=True)
