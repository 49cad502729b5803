"""`hf-unlearn train --methods A B --seeds 0 1 2`: the runs of a series, and their comparison."""

import argparse
import sys
from collections.abc import Sequence
from typing import NamedTuple

COMPARISON = "comparison"  # folder beside those of the runs
_LISTS = ("methods", "seeds")


class SeriesWords(NamedTuple):
    """What a command line says of a series.

    Attributes:
        methods: recipes, files, losses.
        seeds: as they were written.
        compared: whether a comparison is written at the end.
    """

    methods: list[str]
    seeds: list[str]
    compared: bool


def add_series(parser: argparse.ArgumentParser) -> None:
    """The arguments of a series."""
    group = parser.add_argument_group("series: a run for each, in OUTPUT_DIR/METHOD-seed-N")
    group.add_argument(
        "--methods",
        nargs="+",
        metavar="M",
        help="recipes (npo edits/msa ./x.yaml) or losses",
    )
    group.add_argument("--seeds", nargs="+", metavar="N", help="seeds of each method")
    group.add_argument("--compare", action="store_true", help=f"compare them, in OUTPUT_DIR/{COMPARISON}")


def split_series(words: Sequence[str]) -> tuple[SeriesWords | None, list[str]]:
    """What is said of a series, and the other words; None where nothing is.

    Raises:
        ValueError: --compare without a series, or --methods or --seeds without a value.
    """
    lists: dict[str, list[str]] = {}
    rest: list[str] = []
    compared, reading = False, ""
    for word in words:
        name, is_whole, value = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            (lists[reading] if reading else rest).append(word)
            continue
        reading = name if name in _LISTS and not is_whole else ""
        if name in _LISTS:
            # JSON has blanks of its own.
            lists[name] = ([value] if value.startswith(("{", "[")) else value.split()) if is_whole else []
        elif word == "--compare":
            compared = True
        else:
            rest.append(word)
    _require_values(lists, compared)
    if not lists:
        return None, rest
    return SeriesWords(lists.get("methods", []), lists.get("seeds", []), compared), rest


def run_series_of(series: SeriesWords, task: str, words: Sequence[str], launch: dict[str, str], own: set[str]) -> int:
    """Plan and do the runs of a series; the exit status.

    Args:
        series: methods and seeds.
        task: of all of them.
        words: of the command line for each run.
        launch: what is accelerate's, by name.
        own: names of the command's own arguments.
    """
    from ..tasks.series import Series, plan_series, run_series

    flags = [word for name, value in launch.items() for word in (f"--{name}", value)]
    output, runs = plan_series(Series(task, series.methods, series.seeds, words, flags), own)
    done = run_series(runs)
    if done and series.compared:
        from ..results.comparison import compare, comparison_text, write_comparison

        compared = compare(done)
        written = write_comparison(compared, output / COMPARISON)
        print(f"\n{comparison_text(compared)}\n\nComparison: {written[0]}")
    elif done:
        print(f"Compare them: hf-unlearn compare {output}", file=sys.stderr)
    return 0 if len(done) == len(runs) else 1


def _require_values(lists: dict[str, list[str]], compared: bool) -> None:
    from ..errors import input_error

    empty = next((name for name, values in lists.items() if not values), None)
    if empty is None and (lists or not compared):
        return
    raise input_error(
        expected=f"--{empty} with at least one value" if empty else "--compare together with --methods or --seeds",
        got="none" if empty else "--compare alone",
        why="there would be no series of runs" if empty else "one run has nothing beside it to be compared with",
        fix="hf-unlearn train --config harmful_lab --methods npo simnpo --seeds 0 1 2 --compare",
    )
