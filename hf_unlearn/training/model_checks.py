"""Models and adapters that a run cannot train or compare with, refused before anything is loaded or measured."""

from typing import Any

from peft import PeftConfig, PeftModel, PeftType, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.utils import logging

from ..errors import input_error, value_error
from ..model.adapters import resized_vocabulary
from ..model.probe_checks import PAST_ADAPTERS, prompt_adapters, require_causal_lm, require_one_sequence
from ..model.suppressed_forward import suppression_identity
from .config import UnlearningConfig

logger = logging.get_logger(__name__)


def require_models(model: Any, ref_model: Any, peft_config: PeftConfig | None, args: UnlearningConfig) -> None:
    """Raise for what can be told of models and adapter as they were given."""
    require_other_model(ref_model, model)
    require_unsuppressed(model)
    if ref_model is not None:
        require_causal_lm(ref_model, "ref_model")
    require_plain_sequences(model, peft_config, args)
    if args.liger_kernel_config and not args.use_liger_kernel:
        hint = "without use_liger_kernel the run would go on without Liger's kernels"
        raise value_error("liger_kernel_config", "left out", args.liger_kernel_config, hint)
    unread = [name for name in args.init_kwargs if name != "revision"]
    if unread and isinstance(model, nn.Module):
        logger.warning(f"model_init_kwargs ({', '.join(unread)}) has no effect: the model was loaded before.")


def require_plain_sequences(model: Any, peft_config: PeftConfig | None, args: UnlearningConfig) -> None:
    """Raise for models whose output positions are not those of the tokens they are given."""
    require_one_sequence(model, peft_config)
    # Two kinds lengthen the keys and values of every layer, not the sequence.
    past = [one for one in prompt_adapters(model, peft_config) if isinstance(one, PAST_ADAPTERS)]
    checkpointing = args.activation_checkpointing or getattr(model, "is_activation_checkpointing", False)
    if past and checkpointing:
        raise input_error(
            expected=f"{type(past[0]).__name__} without activation checkpointing",
            got="activation_checkpointing=True",
            why="checkpointing drops the keys and values that the adapter puts before the sequence",
            fix="leave activation_checkpointing out, or use LoRA",
        )


def require_saved(model: PeftModel) -> None:
    """Raise where a folder of the adapter would not hold all that was trained, or all that it needs."""
    active = model.active_adapters
    if len(active) > 1 and "default" in active:
        raise input_error(
            expected="one adapter that is active, or none of them named default",
            got=", ".join(active),
            why="a folder is loaded with the adapter named default alone, without the others that were active",
            fix="merge the others into the base model first (hf_unlearn.model.merging.merge), or switch them off",
        )
    if active != ["default"]:
        logger.warning(
            f"Adapters not named default ({', '.join(active)}) are saved in folders of their own; the card's code, "
            "evaluate and merge load the adapter named default."
        )
    if all(model.peft_config[name].peft_type is PeftType.LORA for name in active):
        _require_adapter_alone(model)
    _require_both_embeddings(model)


def _require_adapter_alone(model: PeftModel) -> None:
    kept: set[int] = set()
    for name in model.peft_config:
        state = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
        kept |= {weight.data_ptr() for weight in state.values()}
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad and p.numel()]
    lost = [name for name, weight in trained if weight.data_ptr() not in kept]
    if lost:
        raise input_error(
            expected="trained weights that the adapter is saved with",
            got=f"{len(lost)} tensors of the base model that require a gradient ({lost[0]}, for one)",
            why="only the adapter is saved, and what they learnt would be lost",
            fix="name their layers in modules_to_save of the adapter's config, or freeze them",
        )


def _require_both_embeddings(model: PeftModel) -> None:
    """Where PEFT saves an embedding because it is adapted, it leaves the other one out, resized or not."""
    base = model.get_base_model()
    layers = [base.get_input_embeddings(), base.get_output_embeddings()]
    adapted = [isinstance(layer, BaseTunerLayer) for layer in layers]
    if not any(adapted) or all(adapted) or base.config.get_text_config().tie_word_embeddings:
        return
    resized = resized_vocabulary(base)  # PEFT cannot tell either where this cannot
    if resized is not None:
        rows, now = resized
        raise input_error(
            expected="an adapter that leaves both embeddings alone, or one for both, on a resized vocabulary",
            got=f"{now} rows where {base.config._name_or_path} has {rows}, and an adapter on one of the two",
            why="PEFT saves the new rows of that one alone, and those of the other would be lost",
            fix="save the resized model (model.save_pretrained(folder)) and load the base from there",
        )


def require_unsuppressed(model: Any) -> None:
    """Raise for a model whose answers are suppressed at inference: its losses would not be those of its weights."""
    if isinstance(model, nn.Module) and suppression_identity(model) is not None:
        raise input_error(
            expected="a model that answers by its weights",
            got="one whose answers are suppressed at inference",
            why="its weights would be trained until they answer rightly through the suppression",
            fix="hf_unlearn.suppression.remove_suppression(model); as ref_model a suppressed model is welcome",
        )


def require_other_model(ref_model: nn.Module | None, model: Any) -> None:
    """Raise when the reference is the very model that will change, or no model."""
    if ref_model is not None and not isinstance(ref_model, nn.Module):
        raise input_error(
            expected="ref_model to be a loaded model",
            got=type(ref_model).__name__,
            why="it is called beside the model as it is",
            fix="pass AutoModelForCausalLM.from_pretrained(...), or leave ref_model out",
        )
    shared = isinstance(model, nn.Module) and ref_model is not None and _storages(model) & _storages(ref_model)
    if shared:
        raise input_error(
            expected="ref_model to have weights of its own",
            got="the model itself" if ref_model is model else f"a model that shares {len(shared)} tensors with it",
            why="the reference would change with every step (get_peft_model, for one, changes the model it is given)",
            fix="leave ref_model out: the trainer makes the cheapest exact reference itself",
        )


def _storages(model: nn.Module) -> set[int]:
    """Where a model's weights lie: two models can share them under parameters of their own."""
    weights: list[Tensor] = [weight for weight in model.parameters() if weight.numel()]
    return {weight.untyped_storage().data_ptr() for weight in weights if weight.device.type != "meta"}
