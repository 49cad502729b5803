"""Counts the bytes of the tensors that are alive inside a block, exactly: no resident set, no allocator.

A storage counts from the operation that puts it out until its last tensor is gone. What an operation takes and gives
back inside itself is not seen. Sizes come from the storages, so tensors on `meta` and fake tensors count too.
"""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Within the block, remembers when each new storage came and went.

    with LiveMemory() as memory:
        loss = model(**batch).loss
        loss.backward()
        memory.leave_out(parameter.grad for parameter in model.parameters())
    memory.peak()                       # bytes of what the block made, as if the gradients had never been
    memory.peak(everything=True)        # gradients too

    Storages that were there before the block do not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self._events: list[tuple[int, int]] = []  # (which storage, bytes that came or, below zero, went)
        self._sizes: list[int] = []  # bytes that count of each storage, by the number that events call it by
        self._alive: dict[int, tuple[int, weakref.ref[Any]]] = {}  # by identity: the number, and who tells the end
        self._old: set[int] = set()  # numbers of storages that were there before
        self._left_out: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.ops.aten.lift_fresh.default:  # whose argument torch.tensor(...) has just made
            # Operations hand back what they are given (views, in-place); what was not made here must not count then.
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, torch.Tensor):
                    self._watch(leaf, old=True)
        output = func(*args, **kwargs)
        for leaf in tree_leaves(output):
            if isinstance(leaf, torch.Tensor):
                self._watch(leaf, old=False)
        return output

    def _watch(self, tensor: torch.Tensor, old: bool) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key not in self._alive:
            number = len(self._sizes)
            self._sizes.append(0)
            if old:
                self._old.add(number)
            self._alive[key] = number, weakref.ref(storage, lambda _: self._end(key))
        number, _ = self._alive[key]
        if number not in self._old and storage.nbytes() != self._sizes[number]:  # new, or resized
            self._events.append((number, storage.nbytes() - self._sizes[number]))
            self._sizes[number] = storage.nbytes()

    def _end(self, key: int) -> None:
        number, _ = self._alive.pop(key)
        self._events.append((number, -self._sizes[number]))

    def leave_out(self, tensors: Iterable[torch.Tensor]) -> None:
        """Tensors, alive now, that `peak` is not to count: not before this call either."""
        for tensor in tensors:
            entry = self._alive.get(id(tensor.untyped_storage()))
            if entry is not None:
                self._left_out.add(entry[0])

    def peak(self, everything: bool = False) -> int:
        """The most bytes alive at once; with `everything`, those left out too."""
        alive = highest = 0
        for number, change in self._events:
            if everything or number not in self._left_out:
                alive += change
                highest = max(highest, alive)
        return highest
