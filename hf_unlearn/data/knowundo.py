"""KnowUnDo's sets from the Hub, a folder or memory: requests whose answers are to go, and such as are to stay."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import datasets

from ..errors import nearest, require_choice
from .benchmark_rows import checked_columns, missing_set
from .checks import check_limit
from .sources import load_rows

Source: TypeAlias = str | Path | Mapping[str, Any]

DOMAINS = ("copyright", "privacy")
# Our set -> split, and which of the two lists that the split's only row holds.
_SETS = {
    "forget": ("unlearn", "train"),
    "retain": ("retention", "train"),
    "in_scope": ("unlearn", "val"),
    "out_of_scope": ("retention", "val"),
}
_TRAINED = {"text": "prompt", "labels": "completion"}


def load_knowundo(
    source: Source = "zjunlp/KnowUnDo",
    domain: str = "privacy",
    *,
    limit: int | None = None,
    revision: str | None = None,
) -> dict[str, datasets.Dataset]:
    """The sets of a domain, as `unlearn_qa` and, the first two, `UnlearningTrainer(train_dataset=...)` take them.

    Forget and retain rows are those that the published code trains on (`train` of the splits `unlearn` and
    `retention`), in-scope and out-of-scope rows those that it measures on (`val`). Its template is
    "{prompt}\\n\\n{completion}". Its `acc`, the mean share of an answer's tokens that are the likeliest in percent,
    is `in_scope_exact_memorization` and `out_of_scope_exact_memorization` here, but that it cuts rows at 256 tokens
    and has the two line breaks in the answer.

    Args:
        source: the id of a dataset on the Hub; a folder with `<domain>/unlearn.json` and `<domain>/retention.json`; or
            a mapping from "unlearn" and "retention" to such a file's content.
        domain: "copyright" or "privacy".
        limit: at most this many rows of each set, the first ones.
        revision: commit, branch or tag of a Hub dataset.

    Returns:
        "forget", "retain", "in_scope" and "out_of_scope", each with columns `prompt` and `completion`.

    Raises:
        ValueError: an unknown domain, a missing split, list or column, or a row with an empty text.

    Source: Tian et al. 2407.01920.
    """
    require_choice("domain", domain, DOMAINS)
    check_limit(limit)
    splits = {split: _lists(source, domain, split, revision) for split in ("unlearn", "retention")}
    sets = {}
    for name, (split, part) in _SETS.items():
        if part not in splits[split]:
            got = f"a split with {', '.join(sorted(splits[split])) or 'nothing'}"
            raise missing_set("KnowUnDo", f"{split}/{part}", got, nearest(part, splits[split]))
        rows = datasets.Dataset.from_list(list(splits[split][part])[:limit])
        sets[name] = checked_columns(rows, list(_TRAINED), f"{split}/{part}", "KnowUnDo").rename_columns(_TRAINED)
    return sets


def _lists(source: Source, domain: str, split: str, revision: str | None) -> Mapping[str, Any]:
    """The two lists of rows of a split."""
    if isinstance(source, Mapping):
        if split not in source:
            got = f"a mapping with {', '.join(sorted(source)) or 'nothing'}"
            raise missing_set("KnowUnDo", split, got, nearest(split, source))
        return _only(source[split])
    folder = Path(source).expanduser()
    if not folder.is_dir():
        return _only(load_rows(source, name=domain, split=split, revision=revision))
    file = folder / domain / f"{split}.json"
    if not file.is_file():
        got = f"{str(folder)!r} without {domain}/{file.name}"
        raise missing_set("KnowUnDo", split, got, "download the dataset's repository whole, or add the file")
    return _only(json.loads(file.read_text(encoding="utf-8-sig")))


def _only(content: Any) -> Mapping[str, Any]:
    """The split's only row, which holds its lists."""
    return content if isinstance(content, Mapping) else content[0]
