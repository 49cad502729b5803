"""The files that a model's weights lie in, by name and SHA-256: what `sha256sum` says of them."""

import hashlib
from pathlib import Path

WEIGHT_FILES = "*.safetensors"


def weight_file_hashes(folder: str | Path) -> dict[str, str]:
    """SHA-256 of every safetensors file in a folder, by name; those of an adapter are the adapter's alone."""
    hashes = {}
    for file in sorted(Path(folder).glob(WEIGHT_FILES)):
        with file.open("rb") as stream:
            hashes[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes
