"""`hf-unlearn compare`: methods side by side over their seeds, from the folders of their runs."""

import argparse

from .command import CommandParser, Verb, add_json, tell

_FORMATS = ("text", "markdown", "csv", "latex")


def _arguments(parser: CommandParser) -> None:
    parser.epilog = (
        "Runs that differ in nothing but the seed are one method. Methods are ranked by the largest of three shares: "
        "what is left of what was to be forgotten, what was lost of the rest, how far it is traced, each between the "
        "oracle (0) and 1; relearning counts where all were attacked. Runs on other rows or with another suite get a "
        "table of their own. hf-unlearn train --methods A B --seeds 0 1 2 makes such runs."
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUNS", help="output folders of runs, or folders that contain such folders"
    )
    parser.add_argument(
        "--format", choices=_FORMATS, default="text", help="of what is printed (default: text, for a terminal)"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="folder for all of it, or one file: .html .md .tex .csv .json .txt .png",
    )
    add_json(parser)


def _run(args: argparse.Namespace) -> None:
    from ..results import comparison as compared

    found = compared.compare(args.runs)
    written = compared.write_comparison(found, args.output) if args.output else []
    as_text = {
        "text": compared.comparison_text,
        "markdown": compared.comparison_markdown,
        "csv": compared.comparison_csv,
        "latex": compared.comparison_latex,
    }[args.format]
    lines = [as_text(found).rstrip("\n")]
    if args.format == "text":  # what else is printed may be a file
        lines += [f"\nWritten: {', '.join(map(str, written))}"] if written else []
    tell(args, "\n".join(lines), compared.comparison_data(found) | {"written": [str(path) for path in written]})


COMPARE = Verb(
    "set methods side by side over their seeds: figures, tests, front, rank; table, page, CSV", _arguments, _run
)
