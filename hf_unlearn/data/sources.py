"""Rows from files, saved folders and the Hub, and two public sets in the package's columns."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import datasets
import pyarrow
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from ..errors import input_error, require_choice
from .checks import check_limit, require_columns
from .file_checks import broken_line, csv_header, require_json_rows, require_utf8, unreadable
from .provenance import from_hub
from .renaming import check_renaming, renamed
from .row_cache import file_errors_told, unwritten

# File ending -> name of the datasets builder that reads it.
_BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}
# What Dataset.save_to_disk and DatasetDict.save_to_disk leave in a folder.
_SAVED_MARKS = ("state.json", "dataset_dict.json")
# Why a column has to be there, in errors.
_ROWS = "its values become the rows"

_PROMPT_COMPLETION = datasets.Features({"prompt": datasets.Value("string"), "completion": datasets.Value("string")})


def load_rows(
    source: str | Path,
    *,
    split: str = "train",
    name: str | None = None,
    revision: str | None = None,
    data_dir: str | None = None,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    seed: int | None = None,
    text_unit: Literal["line", "paragraph"] = "line",
    cache_dir: str | Path | None = None,
) -> datasets.Dataset:
    """Load the rows of one set.

    Args:
        source: a .jsonl, .json (one array, or JSON Lines), .csv, .parquet or .txt file, UTF-8 with or without a
            byte-order mark; a folder written by `save_to_disk`; or the id of a dataset on the Hub. Every value of a
            csv is a string.
        split: split of a Hub dataset or saved DatasetDict; a file has only "train". Slices ("train[:100]") work for
            files and the Hub.
        name: configuration of a Hub dataset.
        revision: commit, branch or tag of a Hub dataset.
        data_dir: folder of a Hub dataset.
        columns: old name -> new name, e.g. {"question": "prompt", "answer": "completion"}; other columns are dropped,
            but for a `prompt` or `completion` whose other half is renamed.
            Columns of one new name ({"instruction": "prompt", "input": "prompt"}) are joined in this order, a newline
            between them; empty ones leave nothing behind. None keeps all as they are.
        limit: at most this many rows.
        seed: shuffles the rows before the limit; None takes the first ones.
        text_unit: what a row of a .txt file is: a line, or a paragraph (paragraphs end with an empty line). Blank ones
            are left out; the column is `text`.
        cache_dir: folder for the rows of a file as Arrow keeps them, for sets that do not fit into memory: whoever can
            look into it can read them. None keeps them in memory, and nothing of a file is left on disk.

    Raises:
        ValueError: nothing is found at `source`, it cannot be read, or a column, split or limit does not fit it.
    """
    check_limit(limit)
    if columns is not None:
        check_renaming(columns)
    path = Path(source).expanduser()
    if path.is_file():
        rows = _load_file(path, split, text_unit, cache_dir)
    elif path.is_dir() and any((path / mark).is_file() for mark in _SAVED_MARKS):
        rows = _load_saved(path, split)
    else:
        _check_hub_id(source, path)
        rows = _load_hub(str(source), name, split=split, revision=revision, data_dir=data_dir)
    if columns is not None:
        rows = renamed(rows, columns)
    if seed is not None:
        rows = rows.shuffle(seed=seed, keep_in_memory=True)
    return rows if limit is None else rows.select(range(min(limit, len(rows))))


def pku_saferlhf_rows(dataset: datasets.Dataset) -> datasets.Dataset:
    """The forget rows of PKU-SafeRLHF: one for each response labelled unsafe.

    Args:
        dataset: columns `prompt`, and for i = 0, 1 `response_i` and `is_response_i_safe` (booleans).

    Returns:
        Columns `prompt` and `completion`; a prompt comes twice where both responses are unsafe, and not at all where
        none is.

    Raises:
        ValueError: a column is missing, or no response is labelled unsafe.

    Source: Ji et al., BeaverTails (2307.04657) and PKU-SafeRLHF (2406.15513).
    """
    needed = ["prompt", *(f"response_{i}" for i in (0, 1)), *(f"is_response_{i}_safe" for i in (0, 1))]
    require_columns(needed, dataset.column_names, why=_ROWS)

    def unsafe(batch: dict[str, list[Any]]) -> dict[str, list[str]]:
        pairs = [
            (prompt, batch[f"response_{i}"][row])
            for row, prompt in enumerate(batch["prompt"])
            for i in (0, 1)
            # Not `not safe`: a missing label (None) must not make a response harmful.
            if batch[f"is_response_{i}_safe"][row] is False
        ]
        return {"prompt": [prompt for prompt, _ in pairs], "completion": [answer for _, answer in pairs]}

    return _mapped(
        dataset.select_columns(needed), unsafe, "a response labelled unsafe (a label that is the boolean False)"
    )


def truthfulqa_rows(dataset: datasets.Dataset, which: Literal["best", "all_correct"] = "best") -> datasets.Dataset:
    """Questions of TruthfulQA with their true answers, as prompt/completion rows.

    Args:
        dataset: the csv's columns ("Question", "Best Answer", "Correct Answers" with ";" between answers) or the Hub's
            (`question`, `best_answer`, `correct_answers`).
        which: "best" for one row a question, "all_correct" for one row a correct answer.

    Raises:
        ValueError: a column is missing, `which` is another word, or there is no answer at all.

    Source: Lin et al. 2109.07958.
    """
    require_choice("which", which, ("best", "all_correct"))
    from_csv = "Question" in dataset.column_names
    question = "Question" if from_csv else "question"
    if which == "best":
        answers = "Best Answer" if from_csv else "best_answer"
    else:
        answers = "Correct Answers" if from_csv else "correct_answers"
    require_columns([question, answers], dataset.column_names, why=_ROWS)

    def answered(batch: dict[str, list[Any]]) -> dict[str, list[str]]:
        pairs = [
            (prompt.strip(), answer.strip())
            for prompt, given in zip(batch[question], batch[answers], strict=True)
            for answer in (_listed_answers(given) if which == "all_correct" else [given])
            if answer and answer.strip()
        ]
        return {"prompt": [prompt for prompt, _ in pairs], "completion": [answer for _, answer in pairs]}

    return _mapped(dataset.select_columns([question, answers]), answered, "an answer")


def _listed_answers(given: str | list[str]) -> list[str]:
    return given.split(";") if isinstance(given, str) else given


def _mapped(dataset: datasets.Dataset, make_rows: Any, what: str) -> datasets.Dataset:
    rows = dataset.map(
        make_rows,
        batched=True,
        remove_columns=dataset.column_names,
        features=_PROMPT_COMPLETION,
        keep_in_memory=True,  # beside the source they would outlive the run
    )
    if len(rows) == 0:
        raise input_error(
            expected=f"at least one row with {what}",
            got=f"none in {len(dataset)} rows",
            why="the set made from it would be empty",
            fix="check the split and the columns of the dataset",
        )
    return rows


def _load_file(path: Path, split: str, text_unit: str, cache_dir: str | Path | None) -> datasets.Dataset:
    builder = _BUILDERS.get(path.suffix.lower())
    if builder is None:
        raise input_error(
            expected=f"a file that ends in {', '.join(_BUILDERS)}",
            got=path.name,
            why="the ending says how to read it",
            fix="convert or rename the file",
        )
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError as error:
        raise unreadable(path, f"a file that cannot be opened ({error.strerror})") from None
    if not start.strip(b"\xef\xbb\xbf\r\n\t "):
        raise unreadable(path, "an empty file")
    if builder != "parquet":
        require_utf8(path)
    options: dict[str, Any] = {}
    if builder == "json":
        require_json_rows(path)
    elif builder == "csv":
        # Left to themselves, csv readers turn an answer "None" into a missing one and a year into a number.
        strings = datasets.Features({column: datasets.Value("string") for column in csv_header(path)})
        options = {"keep_default_na": False, "features": strings}
    elif builder == "text":
        options = {"encoding": "utf-8-sig", "sample_by": text_unit}
    rows = _read(builder, path, split, cache_dir, options)
    if builder == "text":
        with file_errors_told(f"the rows of {path}", cache_dir):
            rows = rows.filter(lambda row: bool(row["text"].strip()))
    if not len(rows) or not rows.column_names:
        raise unreadable(path, "a file without rows")
    return rows


def _read(builder: str, path: Path, split: str, cache_dir: str | Path | None, options: dict) -> datasets.Dataset:
    """The rows of a file, in a folder of the user's choice or in memory: never in the cache of `datasets`."""
    with tempfile.TemporaryDirectory(prefix="hf_unlearn_") as passing:  # only its owner can look into it
        try:
            return datasets.load_dataset(
                builder,
                data_files=str(path),
                split=split,
                cache_dir=str(passing if cache_dir is None else cache_dir),
                keep_in_memory=cache_dir is None,
                **options,
            )
        except (DatasetGenerationError, pyarrow.ArrowException, UnicodeError) as error:
            # Not chained: readers quote the line they stumble over.
            kind = type(error.__cause__ or error)
            if isinstance(error.__cause__, OSError):
                raise unwritten(f"the rows of {path}", cache_dir or passing, error.__cause__) from None
            line = broken_line(path) if builder == "json" else ""
            raise unreadable(path, f"a file the {builder} reader refuses ({kind.__name__}){line}") from None
        except ValueError as error:  # of a split that is not there, and of a file without a row
            if "no data" in str(error):
                raise unreadable(path, "a file without rows") from None
            if builder != "json" or "split" in str(error).lower():
                raise
            raise unreadable(path, f"a file the json reader refuses{broken_line(path)}") from None


