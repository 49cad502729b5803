"""`hf-unlearn train-judge`: trains a classifier of harmful text."""

import argparse
import dataclasses

from .command import Verb


def _arguments(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument("--epochs", type=int, help="default: 5 with a base, 8 without")
    parser.add_argument("--learning_rate", type=float, help="default: 5e-5 with a base, 2e-3 without")
    parser.add_argument("--batch_size", type=int, default=32, help="rows of one step (default: 32)")
    parser.add_argument("--max_length", type=int, default=128, help="tokens of a comment that are read (default: 128)")
    parser.add_argument("--heldout", type=float, default=0.1, help="share kept to measure the judge on (default: 0.1)")
    parser.add_argument("--seed", type=int, default=0, help="of sample, split, weights and order of rows (default: 0)")
    parser.add_argument("--limit", type=int, help="use at most this many rows, drawn at random (default: all)")


def _run(args: argparse.Namespace) -> None:
    from ..data.checks import check_limit
    from ..data.sources import load_rows
    from ..evaluation.judges.training import JudgeArguments, render_judge, train_judge
    from ..lab.comments import lab_comments

    arguments = JudgeArguments(
        **{argument.name: getattr(args, argument.name) for argument in dataclasses.fields(JudgeArguments)}
    )
    check_limit(args.limit)
    if args.dataset is None:
        comments = lab_comments(args.seed)
        rows = comments if args.limit is None else comments.select(range(min(args.limit, len(comments))))
    else:
        rows = load_rows(args.dataset, limit=args.limit, seed=None if args.limit is None else args.seed)
    print(render_judge(train_judge(rows, args.output_dir, arguments)))


TRAIN_JUDGE = Verb("train a classifier of harmful text on labelled comments", _arguments, _run)
