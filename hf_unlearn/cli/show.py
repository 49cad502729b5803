"""`hf-unlearn show`: the first rows of a set as they are trained, in colours on a terminal."""

import argparse
import dataclasses
from typing import Any

from .command import Verb, add_json, tell

_SETS = ("forget", "retain", "holdout", "eval")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Row options are those of hf-unlearn train, and rows are encoded by the training's own code; hf-unlearn train "
        "--config RECIPE --show_rows 3 shows the sets of a run. Nothing is written to a file."
    )
    parser.add_argument("rows", metavar="ROWS", help="file, folder of save_to_disk, or dataset on the Hub")
    parser.add_argument("--model", required=True, metavar="MODEL", help="folder or Hub id; only its tokenizer is read")
    parser.add_argument("--model_revision", metavar="REVISION", help="of a model on the Hub")
    parser.add_argument("--limit", type=int, default=3, metavar="N", help="rows to show (default: 3)")
    parser.add_argument("--set", choices=_SETS, default="forget", help="what the rows are to be (default: forget)")
    parser.add_argument("--name", metavar="NAME", help="configuration of a dataset on the Hub")
    parser.add_argument("--split", default="train", metavar="SPLIT", help="split of the dataset (default: train)")
    parser.add_argument("--revision", metavar="REVISION", help="of a dataset on the Hub")
    parser.add_argument("--columns", metavar="JSON", help='old column name to new: {"question": "prompt"}')
    parser.add_argument("--max_length", type=int, default=1024, metavar="N", help="tokens of a row (default: 1024)")
    parser.add_argument("--template", metavar="TEXT", help="text of a row, with {prompt} and {completion}")
    parser.add_argument("--chat_template_kwargs", metavar="JSON", help='variables: {"enable_thinking": false}')
    add_json(parser)


def _run(args: argparse.Namespace) -> None:
    from ..data.chat_template import check_template_kwargs
    from ..data.checks import check_limit, check_max_length, check_template
    from ..data.prepare import RowOptions
    from ..data.sources import load_rows
    from ..model.loading import load_tokenizer
    from ..tasks.shown_rows import print_text, render_set, show_set, wants_colour
    from ..tasks.task import require_model

    check_limit(args.limit)
    check_max_length(args.max_length)
    check_template(args.template)
    kwargs = _json("chat_template_kwargs", args.chat_template_kwargs)
    check_template_kwargs(kwargs)
    columns = _json("columns", args.columns)
    require_model(args.model)
    rows = load_rows(args.rows, name=args.name, split=args.split, revision=args.revision, columns=columns)
    tokenizer = load_tokenizer(args.model, args.model_revision)
    options = RowOptions(tokenizer, args.max_length, args.template, None, chat_template_kwargs=kwargs)
    shown = show_set(rows, options, args.set, args.limit)
    if args.json:
        return tell(args, "", dataclasses.asdict(shown))
    return print_text(render_set(shown, options, colour=wants_colour(args.out)), args.out)


def _json(argument: str, text: str | None) -> dict[str, Any] | None:
    """The mapping that an argument holds.

    Raises:
        ValueError: no JSON, or JSON of something else.
    """
    import json

    from ..errors import value_error

    try:
        value = None if text is None else json.loads(text)
    except json.JSONDecodeError:
        value = text
    if value is not None and not isinstance(value, dict):
        raise value_error(f"--{argument}", "a JSON object", text)
    return value


SHOW = Verb("show the first rows of a set as they are trained, in colours", _arguments, _run)
