"""`hf-unlearn methods`: everything that a config can name."""

import argparse

from .command import Verb, add_json, tell


def _run(args: argparse.Namespace) -> None:
    from .method_catalog import list_methods, render_methods

    tell(args, render_methods(), list_methods())


METHODS = Verb(
    "list losses, step wrappers and weightings: name, formula, arguments, needs, what they work with, paper",
    add_json,
    _run,
)
