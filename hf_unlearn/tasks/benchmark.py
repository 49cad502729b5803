"""What the tasks of published benchmarks have in common: checks, texts to keep, lengths of answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from datasets import Dataset

from ..data.benchmark_rows import checked_columns
from ..data.sources import load_rows
from ..errors import input_error
from .arguments import Parsed, RunArguments
from .task import first


@dataclass
class KeptTextArguments(RunArguments):
    """Texts of one's own to keep, where the benchmark's are not wanted or there are none."""

    retain_dataset: str | None = field(
        default=None, metadata={"help": "Texts to keep in place of the benchmark's, such as WikiText."}
    )
    retain_name: str | None = field(default=None, metadata={"help": "Configuration of a retain dataset on the Hub."})
    retain_split: str = field(default="train", metadata={"help": "Split of the retain dataset."})


def benchmark_model(parsed: Parsed, hint: str) -> str:
    """The model that a run starts from.

    Args:
        parsed: arguments of the run.
        hint: what to name where no model is named.

    Raises:
        ValueError: no model, or a half of rows that the benchmark does not divide.
    """
    model: str | None = parsed.model.model_name_or_path
    if model is None:
        raise input_error(
            expected="--model_name_or_path",
            got="no model",
            why="the task has no model of its own",
            fix=f"add it: {hint}",
        )
    if parsed.script.evaluated_half is not None:
        raise input_error(
            expected="no --evaluated_half",
            got=repr(parsed.script.evaluated_half),
            why="the task measures on questions, which are no rows of the training sets and are not chosen by",
            fix="leave it out, or choose by one part of the benchmark and report on another",
        )
    return model


def own_texts(script: KeptTextArguments, benchmark: str) -> Dataset | None:
    """The texts of `--retain_dataset`, without empty ones; None where there is no such dataset."""
    if script.retain_dataset is None:
        return None
    rows = load_rows(script.retain_dataset, name=script.retain_name, split=script.retain_split)
    filled = rows.filter(lambda row: bool((row.get("text") or "").strip()))  # WikiText has empty lines
    return checked_columns(filled, ("text",), "retain_dataset", benchmark)


def first_of_each(sets: Mapping[str, Dataset | None], count: int | None) -> dict[str, Dataset]:
    """The first rows of each set that there is."""
    return {name: chosen for name, rows in sets.items() if (chosen := first(rows, count)) is not None}


def at_most(longest: int, asked: int | None) -> int:
    """The benchmark's longest answer in tokens, or the shorter one that is asked for."""
    return longest if asked is None else min(longest, asked)
