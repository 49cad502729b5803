"""The forward of a model whose answers are suppressed: its own, with a suppressor around it. No weight changes.

It stands where `model.forward` does, on the object and not on its class, for whatever calls the model: scoring,
`generate`, attacks, a PeftModel around it. A deep copy of the model has one of its own; the suppressor is shared.
"""

import contextlib
import copy
import inspect
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from peft import PeftModel
from torch import Tensor, nn

from ..errors import input_error

# The attribute of a causal language model that holds its `SuppressedForward`, and of a cache that holds its tokens.
_ATTRIBUTE = "_hf_unlearn_suppressed"
_TOKENS = "_hf_unlearn_tokens"


@dataclass(frozen=True)
class Text:
    """What a model has read up to the end of a call, the tokens of its cache included.

    Attributes:
        ids: [B, L].
        mask: 0 on padding, [B, L].
        new: how many of the L columns are read in this call.
    """

    ids: Tensor
    mask: Tensor
    new: int


class Suppresses(Protocol):
    """What a forward asks of a suppressor."""

    @property
    def changes_logits(self) -> bool:
        """Whether `change` has to be called: with the logits of all positions that are read, and before any use."""
        ...

    @property
    def identity(self) -> str:
        """A hash of all that it does."""
        ...

    def forward(self, model: Any, own: Callable[..., Any], inputs: dict[str, Any], text: Text) -> Any:
        """The output of the model's own forward, called with inputs that may be others."""
        ...

    def change(self, logits: Tensor, text: Text, positions: Tensor) -> Tensor:
        """Logits [T, V] at positions [T] of the texts laid flat, [B L], as they are to be."""
        ...


class SuppressedForward:
    """What a causal language model computes in place of its own forward.

    Args:
        owner: the model, without an adapter's wrapper; held weakly, because it holds this.
        suppressor: None computes the model's own forward.
    """

    def __init__(self, owner: nn.Module, suppressor: Suppresses | None) -> None:
        self._owner = weakref.ref(owner)
        self._former = vars(owner).get("forward")
        self.__signature__ = inspect.signature(owner.forward)
        self.suppressor = suppressor
        self._whole = True  # logits come out of the model, of every position that it was asked for
        self._asked: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "SuppressedForward":
        copied = copy.copy(self)
        copied._owner = weakref.ref(memo.get(id(self.owner), self.owner))
        copied._former = copy.deepcopy(self._former, memo)
        return copied

    @property
    def owner(self) -> Any:
        """The model."""
        owner = self._owner()
        assert owner is not None, "the model of this forward is gone"
        return owner

    def __call__(self, *args: Any, **named: Any) -> Any:
        owner = self.owner
        own = self._former or type(owner).forward.__get__(owner)
        if self.suppressor is None:
            return own(*args, **named)
        inputs = dict(zip(self.__signature__.parameters, args, strict=False)) | named
        text = _text_so_far(inputs)
        output = self.suppressor.forward(owner, own, dict(inputs), text)
        if self.suppressor.changes_logits:
            self._change(owner, output, inputs, text)
        _keep_tokens(getattr(output, "past_key_values", None), text.ids)
        return output

    @contextlib.contextmanager
    def asked(self, positions: Tensor | None) -> Iterator[None]:
        """Inside, the model puts out logits [1, T, V] of these positions of the batch laid flat; none if None."""
        self._whole, self._asked = False, positions
        try:
            yield
        finally:
            self._whole, self._asked = True, None

    def leave(self) -> None:
        """Take the model's own forward again; where something was put around this one, only hand on to it."""
        owner, self.suppressor = self.owner, None
        if vars(owner).get("forward") is self:
            if self._former is None:
                del owner.forward
            else:
                owner.forward = self._former
        vars(owner).pop(_ATTRIBUTE, None)

    def _change(self, owner: Any, output: Any, inputs: Mapping[str, Any], text: Text) -> None:
        if not self._whole:
            if self._asked is not None:
                output.logits = self.suppressor.change(output.logits[0], text, self._asked)[None]  # type: ignore[union-attr]
            return
        raw: Tensor = output.logits
        columns = _columns(inputs.get("logits_to_keep", 0), text).to(raw.device)
        assert raw.shape[:2] == (len(text.ids), len(columns)), "logits of other positions than were asked for"
        rows = torch.arange(len(text.ids), device=raw.device)[:, None] * text.ids.shape[1]
        changed = self.suppressor.change(raw.flatten(0, 1), text, (rows + columns).flatten())  # type: ignore[union-attr]
        output.logits = changed.view(*raw.shape)
        if inputs.get("labels") is not None and output.loss is not None:
            # The model's own loss may have more than the NLL in it, which stays.
            output.loss = output.loss + _loss(owner, output.logits, inputs) - _loss(owner, raw, inputs)


