"""Adapters and resized vocabularies: how many rows embeddings have on disk, and a base model loaded to fit them."""

import re
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

logger = logging.get_logger(__name__)

_OF_LORA = re.compile(r"\.lora_(embedding_)?[AB](\.|$)")
# Between the name of a layer and "weight" in an adapter's file: resized, targeted, trained whole, trained tokens.
_OF_EMBEDDINGS = ("", "base_layer.", "original_module.", "token_adapter.base_layer.")


def saved_vocabulary(folder: str | Path, base: PreTrainedModel) -> int | None:
    """Rows of the embeddings that an adapter's folder brings with it, None where it brings none.

    PEFT saves them where the vocabulary was resized, and where they are trained.

    Args:
        folder: of the adapter.
        base: of its architecture; tells which weights are the embeddings.
    """
    file = Path(folder) / SAFETENSORS_WEIGHTS_NAME
    if not file.is_file():
        return None
    layers = [layer for layer in (base.get_input_embeddings(), base.get_output_embeddings()) if layer is not None]
    names = [name for name, module in base.named_modules() if any(module is layer for layer in layers)]
    endings = tuple(f".{name}.{part}weight" for name in names for part in _OF_EMBEDDINGS)
    with safe_open(file, framework="pt") as weights:
        rows = [weights.get_slice(key).get_shape()[0] for key in weights.keys() if key.endswith(endings)]  # noqa: SIM118
    return max(rows, default=None)


def resized_vocabulary(base: Any) -> tuple[int, int] | None:
    """Rows of the embeddings where a model was loaded from, and its own, where its vocabulary was resized since.

    None where it was not, and for a model made in memory or from what is out of reach: nobody can tell then.

    Args:
        base: without an adapter around it.
    """
    name, now = getattr(base.config, "_name_or_path", None), base.config.get_text_config().vocab_size
    try:
        then = AutoConfig.from_pretrained(name).get_text_config().vocab_size if name else None
    except (OSError, ValueError):
        then = None
    return None if then in (None, now) else (then, now)


def load_adapter(folder: str | Path, *, trainable: bool = False, **loading: Any) -> PeftModel:
    """An adapter on its base model, whose vocabulary is resized to the rows that the adapter was saved with.

    `AutoPeftModelForCausalLM` resizes to the tokenizer's length instead, which fails where the embeddings were padded
    to a multiple of some number.

    Args:
        folder: of the adapter.
        trainable: leave the adapter trainable.
        loading: of the base model, as `AutoModelForCausalLM.from_pretrained` takes it.

    Raises:
        ValueError: the adapter was trained on a model of other layers.
    """
    config = PeftConfig.from_pretrained(str(folder))
    name: Any = config.base_model_name_or_path
    base = AutoModelForCausalLM.from_pretrained(name, **{"revision": config.revision} | loading)
    rows, now = saved_vocabulary(folder, base), base.get_input_embeddings().weight.shape[0]
    if rows is None and (Path(folder) / "tokenizer_config.json").is_file():
        tokens = len(AutoTokenizer.from_pretrained(folder))
        if tokens > now:
            logger.warning(
                f"The tokenizer has {tokens} tokens, the base model {now}, and the adapter was saved without "
                "embeddings: the tokens beyond get rows that no run has trained."
            )
            rows = tokens
    if rows is not None and rows != now:
        base.resize_token_embeddings(rows, mean_resizing=False)
    model = PeftModel.from_pretrained(base, str(folder), is_trainable=trainable)
    _require_own_base(Path(folder), model)
    return model


def _require_own_base(folder: Path, model: PeftModel) -> None:
    """Raise where layers and the adapter's matrices do not pair: PEFT leaves the rest of either out, or warns."""
    file = folder / SAFETENSORS_WEIGHTS_NAME
    if not file.is_file():
        return
    with safe_open(file, framework="pt") as weights:
        saved = {name for name in weights.keys() if _OF_LORA.search(name)}  # noqa: SIM118
    placed = {name for name in get_peft_model_state_dict(model, save_embedding_layers=False) if _OF_LORA.search(name)}
    if saved != placed:
        raise ValueError(
            f"the adapter is not of the base model that adapter_config.json names: {len(saved - placed)} of its "
            f"{len(saved)} matrices fit no layer, and {len(placed - saved)} of {len(placed)} places would stay empty"
        )
