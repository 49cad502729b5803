"""`hf-unlearn request add`: enters a request, by the rows that are to be deleted."""

import argparse
import json

from ..command import Verb, add_json, tell


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "The ledger keeps salted digests of the rows, and where they lie. With --encrypt it keeps the rows too, "
        "encrypted with the key of HF_UNLEARN_LEDGER_KEY or HF_UNLEARN_LEDGER_KEY_FILE, and the file can go."
    )
    parser.add_argument("ledger", metavar="LEDGER", help="folder of the ledger")
    parser.add_argument("--rows", required=True, metavar="FILE", help="rows to delete: file, saved folder or Hub id")
    parser.add_argument("--id", metavar="ID", help="of the request (default: R-1, R-2, ...)")
    parser.add_argument("--received", metavar="DATE", help="as 2026-11-29 (default: today)")
    parser.add_argument(
        "--due", metavar="DATE", help="default: a month after it was received, as in article 12(3) of the GDPR"
    )
    parser.add_argument("--scope", default="", metavar="TEXT", help="what is to be deleted, in words")
    parser.add_argument("--reference", default="", metavar="TEXT", help="the requester's, such as a letter's number")
    parser.add_argument("--policy", metavar="NAME", help="by which it is judged (default: the ledger's)")
    parser.add_argument("--columns", type=json.loads, metavar="JSON", help="old column name to new")
    parser.add_argument("--split", default="train", metavar="NAME", help="of a Hub dataset (default: train)")
    parser.add_argument("--encrypt", action="store_true", help="keep the rows in the ledger, encrypted")
    add_json(parser)


def _run(args: argparse.Namespace) -> None:
    from ...requests import Ledger
    from ...tasks.request_batches import add_request

    request = add_request(
        Ledger(args.ledger),
        args.rows,
        request_id=args.id,
        received=args.received,
        due=args.due,
        scope=args.scope,
        reference=args.reference,
        policy=args.policy,
        columns=args.columns,
        split=args.split,
        encrypt=args.encrypt,
    )
    why = "" if args.due else ", a month after it was received (article 12(3) of the GDPR)"
    lines = [f"Added {request.id}: {request.rows} rows, received {request.received}, due {request.due}{why}."]
    lines += [f"What to do: hf-unlearn request run {args.ledger}"]
    data = {name: getattr(request, name) for name in ("id", "rows", "received", "due", "scope", "reference", "policy")}
    tell(args, "\n".join(lines), data)


ADD = Verb("enter a request: the rows that are to be deleted, when it came and when it is due", _arguments, _run)
