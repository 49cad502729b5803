"""`hf-unlearn request`: deletion requests in a ledger, a file for each of its commands."""

import argparse

from ..command import CommandParser, Verb
from .add import ADD
from .erase import ERASE
from .export import EXPORT
from .open import OPEN
from .plan import PLAN
from .run import RUN
from .status import STATUS
from .verify import VERIFY

# In the order in which they are used.
REQUEST_VERBS: dict[str, Verb] = {
    "open": OPEN,
    "add": ADD,
    "plan": PLAN,
    "run": RUN,
    "verify": VERIFY,
    "status": STATUS,
    "export": EXPORT,
    "erase": ERASE,
}


def _arguments(parser: CommandParser) -> None:
    verbs = parser.add_subparsers(title="commands", dest="request_verb", metavar="COMMAND", required=True)
    for name, verb in REQUEST_VERBS.items():
        description = verb.help[0].upper() + verb.help[1:] + "."
        verb.add_arguments(verbs.add_parser(name, help=verb.help, description=description))


def _run(args: argparse.Namespace) -> int | None:
    verb = REQUEST_VERBS[args.request_verb]
    args.given = args.given[args.given.index(args.request_verb) + 1 :]
    if not verb.open:
        # `request` takes what it does not know, since one of its commands may: the others refuse it here.
        strict = CommandParser(prog=f"hf-unlearn request {args.request_verb}")
        verb.add_arguments(strict)
        strict.parse_args(args.given)
    return verb.run(args)


REQUEST = Verb("deletion requests: a ledger from request to proof", _arguments, _run, True)
