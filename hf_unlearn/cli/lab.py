"""`hf-unlearn lab`: builds the small offline models and data, and prints their paths and rates."""

import argparse
import json

from .command import Verb, add_json, tell


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--world", default="games", help="what is to be forgotten: games, people or books (default: games)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the rows and of both models (default: 0)")
    parser.add_argument("--cache_dir", help="folder to build in (default: inside the Hugging Face cache)")
    parser.add_argument(
        "--checkpoint",
        action="store_true",
        help="other models, with a checkpoint from before the forget rows, for edits that start from one",
    )
    parser.add_argument(
        "--rows",
        metavar="NAME",
        help="write the rows about an invented person; `names` lists those who may ask",
    )
    parser.add_argument("--output", metavar="FILE", help="of --rows, JSON lines (default: the name with dashes)")
    parser.add_argument("--force", action="store_true", help="build again even when the cache has it")
    add_json(parser)


def _run(args: argparse.Namespace) -> None:
    from ..lab import load_lab, render_lab

    if args.rows is not None:
        _rows(args)
        return
    lab = load_lab(
        cache_dir=args.cache_dir, seed=args.seed, force=args.force, world=args.world, checkpoint=args.checkpoint
    )
    data = {
        "world": lab.world,
        "seed": lab.seed,
        "model": str(lab.model_path),
        "oracle": str(lab.oracle_path),
        **({"checkpoint": str(lab.checkpoint_path)} if args.checkpoint else {}),
        "rows": {name: rows.num_rows for name, rows in lab.datasets.items()},
        "checks": lab.checks,
    }
    tell(args, render_lab(lab), data)


def _rows(args: argparse.Namespace) -> None:
    """Write the rows about a person of the lab, as somebody who asks to be deleted would bring them."""
    from pathlib import Path

    from ..errors import require_choice
    from ..lab import load_lab
    from ..lab.people import rows_by_person

    people = rows_by_person(load_lab(cache_dir=args.cache_dir, seed=args.seed, world="people").datasets["forget"])
    if args.rows == "names":
        tell(args, "\n".join(people), list(people))
        return
    require_choice("--rows", args.rows, [*people, "names"])
    file = Path(args.output or f"{args.rows.lower().replace(' ', '-')}.jsonl")
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in people[args.rows]]
    file.write_text("".join(lines), encoding="utf-8")
    tell(args, f"{file}: {len(lines)} rows", {"file": str(file), "rows": len(lines)})


LAB = Verb("build and describe the small offline models and data", _arguments, _run)
