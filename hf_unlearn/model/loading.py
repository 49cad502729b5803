"""Loads models and tokenizers; what is wrong with their files is told with their name."""

import contextlib
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..errors import input_error

_SHOWN = 300  # characters of what a library says, whose first line has the reason
_TRUST = "trust_remote_code"
# Of a file with a value of another type, libraries raise whatever comes first.
_REFUSALS = (
    *(SafetensorError, StrictDataclassError, pickle.UnpicklingError, EOFError, RuntimeError, ValueError),
    *(TypeError, AttributeError, LookupError, ArithmeticError),
)


@contextlib.contextmanager
def loading(name: Any) -> Iterator[None]:
    """Turn the errors of the libraries that read a model's files into one that names the model.

    Those that say what cannot be found (OSError) are left as they are: they name it already.

    Args:
        name: folder or id.

    Raises:
        ValueError: truncated or broken files, weights of another model, a class that is not known.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except _REFUSALS as error:
        said = " ".join(str(error).split())[:_SHOWN]
        fix = "check that its files are whole and belong together; download or save it again"
        if _TRUST in said:
            fix = (
                f"read the repository's code first; then model_init_kwargs={{'{_TRUST}': True}}, on a command line "
                f"""--model_init_kwargs '{{"{_TRUST}": true}}'"""
            )
        raise input_error(
            expected=f"{name} to hold a model that can be loaded",
            got=f"files that are refused ({type(error).__name__}: {said.rstrip('.')})",
            why="there is no model to work on",
            fix=fix,
        ) from None


def load_tokenizer(
    name: str, revision: str | None = None, init_kwargs: Mapping[str, Any] | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer beside a model.

    Args:
        name: folder or id.
        revision: of the repository.
        init_kwargs: of the model's `from_pretrained`, of which it takes what concerns both.
    """
    shared = {key: value for key, value in (init_kwargs or {}).items() if key in (_TRUST, "token")}
    with loading(name):
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, **shared)
        if not isinstance(tokenizer.chat_template, str | dict | None):
            raise TypeError(f"chat_template of its tokenizer is a {type(tokenizer.chat_template).__name__}")
        return tokenizer
