"""Arguments of tasks on rows of one's own: rows to forget and to keep, as files, saved folders or Hub datasets."""

import json
from dataclasses import dataclass, field

from datasets import Dataset

from ..data.formats import detect_format
from ..data.row_cache import RowCache
from ..data.sources import READERS, load_rows
from ..errors import input_error, require_choice
from .arguments import RunArguments
from .generated_retain import Answerer
from .task import first


def _parse_columns(argument: str, text: str) -> dict[str, str]:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise input_error(
            expected=f"{argument} as a JSON object",
            got=f"text that is no JSON ({error.msg} at character {error.pos})",
            why="it says which columns hold prompt and answer",
            fix=f"""pass --{argument} '{{"question": "prompt", "answer": "completion"}}'""",
        ) from None


@dataclass
class RowSetArguments(RunArguments):
    """What to forget and to keep.

    A dataset is a .jsonl, .json, .csv, .parquet or .txt file, a folder written by save_to_disk, or a Hub id.
    """

    forget_dataset: str | None = field(default=None, metadata={"help": "Rows to forget; none: the lab."})
    forget_name: str | None = field(default=None, metadata={"help": "Configuration of a forget dataset on the Hub."})
    forget_split: str = field(default="train", metadata={"help": "Split of the forget dataset."})
    forget_revision: str | None = field(default=None, metadata={"help": "Revision of a forget dataset on the Hub."})
    forget_reader: str = field(
        default="rows", metadata={"help": "Its columns: rows, or pku_saferlhf (unsafe answers)."}
    )
    forget_columns: dict | str | None = field(default=None, metadata={"help": "JSON, old column name to new."})
    retain_dataset: str | None = field(default=None, metadata={"help": "Rows to keep."})
    retain_prompts: str | None = field(
        default=None,
        metadata={
            "help": "Prompts outside of what is to be forgotten, in place of --retain_dataset: the greedy answers of "
            "the model before unlearning are the rows to keep."
        },
    )
    retain_name: str | None = field(default=None, metadata={"help": "Configuration of a retain dataset on the Hub."})
    retain_split: str = field(default="train", metadata={"help": "Split of the retain dataset."})
    retain_revision: str | None = field(default=None, metadata={"help": "Revision of a retain dataset on the Hub."})
    retain_reader: str = field(default="rows", metadata={"help": "Its columns: rows, or truthfulqa (best answers)."})
    retain_columns: dict | str | None = field(default=None, metadata={"help": "JSON, old column name to new."})
    holdout_dataset: str | None = field(
        default=None, metadata={"help": "Rows like the forget rows that the model has never seen."}
    )
    holdout_columns: dict | str | None = field(
        default=None, metadata={"help": "JSON, old column name to new; none: those of --forget_columns."}
    )

    _VALID_DICT_FIELDS = ["forget_columns", "retain_columns", "holdout_columns"]

    def __post_init__(self) -> None:
        for name in self._VALID_DICT_FIELDS:
            if isinstance(getattr(self, name), str):
                setattr(self, name, _parse_columns(name, getattr(self, name)))
        for name in ("forget_reader", "retain_reader"):
            require_choice(name, getattr(self, name), READERS)


def load_sets(
    script: RowSetArguments,
    model: str | None,
    cache: RowCache,
    answerer: Answerer | None = None,
    *,
    forget: Dataset | None = None,
) -> dict[str, Dataset]:
    """The sets that the arguments name, by role.

    Args:
        script: names the sets.
        model: that forgets, None where none is named.
        cache: of the run, for the rows of files and those that the model generates.
        answerer: generates rows to keep, where only their prompts are named.
        forget: rows to forget that do not come from a file.

    Raises:
        ValueError: forget rows without a model or without rows to keep, or rows that cannot be read.
    """
    _require_named(script, model, given=forget is not None)
    kept = script.retain_dataset or script.retain_prompts
    assert kept is not None
    forget = _forget_rows(script, cache) if forget is None else forget
    detect_format(forget.column_names, "forget", "forget_columns")
    retain = load_rows(
        kept,
        name=script.retain_name,
        split=script.retain_split,
        revision=script.retain_revision,
        columns=script.retain_columns,  # type: ignore[arg-type]
        cache_dir=cache.folder,
    )
    if script.retain_dataset is None:
        assert answerer is not None
        retain = answerer.retain_rows(first(retain, script.limit), forget, cache)
    else:
        retain = READERS[script.retain_reader](retain)
    sets = {"forget": forget, "retain": retain}
    if script.holdout_dataset is not None:
        columns = script.forget_columns if script.holdout_columns is None else script.holdout_columns
        holdout = load_rows(script.holdout_dataset, columns=columns, cache_dir=cache.folder)  # type: ignore[arg-type]
        sets["holdout"] = READERS[script.forget_reader](holdout)
    for name, rows in sets.items():  # here, where the advice can be given in the words of the command line
        detect_format(rows.column_names, name, f"{name}_columns")
    return {name: first(rows, script.limit) for name, rows in sets.items()}


def _forget_rows(script: RowSetArguments, cache: RowCache) -> Dataset:
    assert script.forget_dataset is not None
    rows = load_rows(
        script.forget_dataset,
        name=script.forget_name,
        split=script.forget_split,
        revision=script.forget_revision,
        columns=script.forget_columns,  # type: ignore[arg-type]  # decoded in __post_init__
        cache_dir=cache.folder,
    )
    return READERS[script.forget_reader](rows)


def _require_named(script: RowSetArguments, model: str | None, *, given: bool) -> None:
    """Raise where the model, the rows to forget or those to keep are not named, or those to keep twice."""
    if script.retain_dataset is not None and script.retain_prompts is not None:
        raise input_error(
            expected="--retain_dataset or --retain_prompts",
            got="both",
            why="the rows to keep are given, or the model is asked for them",
            fix="leave one of them out; rows of your own are the better ones",
        )
    kept = script.retain_dataset or script.retain_prompts
    if model is None or kept is None or (script.forget_dataset is None and not given):
        raise input_error(
            expected="--model_name_or_path and --retain_dataset together with --forget_dataset",
            got="no model" if model is None else f"no {'retain' if kept is None else 'forget'} dataset",
            why="the lab's model and rows have nothing to do with your data",
            fix="add them (--retain_prompts where you have prompts alone), or leave out --forget_dataset to run on "
            "the lab",
        )
