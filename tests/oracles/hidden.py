"""Naive oracles of the losses on hidden states, one row at a time, read by a forward hook. Not for training.

The manner and the rows are those of `oracles.naive`. `block` counts decoder blocks from 1: h is what the block-th
block puts out, before any final norm, at the positions that predict the answer tokens (the positions of
`answer_logits`), with d its size. The losses are means over d, then over all answer tokens of all rows, pooled.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import OPTForCausalLM

from hf_unlearn.errors import input_error
from oracles.naive import Row, Rows, _kept, _under_reference, answer_logits, shift_check


def decoder_blocks(model: nn.Module) -> nn.ModuleList:
    """The decoder blocks of an OPT model, or of one laid out like Llama, under a PEFT adapter or not."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if isinstance(base, OPTForCausalLM):
        return base.model.decoder.layers
    return base.model.layers


@contextmanager
def hooked(model: nn.Module, block: int, on_output: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Inside the context, `on_output` sees what the block puts out, [1, L, d]; a tensor it returns stands in for it.

    Raises:
        ValueError: the model has no such block.
    """
    blocks = decoder_blocks(model)
    if not 1 <= block <= len(blocks):
        raise input_error(
            expected=f"a block from 1 to {len(blocks)}",
            got=f"block {block}",
            why="blocks are counted from 1, and 0 or a negative number would silently take the last ones",
            fix="pass the number of decoder blocks that the hidden states have been through",
        )
    handle = blocks[block - 1].register_forward_hook(lambda module, inputs, output: on_output(output))
    try:
        yield
    finally:
        handle.remove()


def hidden_states(model: nn.Module, row: Row, block: int) -> Tensor:
    """What the block puts out at every position of a row, prompt too: [L, d], in the model's precision."""
    outputs: list[Tensor] = []
    with hooked(model, block, outputs.append):  # append returns None, so the forward goes on as it would
        answer_logits(model, row)
    (output,) = outputs  # one forward, one call of the block
    return output[0]


def answer_hidden(model: nn.Module, row: Row, block: int) -> Tensor:
    """h at the positions that predict the row's n answer tokens: [n, d], in fp32 (fp64 for a model in double)."""
    states = hidden_states(model, row, block)
    if states.dtype != torch.float64:
        states = states.float()
    return torch.stack([states[position] for position, _ in shift_check(row)])


def rmu_direction(size: int, seed: int) -> Tensor:
    """RMU's u: [d], drawn from uniform[0, 1]^d on the CPU in fp32, then brought to length 1."""
    draw = torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return draw / draw.square().sum().sqrt()


def rmu(
    model: nn.Module, forget_rows: Rows, block: int, c: float, seed: int, active: list[bool] | None = None
) -> Tensor:
    """mean_t MSE(h, c u), u = `rmu_direction(d, seed)` (Li et al., arXiv 2403.03218).

    `active` is the row bound of `oracles.naive`: an inactive row's tokens are detached and stay in the mean.
    """
    terms = []
    for row, kept in zip(forget_rows, _kept(forget_rows, active), strict=True):
        for state in answer_hidden(model, row, block):
            target = c * rmu_direction(len(state), seed).to(state)
            term = ((state - target) ** 2).mean()
            terms.append(term if kept else term.detach())
    return torch.stack(terms).mean()


def retain_hidden(model: nn.Module, reference: nn.Module, retain_rows: Rows, block: int) -> Tensor:
    """mean_t MSE(h, h_ref) at one block: RMU's partner (Li et al., arXiv 2403.03218)."""
    terms = []
    for row in retain_rows:
        before = _under_reference(lambda reference, row: answer_hidden(reference, row, block), reference, row)
        for state, state_ref in zip(answer_hidden(model, row, block), before, strict=True):
            terms.append(((state - state_ref) ** 2).mean())
    return torch.stack(terms).mean()