def suppress_forward(model: Any, suppressor: Suppresses) -> SuppressedForward:
    """Let a suppressor stand around a model's forward.

    Args:
        model: not wrapped; of a PeftModel the model inside is what computes.

    Raises:
        ValueError: it has a suppressor already.
    """
    owner = _owner_of(model)
    if suppressed_forward(owner) is not None:
        raise input_error(
            expected="a model whose answers nothing suppresses yet",
            got="one with a suppressor",
            why="what the two do together was never measured, and removing one would not restore the model",
            fix="remove the first one: handle.remove(), or hf_unlearn.suppression.remove_suppression(model)",
        )
    forward = SuppressedForward(owner, suppressor)
    vars(owner)[_ATTRIBUTE] = owner.forward = forward
    return forward


def suppressed_forward(model: Any) -> SuppressedForward | None:
    """What stands around a model's forward; None where nothing does."""
    return vars(_owner_of(model)).get(_ATTRIBUTE)


def suppression_identity(model: Any) -> str | None:
    """A hash of what suppresses a model's answers; None where nothing does."""
    forward = suppressed_forward(model)
    return None if forward is None or forward.suppressor is None else forward.suppressor.identity


@contextlib.contextmanager
def unsuppressed(model: Any) -> Iterator[None]:
    """Inside, a model answers by its weights alone."""
    forward = suppressed_forward(model)
    kept = None if forward is None else forward.suppressor
    if forward is not None:
        forward.suppressor = None
    try:
        yield
    finally:
        if forward is not None:
            forward.suppressor = kept


def _owner_of(model: Any) -> Any:
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _columns(kept: Any, text: Text) -> Tensor:
    """Which columns of the text logits are put out of, given the model's `logits_to_keep`."""
    columns = torch.arange(text.ids.shape[1] - text.new, text.ids.shape[1])
    if isinstance(kept, Tensor):
        return columns[kept.cpu()]
    return columns[-kept:] if kept else columns


def _loss(owner: Any, logits: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    more = {name: inputs[name] for name in ("num_items_in_batch",) if name in inputs}
    size = owner.config.get_text_config().vocab_size
    loss: Tensor = owner.loss_function(logits=logits, labels=inputs["labels"], vocab_size=size, **more)
    return loss


# What is in the cache


def _text_so_far(inputs: Mapping[str, Any]) -> Text:
    ids, mask, cache = (inputs.get(name) for name in ("input_ids", "attention_mask", "past_key_values"))
    if not isinstance(ids, Tensor):
        raise _unreadable("input_ids", "embeddings alone")
    if "cu_seq_lens_q" in inputs or inputs.get("cache_params") is not None:
        raise _unreadable("padded rows, and a cache of keys and values", "rows in one line, or another kind of cache")
    new = ids.shape[1]
    if cache is not None and cache.get_seq_length() > 0:
        ids = torch.cat([_kept_tokens(cache, len(ids)).to(ids.device), ids], dim=1)
    if mask is None:
        mask = torch.ones_like(ids)
    if not isinstance(mask, Tensor) or mask.shape != ids.shape:
        raise _unreadable(f"an attention_mask {tuple(ids.shape)}, of all tokens so far", "one of another shape")
    return Text(ids, mask, new)


def _keep_tokens(cache: Any, ids: Tensor) -> None:
    """Keep on a cache of keys and values which tokens it is of; a copy of the cache has them, too."""
    if cache is not None:
        vars(cache)[_TOKENS] = (ids, _first_keys(cache))


def _kept_tokens(cache: Any, rows: int) -> Tensor:
    """The tokens of a cache, unless something has changed it since they were kept."""
    kept: tuple[Tensor | None, Tensor | None] = vars(cache).get(_TOKENS, (None, None))
    ids, keys = kept
    if ids is None or keys is not _first_keys(cache) or len(ids) != rows:
        raise _unreadable(
            "a cache as calls of this model left it", "one that was filled elsewhere, reordered (num_beams) or cut"
        )
    return ids


def _first_keys(cache: Any) -> Tensor | None:
    keys = (getattr(layer, "keys", None) for layer in getattr(cache, "layers", ()))
    return next((one for one in keys if isinstance(one, Tensor)), None)


def _unreadable(expected: str, got: str) -> ValueError:
    return input_error(
        expected=f"{expected}, for a model whose answers are suppressed",
        got=got,
        why="the suppressor has to know the text that each logit follows",
        fix="call the model with token ids and a 2D mask, and generate with num_beams=1; or remove the suppressor",
    )
