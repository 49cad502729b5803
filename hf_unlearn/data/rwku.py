"""RWKU's sets from the Hub, a folder or memory: probes about people to forget, neighbours, membership, utility."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import datasets

from ..errors import input_error, nearest, require_choice
from ..metrics.rwku import FORMS
from .benchmark_rows import bad_row, checked_columns, is_text, missing_set, require_rows, require_texts
from .checks import check_limit
from .rwku_utility import FACTUALITY, GENERAL, REASON, TRUTHFULNESS, UTILITY_COLUMNS, checked_utility
from .sources import load_rows

Source: TypeAlias = str | Path | Mapping[str, Any]

HUB = "jinzhuoran/RWKU"
FORGET_LEVELS = ("forget_level1", "forget_level2", "forget_level3")
PROBES = (*FORGET_LEVELS, "neighbor_level1", "neighbor_level2")
MEMBERSHIP = ("mia_forget", "mia_retain")
FLUENCY = "utility_fluency"
# The verdict weighs these two against each other; a benchmark without them is none.
NEEDED = ("forget_level2", "neighbor_level2")
_PROBE = ("query", "answer", "subject")
# Configuration -> the columns that are read.
_COLUMNS = {
    **dict.fromkeys(PROBES, _PROBE),
    "forget_level3": (*_PROBE, "type"),
    **dict.fromkeys(MEMBERSHIP, ("text",)),
    **UTILITY_COLUMNS,
    FLUENCY: ("instruction",),
}
# Configuration -> its file, where that has another name.
_FILES = {
    "mia_forget": "forget_mia",
    "mia_retain": "retain_mia",
    GENERAL: "retain_mmlu",
    REASON: "retain_bbh",
    TRUTHFULNESS: "truthful",
    FACTUALITY: "triviaqa",
    FLUENCY: "fluency",
    "train_original_passage": "passage",
    "train_positive_llama3": "positive",
    "train_negative_llama3": "negative",
    "train_positive_phi3": "positive_phi",
    "train_negative_phi3": "negative_phi",
    "train_pair_llama3": "pair",
    "train_pair_phi3": "pair_phi",
}
TRAINING = tuple(name for name in _FILES if name.startswith("train_"))
_PAIRS = ("train_pair_llama3", "train_pair_phi3")
_TRAINED_COLUMNS = {name: ("prompt", "response") if name in _PAIRS else ("text",) for name in TRAINING}
_ENDINGS = (".json", ".jsonl", ".parquet")


@dataclass(frozen=True)
class RwkuData:
    """What RWKU is evaluated on.

    Attributes:
        sets: by configuration: probes with `query`, `answer` and `subject`, those of `forget_level3` with their form
            in `type`; `text` of the membership sets; `instruction` of `utility_fluency`; the other utility sets with
            the columns of `UTILITY_COLUMNS`.
        missing: configurations that the source does not have, or not of the targets.
        targets: the subjects that were asked for; () for all.
    """

    sets: Mapping[str, datasets.Dataset]
    missing: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()


def load_rwku(
    source: Source = HUB,
    target: str | Sequence[str] | None = None,
    *,
    limit: int | None = None,
    revision: str | None = None,
) -> RwkuData:
    """Load the sets that RWKU is evaluated on.

    Args:
        source: the id of a dataset on the Hub; a folder with files named as the configurations or as the published
            ones (`forget_mia.json` for `mia_forget`), in itself, in `All/` or in a folder for each target; or a
            mapping from configurations to rows.
        target: the subject, or subjects, whose rows are taken; None for those of all.
        limit: at most this many rows of each set, and of each form of `forget_level3`, the first ones.
        revision: commit, branch or tag of a Hub dataset.

    Raises:
        ValueError: no `forget_level2` or `neighbor_level2`, an unknown subject, a missing column, an empty text, an
            unknown form, or a question without options or answers. A folder or a mapping may lack other sets.

    Source: Jin et al. 2406.10890.
    """
    check_limit(limit)
    targets = _targets(target)
    sets, missing = {}, []
    for name, columns in _COLUMNS.items():
        rows = _rows(source, name, revision, "test")
        if rows is None and name in NEEDED:
            raise _not_there(source, name)
        if rows is not None:
            read = (*columns, "subject") if targets and "subject" not in columns else columns
            check = checked_utility if name in UTILITY_COLUMNS else partial(checked_columns, benchmark="RWKU")
            rows = check(rows, read, name)
            rows = _about(rows, targets, name) if targets else rows
        if rows is None or len(rows) == 0:
            missing.append(name)
            continue
        sets[name] = _with_forms(rows, limit) if name == "forget_level3" else _first(rows, limit)
    return RwkuData(sets, tuple(missing), targets)


def training_rows(
    source: Source = HUB,
    target: str | Sequence[str] | None = None,
    *,
    corpus: str = "train_positive_llama3",
    limit: int | None = None,
    revision: str | None = None,
) -> datasets.Dataset:
    """The texts about a subject that the paper trains on, as forget rows of a trainer or a task.

    Column `text`; of pairs `prompt`, `rejected` (what the model said of the subject, to be forgotten) and `chosen` (a
    made-up text, the alternate that DPO prefers).

    Args:
        source, target, limit, revision: as of `load_rwku`.
        corpus: "train_positive_llama3" or "train_positive_phi3", what that model said of the subject (gradient ascent
            and NPO forget it); "train_pair_llama3" or "train_pair_phi3", both kinds of texts (for DPO);
            "train_negative_..." made-up texts; or "train_original_passage", its article.

    Raises:
        ValueError: an unknown corpus or subject, a missing set or column, an empty text, or a pair that is none.
    """
    check_limit(limit)
    targets = _targets(target)
    rows = _training(source, corpus, revision, with_subject=bool(targets))
    rows = _first(_about(rows, targets, corpus, needed=True) if targets else rows, limit)
    if corpus not in _PAIRS:
        return rows.select_columns(["text"])
    made_up, said = zip(*rows["response"][:], strict=True)
    return datasets.Dataset.from_dict({"prompt": rows["prompt"][:], "chosen": made_up, "rejected": said})


def other_training_rows(
    source: Source,
    target: str | Sequence[str],
    *,
    corpus: str = "train_positive_llama3",
    revision: str | None = None,
) -> datasets.Dataset:
    """The texts of a corpus about everybody but the targets, as retain rows; none where it is about them alone.

    The paper keeps no texts; these are of the kind of the forget rows, and none of the benchmark's probes. Column
    `text`; of pairs `prompt` and `completion`, what the model said.

    Args:
        source, target, corpus, revision: as of `training_rows`.

    Raises:
        ValueError: as `training_rows`.
    """
    targets = _targets(target)
    rows = _training(source, corpus, revision, with_subject=True)
    others = [index for index, subject in enumerate(rows["subject"][:]) if subject not in targets]
    rows = rows.select(others)
    if corpus not in _PAIRS:
        return rows.select_columns(["text"])
    said = [response[1] for response in rows["response"]]
    return datasets.Dataset.from_dict({"prompt": rows["prompt"][:], "completion": said})


def _training(source: Source, corpus: str, revision: str | None, *, with_subject: bool) -> datasets.Dataset:
    """A corpus to train on, with the subject of each text where it is read."""
    require_choice("corpus", corpus, TRAINING)
    rows = _rows(source, corpus, revision, "train")
    if rows is None:
        raise _not_there(source, corpus)
    subject = ("subject",) if with_subject else ()
    if corpus not in _PAIRS:
        return checked_columns(rows, ("text", *subject), corpus, "RWKU")
    require_rows(rows, (*_TRAINED_COLUMNS[corpus], *subject), corpus, "RWKU")
    for column in ("prompt", *subject):
        require_texts(rows, column, corpus)
    for index, response in enumerate(rows["response"]):
        if not isinstance(response, list) or len(response) != 2 or not all(map(is_text, response)):
            raise bad_row(corpus, index, "two texts in `response`, the made-up one first", "something else")
    return rows


def form_of(written: str) -> str | None:
    """A form by any spelling ("incontext learning", "Cross-Lingual"); None for an unknown one."""
    letters = _letters(written)
    return next((form for form in FORMS if _letters(form) == letters), None)


def _letters(text: str) -> str:
    return "".join(filter(str.isalpha, text.lower()))


def _targets(target: str | Sequence[str] | None) -> tuple[str, ...]:
    targets = () if target is None else (target,) if isinstance(target, str) else tuple(target)
    if target is not None and not (targets and all(isinstance(name, str) and name.strip() for name in targets)):
        raise input_error(
            expected="target to be the name of a subject, or a list of names",
            got=repr(target),
            why="the rows about them are measured",
            fix="pass target='Stephen King', or leave it out for all subjects",
        )
    return targets


def _about(rows: datasets.Dataset, targets: tuple[str, ...], name: str, *, needed: bool = False) -> datasets.Dataset:
    """The rows about the targets; in a needed set each of them has some."""
    subjects = rows["subject"][:]
    if needed or name in NEEDED:
        for target in targets:
            if target not in subjects:
                raise input_error(
                    expected=f"target among the subjects of {name!r}",
                    got=repr(target),
                    why="there would be nothing to measure of it",
                    fix=nearest(target, sorted(set(subjects))),
                )
    return rows.select([index for index, subject in enumerate(subjects) if subject in targets])


def _with_forms(rows: datasets.Dataset, limit: int | None) -> datasets.Dataset:
    """The adversarial probes, each form as the metrics name it."""
    forms: list[str] = []
    for index, written in enumerate(rows["type"]):
        form = form_of(written)
        if form is None:
            raise bad_row("forget_level3", index, f"a `type` among {', '.join(FORMS)}", repr(written))
        forms.append(form)
    rows = rows.remove_columns("type").add_column("type", forms)
    kept = [index for index, form in enumerate(forms) if limit is None or forms[:index].count(form) < limit]
    return rows.select(kept)


def _first(rows: datasets.Dataset, limit: int | None) -> datasets.Dataset:
    return rows if limit is None else rows.select(range(min(limit, len(rows))))


def _not_there(source: Source, name: str) -> ValueError:
    if isinstance(source, Mapping):
        got = f"a mapping with {', '.join(sorted(source)) or 'nothing'}"
        return missing_set("RWKU", name, got, nearest(name, source))
    got = f"{str(source)!r} without {_FILES.get(name, name)}.json"
    return missing_set("RWKU", name, got, "download the dataset's repository whole, or add the file")


def _rows(source: Source, name: str, revision: str | None, split: str) -> datasets.Dataset | None:
    """The rows of a configuration, with all their columns; None where a folder or a mapping does not have it."""
    if isinstance(source, Mapping):
        given = source.get(name)
        return (
            given if given is None or isinstance(given, datasets.Dataset) else datasets.Dataset.from_list(list(given))
        )
    folder = Path(source).expanduser()
    if not folder.is_dir():
        return load_rows(source, name=name, split=split, revision=revision)
    names = dict.fromkeys((name, _FILES.get(name, name)))
    for place in ("", "All/", "*/"):
        files = [file for stem in names for end in _ENDINGS for file in sorted(folder.glob(f"{place}{stem}{end}"))]
        if files:
            found = [load_rows(file) for file in (files if place == "*/" else files[:1])]
            # Files of several targets may differ in columns that nobody reads.
            columns = dict.fromkeys((*(_COLUMNS | _TRAINED_COLUMNS)[name], "subject"))
            wanted = [column for column in columns if column in found[0].column_names]
            return (
                datasets.concatenate_datasets([rows.select_columns(wanted) for rows in found]) if wanted else found[0]
            )
    return None
