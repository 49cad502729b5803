"""The model as Trainer takes it: loaded, checked, with its adapter and without dropout."""

import inspect
import math
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import is_liger_kernel_available, logging

from ..errors import input_error, nearest
from ..model.adapters import load_adapter
from ..model.injected import as_peft_model
from ..model.loading import loading
from ..model.probe_checks import require_causal_lm
from ..results.adapter_config import ADAPTER_CONFIG, read_adapter_config
from .config import UnlearningConfig
from .model_checks import require_plain_sequences, require_saved
from .trainer_arguments import CROSS_ENTROPIES

logger = logging.get_logger(__name__)


def load_model(name_or_path: str, args: UnlearningConfig, *, in_8bit: bool = False) -> PreTrainedModel | PeftModel:
    """`AutoModelForCausalLM.from_pretrained`, or a trainable adapter on its base where the folder holds one.

    In fp32 unless `args.model_init_kwargs` names another `dtype`, because a step of unlearning is smaller than bf16
    can add to most weights; with LoRA, pass dtype="bfloat16" for the frozen base.
    """
    options = {"dtype": "float32", **args.init_kwargs}
    if in_8bit:  # of the linear layers; the output head stays as it is
        options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    with loading(name_or_path):
        if (Path(name_or_path) / ADAPTER_CONFIG).is_file():
            read_adapter_config(name_or_path)
            if options.get("revision") in (None, "main"):
                options.pop("revision", None)  # the default would take the place of what the adapter says of its base
            return load_adapter(name_or_path, trainable=True, **options)
        return AutoModelForCausalLM.from_pretrained(name_or_path, **options)


def move_unless_quantized(model: Any, device: torch.device) -> Any:
    """A loaded model on a device; a quantised one stays where it was loaded, as it cannot be moved."""
    return model if getattr(model, "is_quantized", False) else model.to(device)


