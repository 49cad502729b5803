"""`hf-unlearn request export`: an auditor's bundle of a ledger."""

import argparse

from ..command import Verb, add_json, tell


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "index.html is for people; README.txt has the commands that check the rest. The bundle holds no row, no salt "
        "and no path. That it was made becomes an entry of the ledger."
    )
    parser.add_argument("ledger", metavar="LEDGER", help="folder of the ledger")
    parser.add_argument("folder", metavar="FOLDER", help="new or empty, or that of an earlier export")
    parser.add_argument("--digests", action="store_true", help="give the salted digests of rows too")
    add_json(parser)


def _run(args: argparse.Namespace) -> None:
    from ...requests import Ledger
    from ...requests.export import PAGE, export

    folder = export(Ledger(args.ledger), args.folder, args.digests)
    tell(args, f"Bundle: {folder}\nPage: {folder / PAGE}", {"folder": str(folder), "page": str(folder / PAGE)})


EXPORT = Verb("write a bundle for an auditor: entries, records, verifications, one page for people", _arguments, _run)
