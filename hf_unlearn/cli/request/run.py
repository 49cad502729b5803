"""`hf-unlearn request run`: carries open requests out as one batch, or goes on with one that was cut off."""

import argparse
import json

from ..command import Verb, add_json, tell


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "The rows of all earlier requests are held at their level in the same run. A batch that was cut off goes on "
        "from its last checkpoint. Ways: nothing (with --why, or a plan that says so), checkpoint (--checkpoint when "
        "the ledger was opened), calibrated."
    )
    parser.add_argument("ledger", metavar="LEDGER", help="folder of the ledger")
    parser.add_argument("--requests", nargs="+", metavar="ID", help="default: all that are open")
    parser.add_argument("--way", metavar="WAY", help="nothing, checkpoint or calibrated (default: calibrated)")
    parser.add_argument("--why", default="", metavar="TEXT", help="how it is known that there is nothing to do")
    parser.add_argument("--edit", type=json.loads, metavar="JSON", help='of the way checkpoint: {"name": "rewind"}')
    parser.add_argument("--abandon", metavar="REASON", help="give up the batch that was cut off, and end")
    add_json(parser)


def _run(args: argparse.Namespace) -> None:
    from ...requests import Ledger
    from ...tasks.request_batches.carry_out import abandon, carry_out

    ledger = Ledger(args.ledger)
    if args.abandon:
        given_up = abandon(ledger, args.abandon)
        tell(args, f"Gave up batch {given_up['batch']}; {', '.join(given_up['requests'])} are open.", given_up)
        return
    done = carry_out(ledger, args.requests, args.way, why=args.why, edit=args.edit)
    if done is None:
        tell(args, "Nothing is open.", None)
        return
    names, where = ", ".join(done["requests"]), "" if done["run"] is None else f"\nRun: {ledger.runs / done['run']}"
    text = f"Carried out batch {done['batch']}: {names} ({done['way']}).{where}\n"
    tell(args, f"{text}What to do: hf-unlearn request verify {args.ledger}", done)


RUN = Verb("carry out the open requests as one batch, or go on with one that was cut off", _arguments, _run)
