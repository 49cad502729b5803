"""TOFU's own logs (JSON row by row, CSV of aggregates) and the CSV of MUSE's evaluation.

Read from the code of locuslab/tofu (aggregate_eval_stat.py) and swj0419/muse_bench (eval.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import input_error
from ...metrics import tofu_aggregates
from .row import PublishedRow, published_row

_SETS = {"Real Authors": "real_authors", "Real World": "world_facts", "Retain": "retain", "Forget": "forget"}
_KINDS = {"ROUGE": "rouge", "Prob.": "probability", "Truth Ratio": "truth_ratio"}
TOFU_NAMES = {
    **{f"{kind} {rows}": f"{_SETS[rows]}_{_KINDS[kind]}" for rows in _SETS for kind in _KINDS},
    "Model Utility": "model_utility",
    "Forget Quality": "forget_quality",
    "KS Test Forget": "ks_distance",
}
MUSE_NAMES = {
    "verbmem_f": "published_forget_verbmem",
    "knowmem_f": "published_forget_knowmem",
    "knowmem_r": "published_retain_knowmem",
    "privleak": "published_privleak",
}
_TOFU_NOTE = (
    "Forget quality rests on 300 rows or fewer in TOFU's logs; a p-value of a test on another number of rows is "
    "another figure."
)
_MUSE_NOTE = (
    "In percent, by MUSE's code: compare with this package's figures of published=True alone; the leak is set against "
    "the AUC of the paper's own retrained model."
)


def tofu_log_row(
    content: Mapping[str, Any], name: str, digest: str, retrained: Mapping[str, Any] | None = None
) -> PublishedRow:
    """The row of `eval_log_aggregated.json`, by `metrics.tofu_aggregates`; with the retrained model's, forget quality.

    Raises:
        ValueError: as `metrics.tofu_aggregates`.
    """
    aggregates = tofu_aggregates(content, retrained)
    values = {TOFU_NAMES[key]: result.value for key, result in aggregates.items() if key in TOFU_NAMES}
    return published_row("TOFU", name, "tofu", values, digest, [_TOFU_NOTE] if retrained is not None else [])


def is_table(records: Sequence[Mapping[str, str]]) -> bool:
    """Whether a CSV has a figure of TOFU's aggregates or of MUSE's evaluation."""
    return bool(records) and not {*TOFU_NAMES, *MUSE_NAMES}.isdisjoint(records[0])


def csv_rows(records: Sequence[Mapping[str, str]], file: str, digest: str) -> tuple[PublishedRow, ...]:
    """The rows of a CSV of TOFU's aggregates (column `Method`) or of MUSE's figures (column `name`).

    Raises:
        ValueError: neither's columns, or a figure that is no number.
    """
    columns = set(records[0]) if records else set()
    for source, suite, names, label, note in (
        ("TOFU", "tofu", TOFU_NAMES, "Method", _TOFU_NOTE),
        ("MUSE", "muse", MUSE_NAMES, "name", _MUSE_NOTE),
    ):
        if columns & set(names):
            return tuple(
                published_row(source, row.get(label) or file, suite, _numbers(row, names, line), digest, [note])
                for line, row in enumerate(records, start=2)
            )
    raise input_error(
        expected="a CSV of TOFU's aggregates (Model Utility, ...) or of MUSE's figures (verbmem_f, ...)",
        got="no row" if not records else "other columns",
        why="figures are told apart by the names of their columns",
        fix="pass the file that TOFU's aggregate_eval_stat.py or MUSE's eval.py has written",
    )


def _numbers(row: Mapping[str, str], names: Mapping[str, str], line: int) -> dict[str, float]:
    values = {}
    for column, name in names.items():
        if row.get(column):
            try:
                values[name] = float(row[column])
            except ValueError:
                raise input_error(
                    expected=f"a number in column {column!r}, line {line}",
                    got="text",
                    why="a figure that cannot be read must not seem to be absent",
                    fix="correct the cell, or pass the file as it was written",
                ) from None
    return values
