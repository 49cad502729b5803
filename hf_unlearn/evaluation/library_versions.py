"""Versions of the libraries that an evaluation's numbers come from."""

from importlib.metadata import version

from ..version import __version__

_LIBRARIES = ("torch", "transformers", "peft", "datasets", "accelerate", "numpy", "scipy")
_METRIC_LIBRARIES = ("scikit-learn", "rouge_score", "sacrebleu")


def library_versions(*more: str) -> dict[str, str]:
    """Versions of what the numbers come from."""
    return {"hf_unlearn": __version__, **{name: version(name) for name in (*_LIBRARIES, *_METRIC_LIBRARIES, *more)}}
