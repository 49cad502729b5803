"""Versions of the libraries that an evaluation's numbers come from."""

import functools
from importlib.metadata import version

from ..version import __version__

_LIBRARIES = ("torch", "transformers", "peft", "datasets", "accelerate", "numpy", "scipy")
_METRIC_LIBRARIES = ("scikit-learn", "rouge_score", "sacrebleu")
_version = functools.cache(version)  # which reads and parses a file


def library_versions(*more: str) -> dict[str, str]:
    """Versions by name, of this package too.

    Args:
        more: other libraries that took part.
    """
    return {"hf_unlearn": __version__, **{name: _version(name) for name in (*_LIBRARIES, *_METRIC_LIBRARIES, *more)}}
