"""`hf-unlearn request run`: carries open requests out, a batch for each way, or goes on with one that was cut off."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from ..command import Verb, add_json, tell

if TYPE_CHECKING:
    from ...requests import Ledger


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "The rows of all earlier requests are held at their level in the same run. A batch that was cut off goes on "
        "from its last checkpoint. Ways: nothing (with --why, or a plan that says so), drop_cohort (--log, --base), "
        "replay (--log, --trainer), checkpoint (--checkpoint when the ledger was opened), calibrated."
    )
    parser.add_argument("ledger", metavar="LEDGER", help="folder of the ledger")
    parser.add_argument("--requests", nargs="+", metavar="ID", help="default: all that are open")
    parser.add_argument("--way", metavar="WAY", help="default: what the last plan says, else calibrated")
    parser.add_argument("--why", default="", metavar="TEXT", help="how it is known that there is nothing to do")
    parser.add_argument("--edit", type=json.loads, metavar="JSON", help='of the way checkpoint: {"name": "rewind"}')
    parser.add_argument("--log", metavar="FOLDER", help="of the training's log or cohorts, for replay and drop_cohort")
    parser.add_argument("--trainer", metavar="MODULE:FUNCTION", help="makes its trainer, given an output folder")
    parser.add_argument("--base", metavar="MODEL", help="below the cohorts' adapters, for drop_cohort")
    parser.add_argument("--abandon", metavar="REASON", help="give up the batch that was cut off, and end")
    add_json(parser)


def _run(args: argparse.Namespace) -> None:
    from ...requests import Ledger
    from ...tasks.request_batches.carry_out import abandon, carry_out, planned_ways
    from ...tasks.request_batches.exact import Logged, named_function

    ledger = Ledger(args.ledger)
    if args.abandon:
        given_up = abandon(ledger, args.abandon)
        tell(args, f"Gave up batch {given_up['batch']}; {', '.join(given_up['requests'])} are open.", given_up)
        return
    made = None if args.trainer is None else named_function(args.trainer)
    logged = None if args.log is None else Logged(args.log, made, args.base)
    given = {"why": args.why, "edit": args.edit, "logged": logged}
    if args.way is not None or ledger.state().unfinished is not None:
        batches = [carry_out(ledger, args.requests, args.way, **given)]
    else:
        planned = planned_ways(ledger, args.requests)
        batches = [carry_out(ledger, members, way, **given) for way, members in planned.items()]
    done = [batch for batch in batches if batch is not None]
    lines = [line for batch in done for line in _words(batch, ledger)] or ["Nothing is open."]
    tell(args, "\n".join([*lines, *([f"What to do: hf-unlearn request verify {args.ledger}"] if done else [])]), done)


def _words(batch: dict[str, Any], ledger: "Ledger") -> list[str]:
    said = [f"Carried out batch {batch['batch']}: {', '.join(batch['requests'])} ({batch['way']})."]
    return [*said, *([] if batch["run"] is None else [f"Run: {ledger.runs / batch['run']}"])]


RUN = Verb("carry out the open requests, a batch for each way, or go on with one cut off", _arguments, _run)
