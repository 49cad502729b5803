"""TOFU's sets from the Hub, a folder or memory: questions, answers, and reworded and wrong answers."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeAlias

import datasets

from ..errors import nearest, require_choice
from .benchmark_rows import bad_row, checked_columns, is_text, missing_set, require_rows, require_texts
from .checks import check_limit
from .sources import load_rows

Source: TypeAlias = str | Path | Mapping[str, datasets.Dataset]

# Forget split -> the split of all other authors.
_RETAIN_SPLITS = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}
_PAIR = ("question", "answer")
_TRAINED = {"prompt": "question", "completion": "answer"}  # what rows to train on call them
_COLUMNS = (*_PAIR, "paraphrased_answer", "perturbed_answer")


@dataclass(frozen=True)
class TofuData:
    """What TOFU is evaluated on.

    All but the holdout have the columns `question`, `answer`, `paraphrased_answer` (another wording of the answer) and
    `perturbed_answer` (a list of wrong answers in that wording; rows may differ in how many).

    Attributes:
        forget: questions about the authors to forget.
        retain: about authors to keep.
        real_authors: about real ones; an answer stands for its own paraphrase.
        world_facts: about the world; likewise.
        holdout: `question` and `answer` about authors that no model has seen, or None.
        reworded: the forget questions in other words, with their answers, where they were asked for, or None.
    """

    forget: datasets.Dataset
    retain: datasets.Dataset
    real_authors: datasets.Dataset
    world_facts: datasets.Dataset
    holdout: datasets.Dataset | None = None
    reworded: datasets.Dataset | None = None


def load_tofu(
    source: Source = "locuslab/TOFU",
    split: str = "forget10",
    *,
    holdout: datasets.Dataset | str | Path | None = None,
    limit: int | None = None,
    revision: str | None = None,
    reworded: bool = False,
) -> TofuData:
    """Load the sets that TOFU is evaluated on.

    Args:
        source: the id of a dataset on the Hub; a folder with a file `<configuration>.json` for each configuration; or
            a mapping from configuration to rows. Configurations: `<split>_perturbed`, `retain_perturbed`,
            `real_authors_perturbed`, `world_facts_perturbed`.
        split: "forget01", "forget05" or "forget10".
        holdout: rows of unseen authors, or a file of them. None takes the folder's `holdoutNN.json`, or the mapping's
            "holdout", where there is one. Its columns may also be `prompt` and `completion`.
        limit: at most this many rows of each set, the first ones.
        revision: commit, branch or tag of a Hub dataset.
        reworded: also load the forget questions in other words, the column `paraphrased_question`.

    Raises:
        ValueError: an unknown split, a configuration, file or column that is missing, or a row without a question, an
            answer or a wrong answer.

    Source: Maini et al. 2401.06121.
    """
    _check_split(split)
    check_limit(limit)
    names = {
        "forget": f"{split}_perturbed",
        "retain": "retain_perturbed",
        "real_authors": "real_authors_perturbed",
        "world_facts": "world_facts_perturbed",
    }
    rows = {part: _configuration(source, name, revision) for part, name in names.items()}
    data = TofuData(
        **{part: _perturbed(rows[part], name) for part, name in names.items()},
        holdout=_holdout(source, split, holdout),
        reworded=_reworded(rows["forget"], names["forget"]) if reworded else None,
    )
    if limit is None:
        return data
    sets = {field.name: getattr(data, field.name) for field in fields(data)}
    return replace(
        data, **{part: rows.select(range(min(limit, len(rows)))) for part, rows in sets.items() if rows is not None}
    )


def training_sets(
    source: Source = "locuslab/TOFU", split: str = "forget10", *, revision: str | None = None
) -> dict[str, datasets.Dataset]:
    """The rows to train on, as `UnlearningTrainer(train_dataset=...)` takes them.

    Args:
        source: as in `load_tofu`, with the configurations forgetNN (the split) and retainMM, MM being 100 - NN.
        split: "forget01", "forget05" or "forget10".
        revision: commit, branch or tag of a Hub dataset.

    Returns:
        "forget" and "retain", each with columns `prompt` and `completion`.

    Raises:
        ValueError: as `load_tofu`.
    """
    _check_split(split)
    names = {"forget": split, "retain": _RETAIN_SPLITS[split]}
    sets = {set_name: _pairs(_configuration(source, name, revision), name) for set_name, name in names.items()}
    names_of_rows = {theirs: ours for ours, theirs in _TRAINED.items()}
    return {set_name: rows.rename_columns(names_of_rows) for set_name, rows in sets.items()}


def _check_split(split: str) -> None:
    require_choice("split", split, _RETAIN_SPLITS)


def _configuration(source: Source, name: str, revision: str | None) -> datasets.Dataset:
    """The rows of one configuration, with all their columns."""
    if isinstance(source, Mapping):
        if name not in source:
            raise missing_set(
                "TOFU", name, f"a mapping with {', '.join(sorted(source)) or 'nothing'}", nearest(name, source)
            )
        return source[name]
    folder = Path(source).expanduser()
    if not folder.is_dir():
        return load_rows(source, name=name, revision=revision)
    path = folder / f"{name}.json"
    if not path.is_file():
        there = sorted(file.stem for file in folder.glob("*.json"))
        raise missing_set("TOFU", name, f"{str(folder)!r} without {path.name}", nearest(name, there))
    return load_rows(path)


def _holdout(source: Source, split: str, given: datasets.Dataset | str | Path | None) -> datasets.Dataset | None:
    name = split.replace("forget", "holdout")
    rows = given
    if given is None and isinstance(source, Mapping):
        rows = source.get("holdout")
    elif given is None and (path := Path(str(source)).expanduser() / f"{name}.json").is_file():
        rows = path
    if isinstance(rows, str | Path):
        rows = load_rows(rows)
    if rows is not None and _TRAINED.keys() <= set(rows.column_names):
        rows = rows.select_columns(list(_TRAINED)).rename_columns(_TRAINED)
    return None if rows is None else _pairs(rows, "holdout")


def _pairs(rows: datasets.Dataset, name: str) -> datasets.Dataset:
    """Questions and answers, checked."""
    return checked_columns(rows, _PAIR, name, "TOFU")


def _reworded(rows: datasets.Dataset, name: str) -> datasets.Dataset:
    """The questions in other words, with the answers, under the names of plain ones."""
    rows = checked_columns(rows, ("paraphrased_question", "answer"), name, "TOFU")
    return rows.rename_column("paraphrased_question", "question")


def _perturbed(rows: datasets.Dataset, name: str) -> datasets.Dataset:
    """The four columns, checked."""
    if name in ("real_authors_perturbed", "world_facts_perturbed") and "paraphrased_answer" not in rows.column_names:
        require_rows(rows, _PAIR, name, "TOFU")
        rows = rows.add_column("paraphrased_answer", rows["answer"][:])
    require_rows(rows, _COLUMNS, name, "TOFU")
    rows = rows.select_columns(list(_COLUMNS))
    for column in _COLUMNS[:-1]:
        require_texts(rows, column, name)
    for index, wrong in enumerate(rows["perturbed_answer"]):
        if not isinstance(wrong, list) or not wrong or not all(map(is_text, wrong)):
            raise bad_row(name, index, "a list of wrong answers in `perturbed_answer`", "an empty or ill-typed one")
    return rows
