"""The command line: a dict of commands, each in a module of its own that is imported when the command runs."""

import argparse
import os
import sys
import time
from contextlib import nullcontext, redirect_stdout

from ..tasks.flag_words import underscored
from ..tasks.library_noise import quiet_libraries
from .attack import ATTACK
from .card import CARD
from .command import CommandParser, Verb
from .compare import COMPARE
from .completion import COMPLETION
from .demo import DEMO
from .edit import EDIT
from .evaluate import EVALUATE
from .gate import GATE
from .judge import JUDGE
from .lab import LAB
from .leaderboard import LEADERBOARD
from .methods import METHODS
from .plan import PLAN
from .push import PUSH
from .report import REPORT
from .request import REQUEST
from .rerun import RERUN
from .show import SHOW
from .sweep import SWEEP
from .train import TRAIN
from .train_judge import TRAIN_JUDGE

VERBS: dict[str, Verb] = {
    "plan": PLAN,
    "show": SHOW,
    "train": TRAIN,
    "edit": EDIT,
    "sweep": SWEEP,
    "rerun": RERUN,
    "evaluate": EVALUATE,
    "attack": ATTACK,
    "compare": COMPARE,
    "leaderboard": LEADERBOARD,
    "gate": GATE,
    "request": REQUEST,
    "demo": DEMO,
    "report": REPORT,
    "card": CARD,
    "push": PUSH,
    "methods": METHODS,
    "lab": LAB,
    "judge": JUDGE,
    "train-judge": TRAIN_JUDGE,
    "completion": COMPLETION,
}
_STATUS = (
    "exit status: 0 done; 1 something outside failed (the Hub, a download, a disk); 2 arguments or data that "
    "would not do what was asked; 130 interrupted"
)

# How long a process leaves it to the first one of its launch to tell an error, and to end; after that it is its own.
_SECONDS_TO_TELL = 30.0


def make_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = CommandParser(prog="hf-unlearn", description="Make a language model forget.", epilog=_STATUS)
    parser.add_argument("--version", action="store_true", help="print the version and end")
    verbs = parser.add_subparsers(title="commands", dest="verb", metavar="COMMAND")
    for name, verb in VERBS.items():
        description = verb.help[0].upper() + verb.help[1:] + "."
        verb.add_arguments(verbs.add_parser(name, help=verb.help, description=description))
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; errors end with their text on standard error and a status that says whose they are."""
    given = underscored(sys.argv[1:] if arguments is None else arguments)
    parser = make_parser()
    args, unread = parser.parse_known_args(given)
    if args.version:
        return _print_version()
    if args.verb is None:
        parser.error("the following arguments are required: COMMAND")
    quiet_libraries()
    verb = VERBS[args.verb]
    if unread and not verb.open:
        parser.error(f"unrecognized arguments: {' '.join(unread)}")
    args.given, args.out = given[given.index(args.verb) + 1 :], sys.stdout
    try:
        # Libraries print as well: with --json, standard output is the result's alone.
        with redirect_stdout(sys.stderr) if getattr(args, "json", False) else nullcontext():
            status = verb.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # `hf-unlearn methods | head`: nobody reads on, and Python's own flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ValueError as error:
        return _failed(args.verb, error, 2)
    except KeyboardInterrupt:
        return 130 if _is_replica() else _failed(args.verb, "interrupted", 130)
    except _outside() as error:  # looked up when there is an error: it imports libraries
        # Bugs show where they are; the Hub, a download, a disk or a library that failed is told in a line.
        from .outside_errors import outside_words

        words = outside_words(error)
        if words is None:
            raise
        return _failed(args.verb, words, 1)
    return status or 0


def _outside() -> tuple[type[Exception], ...]:
    from .outside_errors import OUTSIDE

    return OUTSIDE


def _failed(verb: str, error: BaseException | str, status: int) -> int:
    if _is_replica():
        # The first process tells what all of them meet, and the launcher then ends the others.
        time.sleep(_SECONDS_TO_TELL)
    print(f"hf-unlearn {verb}: {error}", file=sys.stderr)
    return status


def _is_replica() -> bool:
    """Whether it is one of the processes of a launch, and not the first."""
    return os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get("RANK", "0") != "0"


def _print_version() -> int:
    from ..version import __version__

    print(f"hf-unlearn {__version__}")
    return 0
