"""The suite of benchmarks made of questions and answers: `custom` with its sets loaded, and columns by any name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack, cast

import datasets

from ...data.renaming import check_renaming, renamed
from ...data.sources import load_rows
from ...errors import input_error, nearest
from ..judges.judge import Judge
from ..suite import Suite
from .custom import SETS, RowArguments, leaking_suite

HEADLINE = (
    "forget_rouge",
    "in_scope_rouge",
    "forget_probability",
    "retain_rouge",
    "retain_probability",
    "out_of_scope_rouge",
    "forget_accuracy",
    "retain_accuracy",
    "forget_extraction_strength",
    "min_k_auc",
    "min_k_privleak",
    "answer_perplexity",
    "broken_rate",
)
PAIR = ("forget_rouge", "retain_rouge")


def unlearn_qa(
    *,
    columns: Mapping[str, Any] | None = None,
    neighbours: Any = None,
    judge: Judge | None = None,
    phrasing_of: str | None = None,
    **arguments: Unpack[RowArguments],
) -> Suite:
    """What was forgotten and what was kept of a benchmark of questions with answers.

    The metrics of `custom`. A set may be rows, a file or a dataset on the Hub, or a mapping with the arguments of
    `hf_unlearn.data.sources.load_rows`: {"source": "owner/name", "name": "a configuration", "split": "forget"}.

    Args:
        columns: old column name -> new, `prompt` and `completion` among the new ones, for all sets; or such a mapping
            by the set's name, for those that need one.
        neighbours: another name for `out_of_scope`: rows near those to forget that are to be kept.
        judge, phrasing_of: as of `custom`.
        arguments: `forget` and `retain`, where there are any `in_scope` (the forget questions in other words) and
            `holdout`, and what else `custom.RowArguments` has. `hf_unlearn.data.knowundo.load_knowundo` gives the sets
            of KnowUnDo.

    Raises:
        ValueError: as `custom` does; also a set that cannot be read, or a column that is missing.
    """
    given: dict[str, Any] = dict(arguments)
    if neighbours is not None:
        if given.get("out_of_scope") is not None:
            raise input_error(
                expected="neighbours or out_of_scope",
                got="both",
                why="they are two names of one set",
                fix="leave one of them out",
            )
        given["out_of_scope"] = neighbours
    names = _columns_by_set(columns, given)
    given |= {name: _rows(given[name], names[name], name) for name in names}
    return leaking_suite("unlearn_qa", cast(RowArguments, given), HEADLINE, PAIR, judge, phrasing_of)


def _columns_by_set(
    columns: Mapping[str, Any] | None, given: Mapping[str, Any]
) -> dict[str, Mapping[str, str] | None]:
    """Of each set that is given the renaming of its columns, or None."""
    present = [name for name in SETS if given.get(name) is not None]
    if columns is not None and columns and all(isinstance(own, Mapping) for own in columns.values()):
        own_names = {"out_of_scope" if name == "neighbours" else name: own for name, own in columns.items()}
        for name, own in own_names.items():
            if name not in present:
                raise input_error(
                    expected=f"columns of sets that are given: {', '.join(present)}",
                    got=f"those of {name!r}",
                    why="they would rename nothing",
                    fix=nearest(str(name), present),
                )
            check_renaming(own)
        return {name: own_names.get(name) for name in present}
    if columns is not None:
        check_renaming(columns)
    return dict.fromkeys(present, columns)


def _rows(given: Any, columns: Mapping[str, str] | None, name: str) -> Any:
    """The rows of a set, loaded where they are named."""
    if isinstance(given, Mapping) and "source" in given:
        return load_rows(**{"columns": columns} | dict(given))
    if isinstance(given, str | Path):
        return load_rows(given, columns=columns)
    if columns is None or isinstance(given, Mapping):
        return given  # as `custom` takes it, or refuses it
    rows = given if isinstance(given, datasets.Dataset) else datasets.Dataset.from_list(list(given))
    return renamed(rows, columns, name)