def _load_saved(path: Path, split: str) -> datasets.Dataset:
    saved = datasets.load_from_disk(str(path))
    if isinstance(saved, datasets.Dataset):
        return saved
    require_choice("split", split, saved)
    return saved[split]


def _check_hub_id(source: str | Path, path: Path) -> None:
    """Raise for what is meant as a path, which the Hub would answer with a puzzle."""
    text = str(source)
    looks_local = isinstance(source, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1
    if looks_local or "\\" in text or path.suffix.lower() in _BUILDERS or path.is_dir():
        raise input_error(
            expected=f"a file ({', '.join(_BUILDERS)}), a folder written by save_to_disk, or the id of a Hub dataset",
            got=f"{text!r}, " + ("a folder without a saved dataset" if path.is_dir() else "where there is no file"),
            why="there are no rows to load",
            fix=f"check the path; looked for {path.absolute()}",
        )


def _load_hub(hub_id: str, name: str | None, **options: Any) -> datasets.Dataset:
    try:
        return from_hub(datasets.load_dataset(hub_id, name, **options), hub_id, options.get("revision"))
    except DatasetNotFoundError as error:
        raise input_error(
            expected="a file, a folder written by save_to_disk, or the id of a Hub dataset",
            got=f"{hub_id!r}, which is neither here nor on the Hub (or needs `hf auth login`)",
            why="there are no rows to load",
            fix="check the spelling, or the path if a file was meant",
        ) from error


# Name in a config -> what turns a set's own columns into prompt and completion.
READERS: dict[str, Callable[[datasets.Dataset], datasets.Dataset]] = {
    "rows": lambda rows: rows,
    "pku_saferlhf": pku_saferlhf_rows,
    "truthfulqa": truthfulqa_rows,
}
