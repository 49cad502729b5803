"""The files that a model's weights lie in, by name and SHA-256: what `sha256sum` says of them."""

import hashlib
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from peft import PeftConfig
from peft.utils import CONFIG_NAME as ADAPTER_CONFIG

WEIGHT_FILES = "*.safetensors"
OF_BASE = "base/"  # before the names of the files of an adapter's base model


def weight_file_hashes(folder: str | Path) -> dict[str, str]:
    """SHA-256 of every safetensors file in a folder, by name; those of an adapter are the adapter's alone."""
    hashes = {}
    for file in sorted(Path(folder).glob(WEIGHT_FILES)):
        with file.open("rb") as stream:
            hashes[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes


def loaded_file_hashes(
    name: str, *, revision: str | None = None, cache_dir: str | None = None, subfolder: str = ""
) -> dict[str, str]:
    """SHA-256 of the files that a model is loaded from; {} where they are no safetensors, or cannot be told.

    Args:
        name: folder, or an id of the Hub whose snapshot lies in the cache.
        revision: of the Hub's repository.
        cache_dir: of the Hub's files; None for the usual one.
        subfolder: of the folder or the repository.

    Returns:
        by file name; for an adapter its own, and under `base/` those of its base model.
    """
    folder = _folder_of(name, revision, cache_dir, subfolder)
    if folder is None:
        return {}
    hashes = weight_file_hashes(folder)
    if (folder / ADAPTER_CONFIG).is_file():
        adapter = PeftConfig.from_pretrained(str(folder))
        base = adapter.base_model_name_or_path
        # An adapter that names itself as its base would be looked at for ever.
        if base and Path(base).absolute() != folder.absolute():
            files = loaded_file_hashes(base, revision=adapter.revision, cache_dir=cache_dir)
            hashes |= {f"{OF_BASE}{file}": sha for file, sha in files.items()}
    return hashes


def _folder_of(name: str, revision: str | None, cache_dir: str | None, subfolder: str) -> Path | None:
    if Path(name).is_dir():
        return Path(name) / subfolder
    for file in ("config.json", ADAPTER_CONFIG):
        try:
            path = try_to_load_from_cache(name, f"{subfolder}/{file}".lstrip("/"), cache_dir, revision)
        except HFValidationError:
            return None
        if isinstance(path, str):
            return Path(path).parent
    return None
