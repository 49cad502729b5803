"""Everything that changes how a model's forward runs, each change for one call, and how it is undone.

Who changes what:
    output_head     the head computes values at answer positions instead of logits (`ForwardStandIn`), while scales and
                    caps that the model would put on logits are neutral (`replaced_attributes`)
    hidden_states   outputs of decoder blocks are read (`output_hooks`), and gradients are off above the last of them
                    where no loss reads more; or the blocks above hand on their input (`skipped_blocks`)
    scoring         gradients are on again at the end of that forward (`grad_mode_after`)
    attacks         outputs of decoder blocks and of the embedding are replaced (`replaced_output`)
    edits           what linear layers read is heard (`output_hooks`), tokens are counted (`call_hook`), and a forward
                    that another trainer has set is taken back (`restored_forward`)
    step/forward    hidden states of forget rows are perturbed (`shifted_output`); under DDP hidden states are part of
                    the model's output (`hidden_states_in_output`)
The one change that stays between calls, until its handle takes it off, is a suppression's: `suppressed_forward`.

Invariants:
1. A change lasts for the `with` block around one call of the model. On the way out, also after an error or an
   interrupt, the module is as it was found: a `forward` that accelerate, FSDP or a user had set on the instance is
   set again, otherwise the attribute is deleted and the class's own is seen.
2. `module.forward` is replaced, never `module.__call__`, and no module is wrapped in another. ZeRO-3 and FSDP2 gather
   split weights in hooks around `__call__`, in the forward and in the backward pass: work done elsewhere would see
   empty shards. A wrapper module would also rename weights, by which checkpoints, LoRA targets, FSDP's wrapping policy
   and tied weights find them.
3. The model is called through its outermost wrapper and returns normally. Raising an error to leave a forward early
   would leave the reducer of DDP and the prefetching of ZeRO-3 and FSDP in the middle of a step.
4. What carries gradients leaves through the model's output. DDP looks there for what a backward pass will reach, and
   FSDP2 and ZeRO-3 hang their backward hooks on it.
5. The forward that stands in for a head's is one object for all calls, hidden from torch.compile. Dynamo guards on the
   identity of `module.forward`: a new closure every step would compile the model again every step.
6. Not re-entrant: one forward of a model at a time (asserted for heads). Several models may be changed at once, as a
   policy and its frozen reference are. The backward pass runs outside of the `with` block and depends on no change.
7. A hook only stores, adds or switches: activation checkpointing runs blocks again in the backward pass, when the
   hooks are gone, so nothing that autograd saves may come from a hook.
"""

import contextlib
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedConfig

Forward = Callable[[Tensor], Tensor]
# (module, positional arguments, output) -> None, or another output
OutputHook = Callable[[nn.Module, Any, Any], Any]


def hidden_of(output: Any) -> Tensor:
    """The hidden states in what a decoder block puts out: itself, or the first of a tuple."""
    return output if isinstance(output, Tensor) else output[0]


# A module's own forward


@contextlib.contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Inside, a module computes `forward`; its hooks and those of its wrappers run as ever."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward  # the class's own is seen again
        else:
            module.forward = own


@contextlib.contextmanager
def restored_forward(module: nn.Module) -> Iterator[None]:
    """Afterwards a module has the forward that it had, whatever others have set on it inside."""
    own = vars(module).get("forward")
    try:
        yield
    finally:
        vars(module).pop("forward", None)
        if own is not None:
            module.forward = own


def call_hook(model: nn.Module, hook: Callable[[nn.Module, Any, Any], None]) -> RemovableHandle:
    """Let a hook see what a model is called with (positional and named arguments), its copies too, until removed."""
    return model.register_forward_pre_hook(hook, with_kwargs=True)


class ForwardStandIn:
    """What an output head computes in place of its own forward: another function in each call, behind one object.

    Args:
        module: the head; held weakly, because this lives as long as the model does (see `output_head`).
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = weakref.ref(module)
        self._own: Forward | None = None
        self._compute: Callable[[Forward, Tensor], Tensor] | None = None
        self._forward = torch.compiler.disable(self._run)  # once: invariant 5

    @property
    def module(self) -> nn.Module | None:
        """The head, None when it is gone."""
        return self._module()

    @contextlib.contextmanager
    def computing(self, compute: Callable[[Forward, Tensor], Tensor]) -> Iterator[None]:
        """Inside, the head puts out compute(its own forward, hidden states [B, L, H])."""
        module = self._module()
        assert module is not None, "the model of this head is gone"
        assert self._compute is None, "a forward of this head is running already"
        self._own, self._compute = module.forward, compute
        try:
            with replaced_forward(module, self._forward):
                yield
        finally:
            # Not kept: both hold the head, and its weights, in memory.
            self._own = self._compute = None

    def _run(self, hidden: Tensor) -> Tensor:
        assert self._own is not None and self._compute is not None
        return self._compute(self._own, hidden)


@contextlib.contextmanager
def skipped_blocks(blocks: nn.ModuleList, number: int) -> Iterator[None]:
    """Inside, the blocks after the first `number` hand on what they are given: the forward ends there in all but name.

    A block whose output is more than its hidden states is run as ever.
    """
    plain = [True]  # whether the last block that runs puts out a tensor, as the skipped ones then do

    def look(_: nn.Module, __: Any, output: Any) -> None:
        plain[0] = isinstance(output, Tensor)

    with contextlib.ExitStack() as stack:
        stack.enter_context(output_hooks([(blocks[number - 1], look)]))
        for block in blocks[number:]:
            stack.enter_context(replaced_forward(block, partial(_hand_on, block.forward, plain)))
        yield


def _hand_on(forward: Callable[..., Any], plain: list[bool], *args: Any, **kwargs: Any) -> Any:
    return args[0] if plain[0] and args else forward(*args, **kwargs)


# What modules put out


@contextlib.contextmanager
def output_hooks(hooks: Iterable[tuple[nn.Module, OutputHook]]) -> Iterator[None]:
    """Inside, every module calls its hook with what it puts out."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def grad_mode_after(module: nn.Module, enabled: bool) -> contextlib.AbstractContextManager[None]:
    """Inside, gradients are on or off from the end of the module's forward."""

    def switch(_: nn.Module, __: Any, ___: Any) -> None:  # what a hook returns would replace the output
        torch.set_grad_enabled(enabled)

    return output_hooks([(module, switch)])


def shifted_output(block: nn.Module, delta: Tensor) -> contextlib.AbstractContextManager[None]:
    """Inside, delta [B, L, H] is added to the hidden states that a decoder block puts out."""

    def add(_: nn.Module, __: Any, output: Any) -> Any:
        hidden = hidden_of(output)
        moved = hidden + delta.to(hidden.dtype)
        return moved if isinstance(output, Tensor) else (moved, *output[1:])

    return output_hooks([(block, add)])


def replaced_output(module: nn.Module, compute: Callable[[Tensor], Tensor]) -> contextlib.AbstractContextManager[None]:
    """Inside, a decoder block or an embedding puts out compute(its own hidden states) in place of them."""

    def replace(_: nn.Module, __: Any, output: Any) -> Any:
        hidden = compute(hidden_of(output))
        return hidden if isinstance(output, Tensor) else (hidden, *output[1:])

    return output_hooks([(module, replace)])


def hidden_states_in_output(
    model: nn.Module, blocks: Collection[nn.Module]
) -> contextlib.AbstractContextManager[None]:
    """Inside, the model puts out the hidden states of some blocks too: invariant 4, for losses that read no logits."""
    hidden: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        hidden.append(hidden_of(output))

    def put_out(_: nn.Module, __: Any, output: Any) -> None:
        output["hidden_states"] = tuple(hidden)

    return output_hooks([*((block, keep) for block in blocks), (model, put_out)])


# What a model reads of its configuration


@contextlib.contextmanager
def replaced_attributes(values: Collection[tuple[Any, str, Any]]) -> Iterator[None]:
    """Inside, attributes have other values: (what holds it, its name, the value)."""
    # Around the holder's own __setattr__: configurations check types, and a neutral None may not be of the right one.
    values = [(holder, _stored_name(holder, name), value) for holder, name, value in values]
    own = [(holder, name, getattr(holder, name)) for holder, name, _ in values]
    for holder, name, value in values:
        object.__setattr__(holder, name, value)
    try:
        yield
    finally:
        for holder, name, value in own:
            object.__setattr__(holder, name, value)


def _stored_name(holder: Any, name: str) -> str:
    """The name under which a configuration keeps what is asked of it by another."""
    return holder.attribute_map.get(name, name) if isinstance(holder, PreTrainedConfig) else name
