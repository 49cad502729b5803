"""MUSE's sets from the Hub, a folder or memory: excerpts, questions with examples, forget sets of several sizes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import datasets

from ..errors import input_error, nearest, require_choice, require_range
from .benchmark_rows import checked_columns, missing_set, split_files
from .books import text_rows
from .checks import check_limit
from .sources import load_rows

Source: TypeAlias = str | Path | Mapping[str, Any]

# Corpus -> where it is published.
HUB = {"news": "muse-bench/MUSE-News", "books": "muse-bench/MUSE-Books"}
_SIZES = (1, 2, 3, 4)
# What can be asked to be forgotten: the forget set; larger and larger ones; and one request after the other.
PARTS = ("forget", *(f"scal_{k}" for k in _SIZES), *(f"sust_{k}" for k in _SIZES))
_QA, _TEXT = ("question", "answer"), ("text",)
# Attribute of MuseData -> configuration, split, columns.
_SETS = {
    "verbatim": ("verbmem", "forget", ("prompt", "gt")),
    "forget_qa": ("knowmem", "forget_qa", _QA),
    "retain_qa": ("knowmem", "retain_qa", _QA),
    "forget_examples": ("knowmem", "forget_qa_icl", _QA),
    "retain_examples": ("knowmem", "retain_qa_icl", _QA),
    "forget": ("privleak", "forget", _TEXT),
    "retain": ("privleak", "retain", _TEXT),
    "holdout": ("privleak", "holdout", _TEXT),
}
SET_OF_HOLDOUT = "/".join(_SETS["holdout"][:2])
_EXAMPLES = ("forget_examples", "retain_examples")
# Splits as the first uploads and the first repository of the code call them.
_FORMER_NAMES = {"retain_qa": "retain2_qa", "retain_qa_icl": "retain2_qa_icl", "retain": "retain2"}


@dataclass(frozen=True)
class MuseData:
    """What MUSE is evaluated on.

    Attributes:
        verbatim: `prompt`, the start of an excerpt of the forget texts, and `gt`, how it goes on.
        forget_qa: `question` and `answer` about the forget texts.
        retain_qa: about texts to keep.
        forget_examples: questions that are put before each of `forget_qa` with their answers.
        retain_examples: likewise.
        forget: `text`, excerpts of the forget texts.
        retain: of texts to keep.
        holdout: of texts that no model has seen.
        request: the texts of another part than the forget set; None where the part is "forget".
    """

    verbatim: datasets.Dataset
    forget_qa: datasets.Dataset
    retain_qa: datasets.Dataset
    forget_examples: datasets.Dataset
    retain_examples: datasets.Dataset
    forget: datasets.Dataset
    retain: datasets.Dataset
    holdout: datasets.Dataset
    request: datasets.Dataset | None = None


def load_muse(
    source: Source | None = None,
    corpus: str = "news",
    *,
    part: str = "forget",
    limit: int | None = None,
    revision: str | None = None,
) -> MuseData:
    """Load the sets that MUSE is evaluated on.

    Args:
        source: the id of a dataset on the Hub; a folder with `<configuration>/<split>.json` (or .jsonl, .parquet, or
            the shards that the Hub keeps: `<split>-00000-of-00001.parquet`); or a mapping from
            "<configuration>/<split>" to rows. A file of texts may be a JSON array of strings. None: the corpus on the
            Hub. Configurations: `verbmem`, `knowmem`, `privleak`, and `scal` or `sust` for these parts.
        corpus: "news" or "books".
        part: what the model was to forget: "forget"; "scal_1" to "scal_4", forget sets of which each holds the one
            before; "sust_1" to "sust_4", requests one after the other, disjoint. Only of the news.
        limit: at most this many rows of each set, the first ones; the examples stay whole.
        revision: commit, branch or tag of a Hub dataset.

    Raises:
        ValueError: an unknown corpus or part, a set, file or column that is missing, or a row with an empty text.

    Source: Shi et al. 2407.06460.
    """
    source = _checked_source(source, corpus, part)
    check_limit(limit)
    data = MuseData(
        **{name: _set(source, *where, revision) for name, where in _SETS.items()},
        request=None if part == "forget" else _set(source, *_where(part), _TEXT, revision),
    )
    if limit is None:
        return data
    sets = {field.name: getattr(data, field.name) for field in fields(data) if field.name not in _EXAMPLES}
    return replace(
        data, **{name: rows.select(range(min(limit, len(rows)))) for name, rows in sets.items() if rows is not None}
    )


def sets_of(data: MuseData, part: str = "forget") -> dict[str, datasets.Dataset]:
    """The sets by "<configuration>/<split>", as `load_muse` takes them again: with some of them put in their place."""
    sets = {"/".join(where): getattr(data, name) for name, (*where, _) in _SETS.items()}
    return sets if data.request is None else sets | {"/".join(_where(part)): data.request}


def training_sets(
    source: Source | None = None,
    corpus: str = "news",
    *,
    part: str = "forget",
    passage_characters: int | None = None,
    revision: str | None = None,
) -> dict[str, datasets.Dataset]:
    """The texts to train on, as `UnlearningTrainer(train_dataset=...)` takes them.

    Those of the books are whole novels, far longer than what a trainer keeps of a row: `passage_characters`.

    Args:
        source: as in `load_muse`, with the configurations `raw` (`forget`, `retain1`), `scal` and `sust`.
        corpus, part, revision: as in `load_muse`.
        passage_characters: longer texts are cut into passages of about this length (`data.books.text_rows`); None
            leaves them whole.

    Returns:
        "forget", the texts of the part, and "retain", those that the paper regularises with; a column `text`.

    Raises:
        ValueError: as `load_muse`.
    """
    source = _checked_source(source, corpus, part)
    if passage_characters is not None:
        require_range("passage_characters", passage_characters, at_least=2, whole=True)
    sets = {
        "forget": _set(source, *_where(part), _TEXT, revision),
        "retain": _set(source, "raw", "retain1", _TEXT, revision),
    }
    return {name: _passages(rows, passage_characters) for name, rows in sets.items()}


def _passages(rows: datasets.Dataset, characters: int | None) -> datasets.Dataset:
    """The texts in passages; those that are short enough as they are, with their line breaks."""
    texts = rows["text"][:]
    if characters is None or all(len(text) <= characters for text in texts):
        return rows

    def cut(batch: dict[str, list[str]]) -> dict[str, list[str]]:
        pieces = (
            [text] if len(text) <= characters else text_rows(f"{text}\n", passage_characters=characters)["text"][:]
            for text in batch["text"]
        )
        return {"text": [piece for text in pieces for piece in text]}

    return rows.map(cut, batched=True, keep_in_memory=True)  # it keeps where the rows came from


def _checked_source(source: Source | None, corpus: str, part: str) -> Source:
    """The source, that of the corpus where none is given."""
    require_choice("corpus", corpus, HUB)
    require_choice("part", part, PARTS)
    others = {hub_id: name for name, hub_id in HUB.items() if name != corpus}
    if isinstance(source, str) and source in others:
        raise input_error(
            expected=f"corpus={others[source]!r} with source={source!r}",
            got=f"corpus={corpus!r}",
            why="the published figures of the two corpora are set against different retrained models",
            fix=f"pass corpus={others[source]!r}, or leave the source out",
        )
    if part != "forget" and corpus != "news":
        raise input_error(
            expected=f"part='forget' of the corpus {corpus!r}",
            got=f"part={part!r}",
            why="forget sets of several sizes and sequences of requests are published of the news alone",
            fix="leave part out, or pass corpus='news'",
        )
    return HUB[corpus] if source is None else source


def _where(part: str) -> tuple[str, str]:
    """The configuration and split with the texts of a part."""
    kind, _, number = part.partition("_")
    return ("raw", "forget") if not number else (kind, f"forget_{number}")


def _set(
    source: Source, configuration: str, split: str, columns: tuple[str, ...], revision: str | None
) -> datasets.Dataset:
    """The rows of a split, with the columns that are read, checked."""
    rows = _rows(source, configuration, split, revision)
    return checked_columns(rows, columns, f"{configuration}/{split}", "MUSE")


def _rows(source: Source, configuration: str, split: str, revision: str | None) -> datasets.Dataset:
    """The rows of a split, with all their columns."""
    names = [name for name in (split, _FORMER_NAMES.get(split)) if name is not None]
    if isinstance(source, Mapping):
        keys = [f"{configuration}/{name}" for name in names]
        found = next((source[key] for key in keys if key in source), None)
        if found is None:
            got = f"a mapping with {', '.join(sorted(source)) or 'nothing'}"
            raise missing_set("MUSE", keys[0], got, nearest(keys[0], source))
        return found if isinstance(found, datasets.Dataset) else datasets.Dataset.from_list(list(found))
    folder = Path(source).expanduser()
    if not folder.is_dir():
        return load_rows(source, name=configuration, split=split, revision=revision)
    for name in names:
        if files := split_files(folder / configuration, name):
            return datasets.concatenate_datasets([_file_rows(file) for file in files])
    raise missing_set(
        "MUSE",
        f"{configuration}/{split}",
        f"{str(folder)!r} without {configuration}/{split}.json",
        "download the dataset's repository whole, or add the file",
    )


def _file_rows(file: Path) -> datasets.Dataset:
    """The rows of a file; the published code keeps texts as a JSON array of strings, which is no file of rows."""
    if file.suffix == ".json":
        with file.open(encoding="utf-8-sig") as opened:
            start = opened.read(64).replace(" ", "").replace("\n", "")
        if start.startswith('["'):
            texts = json.loads(file.read_text(encoding="utf-8-sig"))
            return datasets.Dataset.from_dict({"text": texts})
    return load_rows(file)
