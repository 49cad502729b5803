"""Activation memory of a forward and backward pass of the decoder, from a short model on fake tensors.

The head is not part of it: it runs at answer positions alone, in chunks (memory.py).
"""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from transformers import AutoModelForCausalLM, PreTrainedConfig

from ..errors import input_error
from ..training.model_setup import disable_dropout
from .live_bytes import LiveBytes

# Embeddings of few ids and no more positions than are used: their gradients, which are counted with the gradients,
# would hide the blocks here.
_VOCABULARY = 16


@dataclass(frozen=True)
class Compute:
    """How the decoder computes.

    Attributes:
        dtype: of its weights.
        autocast: mixed precision in this dtype, or None.
        attention: attn_implementation of transformers.
        checkpointing: activation checkpointing of every block.
        dropout: whether the dropouts of the config are on.
        fp32_adapters: adapters are kept in fp32 beside a 16-bit base.
    """

    dtype: torch.dtype
    autocast: torch.dtype | None = None
    attention: str = "sdpa"
    checkpointing: bool = False
    dropout: bool = False
    fp32_adapters: bool = True


@dataclass(frozen=True)
class Activations:
    """Bytes alive above weights and gradients, for rows [B, L] through all decoder blocks.

    Attributes:
        forward: the peak of the forward pass.
        forward_end: at its end, still inside autocast, whose copies of trained weights are alive.
        saved: after it, outside autocast.
        backward: the peak of the backward pass, where all blocks but the last still keep what they need.
        backward_end: the same where only the first block is left.
        no_grad: the peak of a forward pass without gradients.
    """

    forward: int
    forward_end: int
    saved: int
    backward: int
    backward_end: int
    no_grad: int


@dataclass(frozen=True)
class _Pass:
    forward: int
    forward_end: int
    saved: int
    backward: int


def measure_activations(
    config: PreTrainedConfig,
    peft_config: PeftConfig | None,
    compute: Compute,
    *,
    rows: int,
    length: int,
    blocks: int,
    reference_rows: int,
) -> Activations:
    """Activations of a decoder of `blocks` differentiated blocks like the config's.

    Models of one to three blocks are run on fake tensors, which have shapes and no memory; every further block costs
    the same, so the rest is a straight line. Models whose blocks differ are taken for models of their first three.

    Args:
        config: of the whole model.
        peft_config: adds an adapter.
        compute: precision, attention and checkpointing.
        rows: B of the batch.
        length: L.
        blocks: decoder blocks that are differentiated.
        reference_rows: rows of the forward without gradients, 0 where there is none.

    Raises:
        ValueError: the model cannot be run on fake tensors.
    """
    run = _Runs(config, peft_config, compute)
    one, two, three = (run.training(number, rows, length) for number in (1, 2, 3))

    def all_blocks(name: str) -> int:
        # The first block differs where nothing below it is trained.
        second, third = getattr(two, name), getattr(three, name)
        return getattr(one, name) if blocks == 1 else second + (third - second) * (blocks - 2)

    return Activations(
        forward=all_blocks("forward"),
        forward_end=all_blocks("forward_end"),
        saved=all_blocks("saved"),
        backward=all_blocks("backward"),
        backward_end=one.backward,
        no_grad=run.no_grad(2, reference_rows, length) if reference_rows else 0,
    )


