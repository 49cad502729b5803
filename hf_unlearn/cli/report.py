"""`hf-unlearn report`: writes one or more runs as an HTML page for people."""

import argparse
from pathlib import Path

from .command import Verb, add_json, tell


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="output folders of runs, each with a results.json")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="page to write (default: report.html, in the folder of a single run)"
    )
    add_json(parser)


def _run(args: argparse.Namespace) -> None:
    from ..results.record import load_record
    from ..results.report import verdict, write_report

    default = Path(args.runs[0]) / "report.html" if len(args.runs) == 1 else Path("report.html")
    written = write_report(args.runs, args.output or default)
    verdicts = {run: verdict(load_record(run)) for run in args.runs}
    lines = [*(judged.sentence for judged in verdicts.values()), f"Report: {written}"]
    data = {
        "report": str(written),
        "runs": {run: {"level": judged.level, "sentence": judged.sentence} for run, judged in verdicts.items()},
    }
    tell(args, "\n".join(lines), data)


REPORT = Verb("write one HTML page about one or several runs", _arguments, _run)
