"""Tells failures of network, disk, memory and libraries, whose text is enough for a user, from bugs of ours."""

import errno

import pyarrow
import torch
import yaml
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError

from ..results.hub.errors import PushError

# transformers raises OSError for a model that it cannot find.
OUTSIDE: tuple[type[Exception], ...] = (
    *(PushError, HfHubHTTPError, OSError, ImportError, MemoryError, torch.OutOfMemoryError),
    *(SafetensorError, pyarrow.ArrowException, DatasetsError, yaml.YAMLError),
)


def outside_words(error: Exception) -> str | None:
    """What to tell a user of a failure from outside, in a line; None for what may be a bug of this package."""
    if isinstance(error, ImportError):
        # A library that is not installed; a module of this package that cannot be imported is a bug.
        return None if (error.name or "").startswith("hf_unlearn") else str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        if (error.strerror or "").startswith("Expected "):  # of `errors.full_disk_error`
            return error.strerror
        place = f" for {error.filename}" if error.filename else ""
        return f"the disk is full{place} ({error}). Make space, then start again"
    return str(error) or type(error).__name__