@dataclass(frozen=True)
class _Runs:
    config: PreTrainedConfig
    peft_config: PeftConfig | None
    compute: Compute

    def training(self, blocks: int, rows: int, length: int) -> _Pass:
        with self._decoder(blocks, length) as (decoder, weights):
            for weight in weights:
                if weight.requires_grad:
                    weight.register_post_accumulate_grad_hook(_drop_gradient)
            inputs, live = self._inputs(rows, length), LiveBytes()
            live.ignore(tensor for tensor in (*weights, *decoder.buffers(), *inputs.values()) if tensor is not None)
            with live:
                with self._autocast():
                    hidden = decoder(**inputs, use_cache=False).last_hidden_state
                    forward, forward_end = live.peak, live.now
                saved = live.now
                live.restart_peak()
                if hidden.requires_grad:
                    hidden.backward(torch.empty_like(hidden))
            return _Pass(forward, forward_end, saved, live.peak)

    def no_grad(self, blocks: int, rows: int, length: int) -> int:
        with self._decoder(blocks, length) as (decoder, weights), torch.no_grad():
            inputs, live = self._inputs(rows, length), LiveBytes()
            live.ignore(tensor for tensor in (*weights, *decoder.buffers(), *inputs.values()) if tensor is not None)
            with live, self._autocast():
                decoder(**inputs, use_cache=False)
            return live.peak

    @contextlib.contextmanager
    def _decoder(self, blocks: int, length: int) -> Iterator[tuple[Any, list[torch.Tensor]]]:
        """The decoder below the head, of so many blocks, and its weights; everything inside is fake."""
        model = self._meta_model(blocks, length)
        if not self.compute.dropout:
            disable_dropout(model)
        if self.compute.checkpointing:
            # The state of random numbers is no fake tensor, and dropout is off.
            kwargs = {"use_reentrant": False, "preserve_rng_state": False}
            model.activation_checkpointing_enable(activation_checkpointing_kwargs=kwargs)
            model.disable_input_require_grads()  # as callbacks.SpareFrozenPrefix
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        with FakeTensorMode():
            _materialise(base.base_model)
            try:
                yield base.base_model, list(base.base_model.parameters())
            except (DataDependentOutputException, DynamicOutputShapeException) as error:
                raise input_error(
                    expected="a model whose forward pass depends on shapes alone",
                    got=f"{type(base).__name__}, whose operation {error.func} depends on values",
                    why="the plan runs it on tensors that have a shape and no values",
                    fix="plan for a dense model of the same sizes",
                ) from None

    def _meta_model(self, blocks: int, length: int) -> Any:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                _shortened(self.config, blocks, length),
                dtype=self.compute.dtype,
                attn_implementation=_traceable(self.compute.attention),
            ).train()
            if self.peft_config is None:
                return model
            adapters = self.compute.fp32_adapters
            model = get_peft_model(model, copy.deepcopy(self.peft_config), autocast_adapter_dtype=adapters)
            return model if adapters else model.to(self.compute.dtype)

    def _inputs(self, rows: int, length: int) -> dict[str, torch.Tensor | None]:
        ids = torch.zeros((rows, length), dtype=torch.long)
        # Kernels of flash attention take the lengths of rows in place of a mask.
        masked = "flash" not in self.compute.attention
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids) if masked else None}

    def _autocast(self) -> torch.autocast:
        dtype = self.compute.autocast
        return torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def _drop_gradient(weight: torch.Tensor) -> None:
    weight.grad = None


def _materialise(model: nn.Module) -> None:
    """Fake tensors of a CPU in place of those of no device; inside a FakeTensorMode."""
    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        tables: list[dict[str, Any]] = [module._parameters, module._buffers]
        for table in tables:
            for name, old in table.items():
                if old is not None and id(old) not in made:
                    new = torch.empty(old.shape, dtype=old.dtype)
                    made[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
                table[name] = old if old is None else made[id(old)]


def _shortened(config: PreTrainedConfig, blocks: int, length: int) -> PreTrainedConfig:
    short = copy.deepcopy(config)
    short.num_hidden_layers = blocks
    short.vocab_size = _VOCABULARY
    if hasattr(short, "max_position_embeddings"):
        short.max_position_embeddings = length
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(short, name, None)
    if getattr(short, "layer_types", None):
        short.layer_types = short.layer_types[:blocks]
    return short


def _traceable(attention: str) -> str:
    """Fused attention keeps the same tensors whoever wrote the kernel: query, key, value, output and normalisers."""
    return "eager" if attention == "eager" else "sdpa"
