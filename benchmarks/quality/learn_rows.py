"""Trains a small OPT from scratch on two sets of rows, and its oracle on one, for the task harmful on real text.

    python -m benchmarks.quality.learn_rows --output learnt --retain TruthfulQA.csv --retain_reader truthfulqa \
        --forget forget.jsonl --forget_columns '{"question": "prompt", "answer": "completion"}'

writes learnt/model (both sets), learnt/oracle (the retain set), and the rows as learnt/forget.jsonl and
learnt/retain.jsonl: columns prompt and completion, the prompt in the form "Question: ... Answer:". Nothing is
downloaded unless a set is named by a Hub id.
"""

import argparse
import json
from pathlib import Path

from datasets import Dataset

from hf_unlearn.data.sources import READERS, load_rows
from hf_unlearn.lab.training import Recipe, encode, reproducible, train_model, train_tokenizer


def read(path: str, columns: str | None, reader: str) -> list[dict[str, str]]:
    """Distinct rows of a set, in the lab's form."""
    loaded: Dataset = READERS[reader](load_rows(path, columns=json.loads(columns) if columns else None))
    distinct: dict[str, dict[str, str]] = {}
    for row in loaded:
        prompt = f"Question: {row['prompt'].strip()}\nAnswer:"
        # One answer a question: greedy decoding can give back only one.
        distinct.setdefault(prompt, {"prompt": prompt, "completion": " " + row["completion"].strip()})
    return list(distinct.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("forget", "retain"):
        parser.add_argument(f"--{name}", required=True, help=f"{name} rows: a file, a folder or a Hub id")
        parser.add_argument(f"--{name}_columns", help="JSON, old column name to new")
        parser.add_argument(f"--{name}_reader", default="rows", choices=sorted(READERS))
        parser.add_argument(f"--{name}_limit", type=int, default=200, help="rows to learn at most")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--hidden_size", type=int, default=160)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--vocabulary_size", type=int, default=2048)
    parser.add_argument("--max_length", type=int, default=192, help="longer rows are left out")
    parser.add_argument("--learning_rate", type=float, default=4e-3)
    args = parser.parse_args()
    recipe = Recipe(
        vocabulary_size=args.vocabulary_size,
        hidden_size=args.hidden_size,
        layers=args.layers,
        max_length=args.max_length,
        initial_standard_deviation=0.05,
        epochs=args.epochs,
        learning_rate=args.learning_rate,
    )
    sets = {
        name: read(getattr(args, name), getattr(args, f"{name}_columns"), getattr(args, f"{name}_reader"))
        for name in ("forget", "retain")
    }
    tokenizer = train_tokenizer([row["prompt"] + row["completion"] for rows in sets.values() for row in rows], recipe)
    args.output.mkdir(parents=True, exist_ok=True)
    for name, rows in sets.items():
        fitting = [row for row in rows if len(encode(row, tokenizer)[0]) <= args.max_length]
        sets[name] = fitting[: getattr(args, f"{name}_limit")]
        lines = [json.dumps(row) + "\n" for row in sets[name]]
        (args.output / f"{name}.jsonl").write_text("".join(lines))
        print(f"{name}: {len(sets[name])} rows")
    for name, rows in (("model", sets["forget"] + sets["retain"]), ("oracle", sets["retain"])):
        with reproducible(seed=0, threads=recipe.threads):
            model = train_model(rows, tokenizer, recipe, name)
        model.save_pretrained(args.output / name)
        tokenizer.save_pretrained(args.output / name)


if __name__ == "__main__":
    main()
