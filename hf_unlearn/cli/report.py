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
    from ..results.answers_table import answers_table
    from ..results.record import load_record
    from ..results.report import verdict, write_report
    from ..results.schema import as_json

    default = Path(args.runs[0]) / "report.html" if len(args.runs) == 1 else Path("report.html")
    written = write_report(args.runs, args.output or default)
    verdicts = {run: verdict(load_record(run)) for run in args.runs}
    many = len(verdicts) > 1
    tables = [answers_table(judged.answers, run if many else None) for run, judged in verdicts.items()]
    data = {"report": str(written), "runs": {run: as_json(judged) for run, judged in verdicts.items()}}
    tell(args, "\n\n".join([*tables, f"Report: {written}"]), data)


REPORT = Verb("write one HTML page about one or several runs", _arguments, _run)
