"""`hf-unlearn methods`: everything that a config can name."""

import argparse

from .command import Verb, add_json, tell


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plugins", nargs="+", metavar="MODULE", help="modules, or files such as my_loss.py, that add to the list"
    )
    add_json(parser)


def _run(args: argparse.Namespace) -> None:
    from ..plugins import load_plugins
    from .method_catalog import list_methods, render_methods

    load_plugins(args.plugins)
    tell(args, render_methods(), list_methods())


METHODS = Verb(
    "list losses, edits, attacks, suites, metrics, recipes, ...",
    _arguments,
    _run,
)
