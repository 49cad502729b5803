"""What no model is trained or measured with: the same refusals for the trainer and for `evaluate`.

docs/models.md has the table of them.
"""

from typing import Any

from peft import CartridgeConfig, PeftConfig, PeftModel, PrefixTuningConfig
from transformers import PreTrainedModel

from ..errors import input_error
from .probe import ModelProbe

# Adapters that lengthen the keys and values of every layer, not the sequence.
PAST_ADAPTERS = (PrefixTuningConfig, CartridgeConfig)


def require_causal_lm(model: Any, argument: str = "the model") -> None:
    """Raise for what can be seen to be no causal language model without calling it.

    Args:
        model: not wrapped.
        argument: what it was given as.

    Raises:
        ValueError: no output head over tokens, an encoder-decoder, or an adapter that lengthens the sequence.
    """
    if not isinstance(model, PreTrainedModel | PeftModel) or model.get_output_embeddings() is None:
        raise input_error(
            expected=f"{argument} to be a causal language model of transformers, or a PeftModel around one",
            got=type(model).__name__,
            why="log-probs of answers are read from its output head",
            fix="pass AutoModelForCausalLM.from_pretrained(...)",
        )
    require_one_sequence(model, None)


def require_one_sequence(model: Any, peft_config: PeftConfig | None) -> None:
    """Raise for models whose output positions are not those of the tokens they are given.

    Args:
        model: not wrapped, or what it is loaded by.
        peft_config: of an adapter that is to be added to it.
    """
    adapters = prompt_adapters(model, peft_config)
    lengthening = [type(one).__name__ for one in adapters if not isinstance(one, PAST_ADAPTERS)]
    encoder_decoder = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    if lengthening or encoder_decoder:
        raise input_error(
            expected="a decoder whose answer positions are those of its input tokens",
            got=lengthening[0] if lengthening else f"{type(model).__name__}, an encoder-decoder",
            why="log-probs of answers are read at the positions of their tokens",
            fix="use LoRA or another adapter of weights" if lengthening else "use an AutoModelForCausalLM",
        )


def prompt_adapters(model: Any, peft_config: PeftConfig | None) -> list[PeftConfig]:
    """The adapters of a model, and the one to be added, that put something before its tokens."""
    adapters = list(model.peft_config.values()) if isinstance(model, PeftModel) else []
    return [one for one in (*adapters, peft_config) if one is not None and one.is_prompt_learning]


def require_scorable(probe: ModelProbe, model: Any) -> None:
    """Raise for a model whose log-probs of padded rows are not those of a causal language model.

    Args:
        probe: of the model.
        model: not wrapped.
    """
    if not probe.causal:
        raise input_error(
            expected="a causal language model, in which no token changes the logits before it",
            got=f"{_name(model)}, whose logits at a token change with later tokens",
            why="it sees the answer that it is asked for: losses and log-probs would be those of copying",
            fix="load it as a decoder (is_decoder=True in BERT's config, causal=True in XLM's), or use a causal model",
        )
    if not probe.right_padding:
        raise input_error(
            expected="a model that does not see padding on the right of a row",
            got=f"{_name(model)}, whose logits change with it",
            why="rows of one batch would change each other's log-probs",
            fix="use a model that reads attention_mask",
        )


def require_left_padding(probe: ModelProbe, model: Any, padded_by: str) -> None:
    """Raise where rows are padded on the left for a model that sees such padding.

    Args:
        probe: of the model.
        model: not wrapped.
        padded_by: the collator.
    """
    if not probe.left_padding:
        raise input_error(
            expected=f"rows padded on the right, for {_name(model)}",
            got=f"{padded_by}, which pads on the left",
            why="the model sees padding on the left, or counts positions in its own way: gradients would be wrong",
            fix="leave data_collator out, or set tokenizer.padding_side='right' before it is made",
        )


def require_rows_apart(probe: ModelProbe, model: Any) -> None:
    """Raise for padding_free with a model that sees a row in front of another in one line."""
    if not probe.rows_apart:
        raise input_error(
            expected="the same log-probs of rows with and without padding, for padding_free",
            got=f"{_name(model)}, which does not keep the rows of one line apart",
            why="a row would see the one before it, or have the positions of another",
            fix="set padding_free=False, or another attn_implementation",
        )


def _name(model: Any) -> str:
    return type(model.get_base_model() if isinstance(model, PeftModel) else model).__name__
