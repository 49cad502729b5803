"""Counts the tokens that models read while an edit is done."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..model.forward_patching import call_hook


class TokensRead:
    """Counts the tokens that models read, without padding.

    Attributes:
        tokens: so far.
    """

    def __init__(self) -> None:
        self.tokens = 0

    def count(self, model: nn.Module) -> Any:
        """Count what a model reads from now on, and what its copies read; the handle takes the hook off again."""

        def add(module: nn.Module, arguments: Any, named: Mapping[str, Any]) -> None:  # a copy keeps a function
            ids = named.get("input_ids", arguments[0] if arguments else None)
            if isinstance(ids, Tensor):
                mask = named.get("attention_mask")
                if isinstance(mask, Tensor) and mask.dim() == 2:  # of cached tokens, too, which are not read again
                    self.tokens += int(mask[:, -ids.shape[1] :].sum())
                else:
                    self.tokens += ids.numel()

        return call_hook(model, add)

    @contextmanager
    def counted(self, model: nn.Module) -> Iterator[None]:
        """Count what a model reads inside."""
        handle = self.count(model)
        try:
            yield
        finally:
            handle.remove()
