"""Decoder blocks of a model, and the hidden states that are read at their outputs during a forward."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import input_error
from .forward_patching import hidden_of, output_hooks, skipped_blocks


def decoder_blocks(model: Any) -> nn.ModuleList:
    """The decoder blocks of a causal language model, in order.

    Raises:
        ValueError: no list of modules, or several, with as many members as the config has layers.
    """
    layers = model.config.get_text_config().num_hidden_layers
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == layers]
    # A list inside of a block, such as the experts of a mixture, may happen to have as many members.
    outermost = [m for m in lists if not any(m is not other and m in set(other.modules()) for other in lists)]
    if len(outermost) != 1:
        raise input_error(
            expected=f"a model with one list of {layers} decoder blocks (num_hidden_layers)",
            got=f"{len(outermost)} such lists in {type(model).__name__}",
            why="hidden states are read at the output of a block",
            fix="use a loss or step wrapper without a `layer`, or a model of the usual decoder layout",
        )
    return outermost[0]


def block_number(layer: float, blocks: int) -> int:
    """How many blocks have run at a `layer`: itself from 1 on, a share of all blocks below 1 (at least one block).

    Raises:
        ValueError: beyond the last block.
    """
    number = max(1, round(layer * blocks)) if layer < 1 else int(layer)
    if number > blocks:
        raise input_error(
            expected=f"a layer of at most {blocks}, the model's blocks, or a share of the depth below 1",
            got=f"{layer:g}",
            why="no hidden state comes out there",
            fix="layer=0.33 is a third of the depth of any model",
        )
    return number


def layer_problem(layer: float) -> str | None:
    """What a `layer` must be, where it is not."""
    if 0 < layer < 1 or (layer >= 1 and float(layer).is_integer()):
        return None
    return "a share of the depth between 0 and 1, or a whole number of blocks"


@dataclass(frozen=True)
class HiddenStateCapture:
    """Where hidden states are read: the output of decoder blocks, before any final norm.

    Args:
        blocks: all decoder blocks.
        layers: layers to read, as losses name them.
    """

    blocks: nn.ModuleList
    layers: frozenset[float]

    @property
    def deepest(self) -> int:
        """Blocks that must run for all of them."""
        return max(block_number(layer, len(self.blocks)) for layer in self.layers)

    @contextlib.contextmanager
    def capture(self, *, above: bool = True) -> Iterator[dict[float, Tensor]]:
        """Fills a mapping layer -> hidden states [B, L, H] in the forward inside.

        Args:
            above: what comes above the deepest layer is differentiated too; False runs it without a graph, for numbers
                that no loss reads.
        """
        states: dict[float, Tensor] = {}
        numbers = {layer: block_number(layer, len(self.blocks)) for layer in self.layers}
        grad_enabled = torch.is_grad_enabled()

        def keep(number: int, _: nn.Module, __: Any, output: Any) -> None:
            # Only stored: an operation here would be one that activation checkpointing does not repeat.
            states.update({layer: hidden_of(output) for layer, own in numbers.items() if own == number})
            # Off from here to the end of the forward, where `score` switches it on again for DDP.
            if number == self.deepest and not above:
                torch.set_grad_enabled(False)

        with output_hooks([(self.blocks[number - 1], partial(keep, number)) for number in set(numbers.values())]):
            try:
                yield states
            finally:
                torch.set_grad_enabled(grad_enabled)  # also after an error above the deepest layer

    def early_exit(self) -> contextlib.AbstractContextManager[None]:
        """The blocks above the deepest layer hand on what they are given: the forward ends there in all but name.

        A block whose output is more than its hidden states is run as ever.
        """
        return skipped_blocks(self.blocks, self.deepest)
