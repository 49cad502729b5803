"""`hf-unlearn request erase`: the rows of a request that is done, no longer kept."""

import argparse

from ..command import Verb, add_json, tell


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Encrypted rows are deleted from the ledger; a file of your own is not touched, and is yours to delete. The "
        "request keeps its number of rows, its digests and its history. Without its rows it is neither held by later "
        "batches nor measured again, and cannot be left out of a replay."
    )
    parser.add_argument("ledger", metavar="LEDGER", help="folder of the ledger")
    parser.add_argument("request", metavar="ID", help="a request that was carried out")
    parser.add_argument(
        "--why", required=True, metavar="TEXT", help="for the ledger: end of the retention period, ..."
    )
    add_json(parser)


def _run(args: argparse.Namespace) -> None:
    from ...requests import Ledger
    from ...requests.erase import erase

    erase(Ledger(args.ledger), args.request, args.why)
    said = f"Erased the rows of {args.request}. From now on it can neither be held nor be verified again."
    tell(args, said, {"request": args.request})


ERASE = Verb("no longer keep the rows of a request that is done", _arguments, _run)
