"""Finds published logs, tells whose they are, and reads them."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import input_error
from .open_unlearning import NAMES, open_unlearning_row
from .row import PublishedRow
from .tables import csv_rows, is_table, tofu_log_row

_TOFU_LOG = "eval_log_aggregated.json"
_OPEN_LOGS = ("TOFU_EVAL.json", "TOFU_SUMMARY.json", "MUSE_EVAL.json", "MUSE_SUMMARY.json")
_PATTERNS = (*_OPEN_LOGS, f"*{_TOFU_LOG}", "*.csv")
_PASSED_OVER = ("eval_results", "evals", "eval")  # folders that say nothing of the model


def read_published(
    path: str | os.PathLike[str], *, retrained: str | os.PathLike[str] | None = None
) -> tuple[PublishedRow, ...]:
    """The figures in logs of OpenUnlearning, TOFU or MUSE, under this package's names of the metrics.

    Of OpenUnlearning `TOFU_EVAL.json`, `MUSE_EVAL.json` and their `SUMMARY` files; of TOFU `eval_log_aggregated.json`
    and the CSV of its aggregation; of MUSE the CSV of its evaluation. What a log lacks, and where its figures are not
    those that a suite here measures under the same name, stands in each row. Texts of rows are never kept.

    Args:
        path: a log, or a folder in which, at any depth, logs lie; an EVAL file stands for the SUMMARY beside it.
        retrained: the log of the model that was retrained without the forget rows, row by row. Gives TOFU's forget
            quality, also where a log has none.

    Raises:
        ValueError: nothing to read, a file of another kind, or logs of both models over different rows.
    """
    reference = None if retrained is None else _content(Path(retrained))
    rows: list[PublishedRow] = []
    for file in _logs(Path(path)):
        rows += _rows(file, reference)
    return tuple(rows)


def _logs(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted({file for pattern in _PATTERNS for file in path.rglob(pattern)}) if path.is_dir() else []
    whole = [file for file in found if not _passed_over(file)]
    if not whole:
        raise input_error(
            expected="a log of OpenUnlearning, TOFU or MUSE, or a folder of such",
            got=f"{path.name or path}: " + ("no log in it" if path.is_dir() else "no such file or folder"),
            why="there is nothing to put beside other figures",
            fix=f"pass one of {', '.join((*_OPEN_LOGS, _TOFU_LOG))}, or a CSV of TOFU or MUSE",
        )
    return whole


def _passed_over(file: Path) -> bool:
    """Whether a file of a folder is another's CSV, or a SUMMARY that says again what the EVAL beside it says."""
    if file.suffix == ".csv":
        return not is_table(_records(file))
    return file.name.endswith("_SUMMARY.json") and file.with_name(file.name.replace("SUMMARY", "EVAL")).is_file()


def _rows(file: Path, retrained: Mapping[str, Any] | None) -> tuple[PublishedRow, ...]:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if file.suffix == ".csv":
        return csv_rows(_records(file), file.stem, digest)
    content = _content(file)
    if any(key.startswith("eval_") and key.endswith(".json") for key in content):
        return (tofu_log_row(content, _name(file), digest, retrained),)
    return (open_unlearning_row(content, _name(file), _suite(file, content), digest, retrained),)


def _records(file: Path) -> list[dict[str, str]]:
    with io.StringIO(_text(file), newline="") as stream:
        return list(csv.DictReader(stream))


def _suite(file: Path, content: Mapping[str, Any]) -> str:
    """TOFU or MUSE, by the file's name, else by which of the two has more of its metrics."""
    for suite in NAMES:
        if file.name.lower().startswith(suite):
            return suite
    return max(NAMES, key=lambda suite: len(NAMES[suite].keys() & content.keys()))


def _name(file: Path) -> str:
    """Of the model: the nearest folders that say something of it, or what a renamed file adds to the usual name."""
    if file.name not in (*_OPEN_LOGS, _TOFU_LOG):
        return file.stem.removesuffix(f"_{Path(_TOFU_LOG).stem}")
    folders = [
        part
        for part in file.absolute().parent.parts
        if part not in _PASSED_OVER and not part.startswith(("ds_size", os.sep))
    ]
    last = folders[-1] if folders else file.stem
    return f"{folders[-2]}/{last}" if last.startswith("checkpoint-") and len(folders) > 1 else last


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(_text(file))
    except json.JSONDecodeError as error:
        raise _unreadable(file, f"broken JSON in line {error.lineno}") from None
    if not isinstance(content, dict):
        raise _unreadable(file, f"JSON of another kind, {type(content).__name__}")
    return content


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise _unreadable(file, "no text in UTF-8") from None
    except OSError as error:
        raise _unreadable(file, error.strerror or "a file that cannot be opened") from None


def _unreadable(file: Path, got: str) -> ValueError:
    return input_error(
        expected=f"{file.name} to be a log of OpenUnlearning, TOFU or MUSE",
        got=got,
        why="its figures cannot be told",
        fix="pass the file as the evaluation wrote it, after it has ended",
    )
