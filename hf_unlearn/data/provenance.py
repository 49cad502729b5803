"""Where a set of rows came from: the Hub, the lab, or the user's own files, whose paths it never tells."""

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import datasets

# What the lab writes into `builder_name` of its sets; `config_name` is the world.
LAB_BUILDER = "hf_unlearn_lab"
# What stands in `builder_name` of rows that a model answered.
MODEL_BUILDER = "hf_unlearn_generated"
# How a file of a repository is written in `download_checksums`: hf://datasets/owner/name@commit/file
_HUB_FILE = re.compile(r"hf://datasets/(?P<id>[^@]+)@(?P<revision>[^/]*)/")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Source:
    """Where rows came from.

    Attributes:
        origin: "hub", "lab", "generated" by the model before unlearning, or "local": a file, a list, a stream, or what
            else is not known to be public.
        id: of the dataset on the Hub, or the lab's world; none for a local source, whose path is nobody's business.
        revision: commit on the Hub.
    """

    origin: str = "local"
    id: str | None = None
    revision: str | None = None


def source_of(rows: Any) -> Source:
    """The source of a set, through `map`, `select` and `rename_columns`; "local" where nothing tells."""
    if not isinstance(rows, datasets.Dataset | datasets.IterableDataset):
        return Source()
    info = rows.info
    if info.builder_name == LAB_BUILDER:
        return Source("lab", info.config_name)
    if info.builder_name == MODEL_BUILDER:
        return Source("generated")
    if info.download_checksums:
        matches = [_HUB_FILE.match(file) for file in info.download_checksums]
        sources = {Source("hub", match["id"], match["revision"] or None) for match in matches if match}
        # Files of two repositories, or one from elsewhere: no single public source.
        return sources.pop() if len(sources) == 1 and all(matches) else Source()
    # `concatenate_datasets` drops the builder of unlike sets, of which one may come from memory and be in no cache.
    return _from_cache(rows) if isinstance(rows, datasets.Dataset) and info.builder_name else Source()


def _from_cache(rows: datasets.Dataset) -> Source:
    """`load_dataset` keeps a repository's rows in .../owner___name/<configuration>/<version>/<commit>/."""
    sources = set()
    for file in rows.cache_files:
        parts = PurePath(file["filename"]).parts
        ids = [part.replace("___", "/") for part in parts if part.count("___") == 1]
        commits = [part for part in parts if _COMMIT.fullmatch(part)]
        sources.add(Source("hub", ids[-1], commits[-1]) if ids and commits else Source())
    return sources.pop() if len(sources) == 1 else Source()


def from_hub(rows: datasets.Dataset, hub_id: str, revision: str | None) -> datasets.Dataset:
    """The same rows, marked as those of a repository, whatever is made of them in memory."""
    if revision is None or not _COMMIT.fullmatch(revision):
        revision = _from_cache(rows).revision or revision
    rows.info.download_checksums = {f"hf://datasets/{hub_id}@{revision or ''}/": {}}
    return rows


def from_model(rows: datasets.Dataset) -> datasets.Dataset:
    """The same rows, marked as answers of the model before unlearning."""
    rows.info.builder_name = MODEL_BUILDER
    return rows


def from_lab(rows: datasets.Dataset, world: str) -> datasets.Dataset:
    """The same rows, marked as the lab's, where they were read back from its files."""
    rows.info.builder_name, rows.info.config_name = LAB_BUILDER, world
    return rows
