"""Counts a model's parameters, and those that are trained, on the meta device."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from ..model.hidden_states import decoder_blocks


@dataclass(frozen=True)
class Counts:
    """Elements of a model's parameters, shared ones once.

    Attributes:
        frozen: not trained.
        trained: with gradients and optimizer states; adapters alone under LoRA.
        adapters: those that an adapter adds, trained or not.
        linear: frozen weights of linear layers other than the head: what quantisation stores in fewer bits.
        block: of the largest decoder block, adapters included; `trained_block` those trained, of the block with most.
        embedding: the input embedding's; `head` the output head's own, 0 where it is tied to the input embedding.
        largest: the largest parameter.
        trained_largest: the largest one that is trained, 0 without any.
        factored: rows and columns of all trained matrices, and elements of trained vectors: Adafactor's states.
        trains_embedding: whether the input embedding is trained; `trains_head` whether the head's weight is.
        buffers: elements of buffers.
    """

    frozen: int
    trained: int
    adapters: int
    linear: int
    block: int
    trained_block: int
    embedding: int
    head: int
    largest: int
    trained_largest: int
    factored: int
    trains_embedding: bool
    trains_head: bool
    buffers: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.frozen + self.trained

    @property
    def tied(self) -> bool:
        """Whether head and input embedding are one weight."""
        return self.head == 0


def meta_model(config: PreTrainedConfig, peft_config: PeftConfig | None) -> Any:
    """The model, and its adapter, with shapes alone."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        # A copy, since PEFT writes the model's name into it.
        return model if peft_config is None else get_peft_model(model, copy.deepcopy(peft_config))


def count_parameters(config: PreTrainedConfig, peft_config: PeftConfig | None = None) -> Counts:
    """Exact counts of a causal language model with this config, and of the adapter that would be put on it.

    Raises:
        ValueError: PEFT finds nothing to adapt.
    """
    model = meta_model(config, peft_config)
    weights = list(model.parameters())
    trained = [weight for weight in weights if weight.requires_grad]
    blocks = list(decoder_blocks(model))
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    plain = model if peft_config is None else meta_model(config, None)
    linear = [m.weight for b in blocks for m in b.modules() if isinstance(m, nn.Linear) and not m.weight.requires_grad]
    return Counts(
        frozen=_elements(w for w in weights if not w.requires_grad),
        trained=_elements(trained),
        adapters=_elements(weights) - _elements(plain.parameters()),
        linear=_elements(linear),
        block=max(_elements(block.parameters()) for block in blocks),
        trained_block=max(_elements(w for w in block.parameters() if w.requires_grad) for block in blocks),
        embedding=embedding.numel(),
        head=0 if head is embedding else head.numel(),
        largest=max(weight.numel() for weight in weights),
        trained_largest=max((weight.numel() for weight in trained), default=0),
        factored=sum(_factored(weight) for weight in trained),
        trains_embedding=embedding.requires_grad,
        trains_head=head.requires_grad,
        buffers=_elements(model.buffers()),
    )


def _elements(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _factored(weight: torch.Tensor) -> int:
    return (
        weight.numel() if weight.ndim < 2 else weight.numel() // weight.shape[-1] + weight.numel() // weight.shape[-2]
    )
