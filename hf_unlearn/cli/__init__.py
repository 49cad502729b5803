"""The command line: a dict of verbs. What a verb does lies in its own module and is imported when it is called."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NamedTuple


class Verb(NamedTuple):
    """One command of `hf-unlearn`."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def _lab_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--world", default="games", help="what is to be forgotten: games, people or books (default: games)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the rows and of both models (default: 0)")
    parser.add_argument("--cache_dir", help="folder to build in (default: inside the Hugging Face cache)")
    parser.add_argument("--force", action="store_true", help="build again even when the cache has it")


def _run_lab(args: argparse.Namespace) -> None:
    from .lab import load_lab, render_lab

    lab = load_lab(cache_dir=args.cache_dir, seed=args.seed, force=args.force, world=args.world)
    print(render_lab(lab))


def _run_methods(args: argparse.Namespace) -> None:
    from .catalog import render_methods

    print(render_methods())


def _train_judge_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output_dir", required=True, help="folder for the judge, its tokenizer and judge.json")
    parser.add_argument(
        "--dataset", help="file, saved folder or Hub dataset of comments (default: the lab's comments, made offline)"
    )
    parser.add_argument("--text_column", help="column of the comments (default: text or comment_text)")
    parser.add_argument(
        "--label_columns",
        nargs="+",
        metavar="COLUMN",
        help="columns of 0 and 1, each a harmful label (default: Jigsaw's six, else harmful, else label)",
    )
    parser.add_argument(
        "--base", help="encoder to start from, e.g. bert-base-uncased (default: a tiny BERT from nothing)"
    )
    parser.add_argument("--epochs", type=int, help="default: 5 with a base, 20 without")
    parser.add_argument("--learning_rate", type=float, help="default: 5e-5 with a base, 1e-3 without")
    parser.add_argument("--batch_size", type=int, default=32, help="rows of one step (default: 32)")
    parser.add_argument("--max_length", type=int, default=128, help="tokens of a comment that are read (default: 128)")
    parser.add_argument("--heldout", type=float, default=0.1, help="share kept to measure the judge on (default: 0.1)")
    parser.add_argument("--seed", type=int, default=0, help="of sample, split, weights and order of rows (default: 0)")
    parser.add_argument("--limit", type=int, help="use at most this many rows, drawn at random (default: all)")


def _run_train_judge(args: argparse.Namespace) -> None:
    from .data.checks import check_limit
    from .data.sources import load_rows
    from .evaluation.judge_training import JudgeArguments, render_judge, train_judge
    from .lab.comments import lab_comments

    given = dict(vars(args))
    dataset, limit, output_dir = given.pop("dataset"), given.pop("limit"), given.pop("output_dir")
    arguments = JudgeArguments(**{name: value for name, value in given.items() if name != "verb"})
    check_limit(limit)
    if dataset is None:
        comments = lab_comments(args.seed)
        rows = comments if limit is None else comments.select(range(min(limit, len(comments))))
    else:
        rows = load_rows(dataset, limit=limit, seed=None if limit is None else args.seed)
    print(render_judge(train_judge(rows, output_dir, arguments)))


VERBS = {
    "lab": Verb(
        "build (once) and describe the small offline models and data to try things on", _lab_arguments, _run_lab
    ),
    "methods": Verb(
        "list losses, step wrappers and weightings: name, formula, arguments, needs, what they work with, paper",
        lambda parser: None,
        _run_methods,
    ),
    "train-judge": Verb(
        "train a classifier of harmful text on labelled comments, and measure it on held-out ones",
        _train_judge_arguments,
        _run_train_judge,
    ),
}


def make_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = argparse.ArgumentParser(prog="hf-unlearn", description="Make a language model forget.")
    verbs = parser.add_subparsers(title="commands", dest="verb", required=True, metavar="COMMAND")
    for name, verb in VERBS.items():
        verb.add_arguments(verbs.add_parser(name, help=verb.help, description=verb.help.capitalize() + "."))
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; user errors end with their text on standard error and status 2."""
    args = make_parser().parse_args(arguments)
    try:
        VERBS[args.verb].run(args)
        sys.stdout.flush()
    except ValueError as error:
        print(f"hf-unlearn {args.verb}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # `hf-unlearn methods | head`: nobody reads on, and Python's own flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
