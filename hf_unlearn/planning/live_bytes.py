"""Counts the bytes of the tensors that are alive, and their peak, on any device and for fake tensors."""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations inside make, each once and until it is freed.

    What a kernel takes and gives back inside itself is not seen, nor what an allocator rounds up or keeps.

    Attributes:
        now: bytes alive.
        peak: the highest `now` since the start, or since `restart_peak`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen = WeakIdKeyDictionary()

    def ignore(self, tensors: Iterable[torch.Tensor]) -> None:
        """Leave out what was there before."""
        for tensor in tensors:
            self._seen[tensor.untyped_storage()] = True

    def count(self, tensors: Iterable[torch.Tensor]) -> None:
        """Count what was there before, too."""
        for tensor in tensors:
            self._add(tensor)

    def restart_peak(self) -> None:
        """Look for the peak from here on."""
        self.peak = self.now

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._seen:
            return
        self._seen[storage] = True
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, size)

    def _drop(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self.count(leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor))
        return output
