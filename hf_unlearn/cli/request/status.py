"""`hf-unlearn request status`: the requests of a ledger, and what is under way."""

import argparse

from ..command import Verb, add_json, tell


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "It can be asked at any time, also while a batch is carried out."
    parser.add_argument("ledger", metavar="LEDGER", help="folder of the ledger")
    add_json(parser)


def _run(args: argparse.Namespace) -> None:
    import dataclasses

    from ...requests import Ledger
    from ...requests.status_table import ledger_status, status_table

    status = ledger_status(Ledger(args.ledger))
    tell(args, status_table(status), dataclasses.asdict(status))


STATUS = Verb("show the requests of a ledger, when they are due, and what is under way", _arguments, _run)
