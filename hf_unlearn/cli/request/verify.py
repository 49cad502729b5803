"""`hf-unlearn request verify`: measures and attacks every request that was carried out on the present weights."""

import argparse
import dataclasses
import sys

from ..command import Verb, add_json, tell


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "A request whose rows are known more than rows never seen, by the limits of its policy, is open again. Exit "
        "status: 0 all hold and nothing is wrong with the ledger, 1 something does not, 2 it cannot be told."
    )
    parser.add_argument("ledger", metavar="LEDGER", help="folder of the ledger")
    parser.add_argument(
        "--attack", default="quick", metavar="SUITE", help="quick, standard, thorough or none (default: quick)"
    )
    parser.add_argument("--again", action="store_true", help="measure what was verified on these weights anew")
    add_json(parser)


def _run(args: argparse.Namespace) -> int:
    from ...attacks.suites import ATTACK_SUITES
    from ...errors import require_choice
    from ...requests import Ledger
    from ...tasks.request_batches import verify
    from ...tasks.request_batches.words import verification_words

    require_choice("--attack", args.attack, [*ATTACK_SUITES, "none"])
    suite = None if args.attack == "none" else args.attack
    verified = verify(Ledger(args.ledger), suite, again=args.again, tell=lambda line: print(line, file=sys.stderr))
    tell(args, verification_words(verified), {**dataclasses.asdict(verified), "holds": verified.holds})
    return 0 if verified.holds else 1


VERIFY = Verb("measure and attack every request again on the present weights", _arguments, _run)
