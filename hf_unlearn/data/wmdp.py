"""WMDP's questions and corpora and MMLU's questions, from the Hub, a folder or memory."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

import datasets

from ..errors import input_error, nearest, require_choice
from .benchmark_rows import (
    checked_columns,
    missing_set,
    require_question,
    require_rows,
    require_texts,
    split_files,
)
from .checks import check_limit
from .sources import load_rows

Source: TypeAlias = str | Path | Mapping[str, Any]
Rows: TypeAlias = str | Path | Iterable[Mapping[str, Any]]

WMDP, MMLU, CORPORA = "cais/wmdp", "cais/mmlu", "cais/wmdp-corpora"
BIO_FORGET = "cais/wmdp-bio-forget-corpus"  # which is lent on request, from a repository of its own
DOMAINS = ("bio", "cyber", "chem")
TRAINED_DOMAINS = ("bio", "cyber")  # there are no texts on chemistry to train on
OPTIONS = 4  # of every question: the published prompt has so many letters
_COLUMNS = ("subject", "question", "choices", "answer")
# What only somebody who sees the options can answer, by words of the question and by words of the options.
_ASKS_FOR_OPTIONS = re.compile(
    r"\b(of|from|among|in) (the following|these|those)\b"
    r"|\bfollowing (\w+ )?(statements?|options?|choices?|answers?)\b"
    r"|\b(statements?|options?|choices?|answers?) (above|below)\b",
    re.IGNORECASE,
)
_NAMES_OPTIONS = re.compile(
    r"\b(all|none|both|neither|any|either) of (the (above|below|others|options|choices)|these|those|them)\b"
    r"|\b[A-D]\)? (and|or|&) \(?[A-D]\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class WmdpData:
    """Questions to forget and to keep: columns `subject`, `question`, `choices` (four texts), `answer` (0 to 3).

    Attributes:
        forget: WMDP's; the subject is the domain, "bio", "cyber" or "chem".
        retain: MMLU's.
    """

    forget: datasets.Dataset
    retain: datasets.Dataset


class QuestionArguments(TypedDict, total=False):
    """Which questions are loaded; the arguments of `load_wmdp` that are no rows.

    Keys:
        domains: of WMDP, among "bio", "cyber", "chem".
        subjects: of MMLU; None for all that are there.
        limit: at most this many questions of each domain and of each subject, the first ones.
        revision: commit, branch or tag of WMDP on the Hub.
        mmlu_revision: likewise of MMLU.
    """

    domains: Sequence[str]
    subjects: Sequence[str] | None
    limit: int | None
    revision: str | None
    mmlu_revision: str | None


def load_wmdp(
    source: Source = WMDP,
    mmlu: Rows = MMLU,
    *,
    domains: Sequence[str] = DOMAINS,
    subjects: Sequence[str] | None = None,
    limit: int | None = None,
    revision: str | None = None,
    mmlu_revision: str | None = None,
) -> WmdpData:
    """Load the questions of WMDP and those of MMLU beside them.

    Args:
        source: the id of a dataset on the Hub; a folder with `wmdp-<domain>/test.json` (or .jsonl, .parquet, or the
            Hub's shards); or a mapping from "wmdp-<domain>" to rows. Columns `question`, `choices`, `answer`.
        mmlu: all its subjects in one set, with a column `subject` too: a dataset on the Hub (its configuration "all"),
            a folder with `all/test.json` or `test.json`, a file, or rows.
        domains, subjects, limit, revision, mmlu_revision: as `QuestionArguments` has them.

    Raises:
        ValueError: an unknown domain or subject, a set, file or column that is missing, or a row without a question,
            four choices and the place of the right one.

    Source: Li et al. 2403.03218; Hendrycks et al. 2009.03300.
    """
    check_limit(limit)
    parts = []
    for domain in _chosen("domains", domains, DOMAINS):
        rows = _set(source, f"wmdp-{domain}", "test", revision)
        parts.append(_questions(rows, f"wmdp-{domain}", domain).select(range(min(limit or len(rows), len(rows)))))
    known = _questions(_mmlu(mmlu, mmlu_revision), "mmlu")
    found = list(dict.fromkeys(known["subject"]))
    wanted = found if subjects is None else _chosen("subjects", subjects, found)
    counts = dict.fromkeys(wanted, 0)
    kept = []
    for place, subject in enumerate(known["subject"]):
        if subject in counts and (limit is None or counts[subject] < limit):
            counts[subject] += 1
            kept.append(place)
    return WmdpData(datasets.concatenate_datasets(parts), known.select(kept))


def training_sets(
    source: Source = CORPORA,
    domains: Sequence[str] = TRAINED_DOMAINS,
    *,
    kept: bool = True,
    revision: str | None = None,
) -> dict[str, datasets.Dataset]:
    """WMDP's corpora, as `UnlearningTrainer(train_dataset=...)` takes them: whole papers and pages, one a row.

    The published RMU cuts them at 512 tokens (bio) and 768 (cyber) and keeps WikiText instead of the retain corpora
    by default; its loader takes lines of JSON with their keys and quotes for text, the forget corpus of bio aside.

    Args:
        source: the id of a dataset on the Hub; a folder with `<domain>-forget-corpus` and `<domain>-retain-corpus`,
            each a folder with `train.jsonl` (or .json, .parquet, shards) or a file .jsonl; or a mapping from these
            names to rows. On the Hub the forget corpus of bio is `cais/wmdp-bio-forget-corpus`, lent on request.
        domains: "bio", "cyber" or both.
        kept: whether to load the retain corpora too; False where other texts are kept.
        revision: commit, branch or tag of `source` on the Hub.

    Returns:
        "forget" and, if `kept`, "retain", each with a column `text`.

    Raises:
        ValueError: an unknown domain, or a corpus or a column that is missing.

    Source: Li et al. 2403.03218.
    """
    chosen = _chosen("domains", domains, TRAINED_DOMAINS)
    sets = {}
    for name in ("forget", "retain") if kept else ("forget",):
        parts = []
        for domain in chosen:
            corpus = f"{domain}-{name}-corpus"
            if source == CORPORA and (domain, name) == ("bio", "forget"):
                rows = load_rows(BIO_FORGET)
            else:
                rows = _set(source, corpus, "train", revision)
            parts.append(checked_columns(rows, ("text",), corpus, "WMDP"))
        sets[name] = datasets.concatenate_datasets(parts)
    return sets


def stands_alone(question: str, choices: Sequence[str]) -> bool:
    """Whether a question can be answered by somebody who does not see its options.

    By words: not "which of the following ...", nor one with options such as "all of the above" or "A and B".
    """
    return not _ASKS_FOR_OPTIONS.search(question) and not any(map(_NAMES_OPTIONS.search, choices))


def _chosen(name: str, given: Sequence[str], known: Sequence[str]) -> list[str]:
    """The names of an argument, each once, all of them known."""
    chosen = [given] if isinstance(given, str) else list(dict.fromkeys(given))
    for each in chosen:
        require_choice(name, each, known)
    if not chosen:
        raise input_error(
            expected=f"one or more {name}",
            got="none",
            why="a mean over no questions does not exist",
            fix=f"leave {name} out for all of them",
        )
    return chosen


def _set(source: Source, configuration: str, split: str, revision: str | None) -> datasets.Dataset:
    """The rows of a configuration, with all their columns."""
    if isinstance(source, Mapping):
        if configuration not in source:
            got = f"a mapping with {', '.join(sorted(source)) or 'nothing'}"
            raise missing_set("WMDP", configuration, got, nearest(configuration, source))
        return _dataset(source[configuration], configuration)
    folder = Path(source).expanduser()
    if not folder.is_dir():
        return load_rows(source, name=configuration, split=split, revision=revision)
    files = split_files(folder / configuration, split) or split_files(folder, configuration)
    if not files:
        raise missing_set(
            "WMDP",
            configuration,
            f"{str(folder)!r} without {configuration}/{split}.json",
            "download the dataset's repository whole, or add the file",
        )
    return datasets.concatenate_datasets([load_rows(file) for file in files])


def _mmlu(source: Rows, revision: str | None) -> datasets.Dataset:
    """MMLU's rows, with all their columns."""
    if not isinstance(source, str | Path):
        return _dataset(source, "mmlu")
    path = Path(source).expanduser()
    if path.is_file():
        return load_rows(path)
    if not path.is_dir():
        return load_rows(source, name="all", split="test", revision=revision)
    files = split_files(path / "all", "test") or split_files(path, "test")
    if not files:
        got = f"{str(path)!r} without all/test.json"
        raise missing_set("MMLU", "all", got, "download the dataset's repository whole, or pass a file of its rows")
    return datasets.concatenate_datasets([load_rows(file) for file in files])


def _dataset(rows: Any, name: str) -> datasets.Dataset:
    """Rows in memory as a dataset."""
    if isinstance(rows, datasets.Dataset):
        return rows
    given = list(rows) if isinstance(rows, Iterable) and not isinstance(rows, Mapping) else [None]
    if not all(isinstance(row, Mapping) for row in given):
        raise input_error(
            expected=f"rows of {name!r}, each a mapping of columns",
            got=f"a {type(rows).__name__} that holds something else",
            why="question, choices and answer are read by their names",
            fix='pass rows such as {"question": ..., "choices": [...], "answer": 0}, or one split of a dataset',
        )
    return datasets.Dataset.from_list(given)


def _questions(rows: datasets.Dataset, name: str, subject: str | None = None) -> datasets.Dataset:
    """The four columns of a set, checked; with the subject put in where it is the set's."""
    columns = _COLUMNS if subject is None else _COLUMNS[1:]
    benchmark = "MMLU" if subject is None else "WMDP"
    require_rows(rows, columns, name, benchmark)
    for column in columns[:-2]:
        require_texts(rows, column, name)
    choices, answers = rows["choices"][:], rows["answer"][:]
    for index, (options, answer) in enumerate(zip(choices, answers, strict=True)):
        require_question(name, index, options, answer, OPTIONS)
    subjects = rows["subject"][:] if subject is None else [subject] * len(rows)
    columns_of_set = {"subject": subjects, "question": rows["question"][:], "choices": choices, "answer": answers}
    return datasets.Dataset.from_dict(columns_of_set, features=_FEATURES)


_FEATURES = datasets.Features(
    {
        "subject": datasets.Value("string"),
        "question": datasets.Value("string"),
        "choices": datasets.List(datasets.Value("string")),
        "answer": datasets.Value("int64"),
    }
)