def prepare_model(model: Any, args: UnlearningConfig, peft_config: PeftConfig | None, *, whole: bool = True) -> Any:
    """The model as the Trainer takes it: checked, with adapters if asked for, without dropout.

    Args:
        model: as given, or loaded.
        args: of the run.
        peft_config: adds an adapter.
        whole: every trainable weight gets a gradient; not so under losses of hidden states alone.

    Raises:
        ValueError: not a causal language model, an adapter that lengthens the sequence, a PeftModel together with a
            peft_config, no trainable weights, or weights that are not finite.
    """
    model = as_peft_model(model)
    require_causal_lm(model)
    require_plain_sequences(model, peft_config, args)
    _check_weights(model)
    if peft_config is not None:
        model = _add_adapter(model, args, peft_config)
    _require_trainable(model)
    if isinstance(model, PeftModel):
        require_saved(model)
    if isinstance(model, PeftModel) and args.activation_checkpointing and args.ddp_find_unused_parameters is None:
        # Trainer's own choice for a plain model; it does not look inside a PeftModel.
        args.ddp_find_unused_parameters = not whole
    if not whole and args.ddp_find_unused_parameters is None:
        args.ddp_find_unused_parameters = True  # DDP would wait for the gradients of what lies above the layer
    if args.disable_dropout:
        disable_dropout(model)
    if args.use_liger_kernel:
        _require_liger(model, args.liger_kernel_config or {})
    return model


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout probability to zero: Dropout modules, and the numbers that models hand to functional dropout.

    OPT, for one, keeps its probability as `self.dropout`, out of reach of a search for `nn.Dropout`. The config stays
    as it is, since it is saved with the model; the few models that read it in forward (Falcon) keep what it says.
    """
    suffixes = ("dropout", "dropout_p", "dropout_prob", "layerdrop")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        probabilities = [n for n, value in vars(module).items() if isinstance(value, float) and n.endswith(suffixes)]
        for name in probabilities:
            setattr(module, name, 0.0)


def _add_adapter(model: PreTrainedModel | PeftModel, args: UnlearningConfig, peft_config: PeftConfig) -> PeftModel:
    if isinstance(model, PeftModel):
        raise input_error(
            expected="a plain model together with peft_config, or a PeftModel without it",
            got="a PeftModel and a peft_config",
            why="a second adapter would be stacked on the first, and it would be open which one unlearns",
            fix="drop peft_config to go on with the adapter, or pass hf_unlearn.model.merging.merge(model)",
        )
    # Asked of the arguments: Trainer makes the accelerator, and with it the DistributedSetup, later.
    # ZeRO-3 gathers persistent parameters into buffers of one type, so adapters in fp32 beside a bf16 base break it. A
    # quantised base holds integers there, which are gathered apart.
    sharded = args.deepspeed_plugin is not None and args.deepspeed_plugin.zero_stage == 3
    quantised = getattr(model, "is_quantized", False)
    # The adapter fits this revision of its base and no other, and its config is where others look for it.
    revision = args.init_kwargs.get("revision")
    return get_peft_model(model, peft_config, autocast_adapter_dtype=not sharded or quantised, revision=revision)


def _require_trainable(model: nn.Module) -> None:
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise input_error(
            expected="a model with trainable weights",
            got="none that requires a gradient",
            why="nothing would change",
            fix="load the adapter with is_trainable=True, or pass peft_config=LoraConfig(...)",
        )
    # 16-bit weights without fp32 masters lose most updates of a small learning rate to rounding.
    if any(p.dtype in (torch.bfloat16, torch.float16) for p in trainable):
        logger.warning(
            "Trainable weights are in 16 bits: at small learning rates most updates round to nothing. "
            "Load the model with dtype='float32' and set bf16=True for mixed precision."
        )


def _require_liger(model: Any, kernels: dict[str, bool]) -> None:
    """Raise where Trainer would train without Liger's kernels: missing, or none of that name or for that model."""
    kind = model.config.model_type
    why = "the run would go on without them, slower and larger than what was asked for"
    if not is_liger_kernel_available():
        fix = "pip install liger-kernel (on a GPU), or leave use_liger_kernel out"
        raise input_error(
            expected="liger-kernel, for use_liger_kernel", got="none that is installed", why=why, fix=fix
        )
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    if kind not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        known, fix = f"a model that Liger has kernels for, not {kind}", "leave use_liger_kernel out"
        raise input_error(expected=known, got=f"use_liger_kernel with {type(model).__name__}", why=why, fix=fix)
    names = [*inspect.signature(MODEL_TYPE_TO_APPLY_LIGER_FN[kind]).parameters, *CROSS_ENTROPIES]
    unknown = [name for name in kernels if name not in names]
    if unknown:
        expected, fix = f"liger_kernel_config with kernels that Liger has for {kind}", nearest(unknown[0], names)
        raise input_error(expected=expected, got=repr(unknown[0]), why=why, fix=fix)


def _check_weights(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter.detach()).all()):
            raise input_error(
                expected="a model whose weights are finite",
                got=f"NaN or infinity in {name}",
                why="every loss and every gradient would be NaN",
                fix="load another checkpoint; the run that wrote this one has diverged",
            )


def check_fit(model: Any, tokenizer: PreTrainedTokenizerBase | None, args: UnlearningConfig, longest: int) -> None:
    """Raise where rows, tokenizer and model do not fit: positions beyond the model's, or ids beyond its embeddings."""
    config = model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and longest > positions:
        raise input_error(
            expected=f"rows of at most {positions} tokens, the model's max_position_embeddings",
            got=f"a row of {longest} tokens (max_length={args.max_length})",
            why="the model has no positions for the rest",
            fix=f"set max_length={positions} or lower",
        )
    if tokenizer is not None and len(tokenizer) > config.vocab_size:
        raise input_error(
            expected=f"a tokenizer of at most {config.vocab_size} tokens, the size of the model's vocabulary",
            got=f"{len(tokenizer)} tokens",
            why="ids beyond the embeddings crash, or point at nothing that was learnt",
            fix="use the model's own tokenizer, or model.resize_token_embeddings(len(tokenizer))",
        )


def log_vocabulary(model: Any) -> float:
    """log V in nats: the NLL per token of a uniform guess."""
    return math.log(model.config.get_text_config().vocab_size)
