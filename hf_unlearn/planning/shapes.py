"""The config of the model to plan for: a known shape, a local file, or the config.json of a repository."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from ..errors import input_error, nearest


def _opt(hidden: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "model_type": "opt",
        "vocab_size": 50272,
        "hidden_size": hidden,
        "word_embed_proj_dim": hidden,
        "num_hidden_layers": layers,
        "ffn_dim": 4 * hidden,
        "num_attention_heads": heads,
        "max_position_embeddings": 2048,
    }


def _llama(hidden: int, layers: int, heads: int, intermediate: int, *, tied: bool = False) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": intermediate,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": tied,
    }


# name -> repositories of that shape, and what their config.json says of sizes. OPT's sizes are also table 1 of
# its paper (Zhang and others, 2022), Llama's table 3 of its own (Grattafiori and others, 2024).
_KNOWN: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "opt-125m": (("facebook/opt-125m",), _opt(768, 12, 12)),
    "opt-1.3b": (("facebook/opt-1.3b",), _opt(2048, 24, 32)),
    "opt-2.7b": (("facebook/opt-2.7b",), _opt(2560, 32, 32)),
    "opt-6.7b": (("facebook/opt-6.7b",), _opt(4096, 32, 32)),
    "opt-13b": (("facebook/opt-13b",), _opt(5120, 40, 40)),
    "llama-1b": (
        ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B-Instruct"),
        _llama(2048, 16, 32, 8192, tied=True),
    ),
    "llama-3b": (
        ("meta-llama/Llama-3.2-3B", "meta-llama/Llama-3.2-3B-Instruct"),
        _llama(3072, 28, 24, 8192, tied=True),
    ),
    "llama-8b": (
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct"),
        _llama(4096, 32, 32, 14336),
    ),
    "llama-70b": (
        ("meta-llama/Llama-3.1-70B", "meta-llama/Llama-3.1-70B-Instruct", "meta-llama/Llama-3.3-70B-Instruct"),
        _llama(8192, 80, 64, 28672),
    ),
}

KNOWN_SHAPES = tuple(_KNOWN)


def load_config(name_or_path: str, revision: str | None = None) -> PreTrainedConfig:
    """The config of a known shape ("llama-8b", or a repository of that shape), a folder or file, or a repository.

    Raises:
        ValueError: there is none, it cannot be fetched, or it is not one of transformers'.
    """
    for name, (repositories, sizes) in _KNOWN.items():
        if name_or_path == name or name_or_path in repositories:
            return _made(name_or_path, sizes)
    path = Path(name_or_path).expanduser()
    if (name_or_path.startswith(("/", ".", "~")) or path.suffix == ".json") and not path.exists():
        raise _not_found(name_or_path, "a path where there is nothing")
    try:
        config = AutoConfig.from_pretrained(str(path) if path.exists() else name_or_path, revision=revision)
    except (OSError, ValueError, KeyError) as error:
        raise _not_found(name_or_path, str(error).splitlines()[0]) from error
    return config.get_text_config()


def _made(name: str, sizes: dict[str, Any]) -> PreTrainedConfig:
    config = AutoConfig.for_model(**sizes)
    config.name_or_path = name
    return config


def _not_found(name: str, got: str) -> ValueError:
    return input_error(
        expected="--model_name_or_path with a known shape, a folder or config.json, or a repository on the Hub",
        got=f"{name!r}: {got}",
        why="the sizes of the model are read from its config; weights are never loaded",
        fix="offline, give the path of a config.json, or a known shape: " + nearest(name, KNOWN_SHAPES),
    )
