"""The output head of a causal language model, run at answer positions in chunks, inside the model's own forward."""

import contextlib
import inspect
import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers.utils import logging

from ..errors import input_error
from .chunked_logits import read_positions
from .forward_patching import Forward, ForwardStandIn, replaced_attributes
from .head_backward import LMHead, has_active_dropout, restore_precision, without_disabled_adapters
from .head_query import HeadQuery, HeadResult, LogitCache, ReferenceLogits
from .logit_provider import DenseLogits, softmax_dtype
from .logit_transform import LogitTransform, configured_transform, neutral_settings
from .reference_logits import HeadLogits
from .suppressed_forward import SuppressedForward, suppressed_forward

logger = logging.get_logger(__name__)

# Numbers that a head puts out in place of logits, over and over, to see what the model makes of them.
_PROBES = (0.0, 1.0, -2.0, 3.0, 40.0)

# The attribute of a model that holds its `OutputHead`; see `output_head`.
_ATTRIBUTE = "_hf_unlearn_output_head"


class OutputHead:
    """How a causal language model's logits are had at chosen positions, a chunk at a time.

    The work is done inside the head's own forward, inside the model's own: there ZeRO-3 and FSDP have gathered the
    weights, in the forward as in the backward pass, and every wrapper sees one call as ever. For that call the head
    puts out values of positions in place of logits (`forward_patching` says what is changed, and how it is undone).

    A head of any kind will do: tied, with a bias, with an adapter on it. Scaled and soft-capped logits are computed
    here. What else a model may do to its logits is noticed once, by numbers that it is given in their place; such a
    model puts out the logits [T, V] of the answer positions, and only their softmaxes are in chunks.

    Args:
        model: not wrapped; a PeftModel or a model of transformers.

    Attributes:
        takes_positions: whether the model's forward takes position ids.
        vocabulary: logits of a position.
        positions: that the model has, as it was when this was made; None where it does not say.
    """

    def __init__(self, model: Any) -> None:
        module = model.get_output_embeddings()
        self._stand_in = ForwardStandIn(module)
        # Weakly: the model holds this object, and a cycle would keep its weights in memory after `del model`.
        self._owner = weakref.ref(model.get_base_model() if isinstance(model, PeftModel) else model)
        # Of the owner's own modules; empty for a head that lies deeper.
        self._name = next((name for name, child in self.owner.named_children() if child is module), "")
        self.takes_positions = "position_ids" in inspect.signature(self.owner.forward).parameters
        config = model.config.get_text_config()
        self.vocabulary: int = config.vocab_size
        self.positions: int | None = getattr(config, "max_position_embeddings", None)
        self._transform: LogitTransform | None = None
        self._chunked: bool | None = None  # unknown before the first call

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        # A copied or pickled model has None here and is given an OutputHead of its own when it is asked for one.
        return type(None), ()

    @property
    def module(self) -> nn.Module:
        """The head itself."""
        module = self._stand_in.module
        assert module is not None, "the model of this head is gone"
        return module

    @property
    def owner(self) -> Any:
        """The causal language model that it belongs to."""
        owner = self._owner()
        assert owner is not None, "the model of this head is gone"
        return owner

    @property
    def transform(self) -> LogitTransform:
        """From the head's logits to the model's."""
        return self._transform or LogitTransform()

    def is_head_of(self, model: Any) -> bool:
        """Whether it still is the head of a model: resizing the vocabulary makes another one."""
        module, owner = self._stand_in.module, self._owner()
        if module is not None and owner is not None and owner._modules.get(self._name) is module:
            return True  # in its place; to ask the model takes longer, and this is asked in every step
        return module is model.get_output_embeddings()

    def read(
        self, model: nn.Module, inputs: Mapping[str, Any], query: HeadQuery, *, full_logits: bool = False
    ) -> tuple[HeadResult, Any]:
        """One forward of a model whose head this is: the answer to a query, and the model's output.

        Args:
            model: what is called, wrapped or not.
            inputs: of its forward.
            query: of the answer positions.
            full_logits: leave the head to itself, and the logits of all positions in the output.

        Raises:
            ValueError: a head that is not fed hidden states [B, L, H].
        """
        if not self.takes_positions:  # it counts for itself, by the mask
            inputs = {name: value for name, value in inputs.items() if name != "position_ids"}
        if full_logits:
            output = model(**inputs, use_cache=False)
            return self._read_dense(output.logits.flatten(0, 1)[query.positions], query), output
        reads_logits = query.compute_logps or query.keep is not LogitCache.NOTHING
        changed = self._changed_logits()
        if reads_logits and changed is None:
            self.examine(model, inputs)
        # Otherwise the values are computed in the head, and its logits never leave it.
        held = changed is not None or query.keep is LogitCache.LOGITS
        dense = reads_logits and (held or not self._chunked or has_active_dropout(self.module))
        shape = inputs["input_ids"].shape
        exact: Tensor | None = None
        cached: ReferenceLogits | None = None

        def compute(own_forward: Forward, hidden: Tensor) -> Tensor:
            nonlocal exact, cached
            _require_hidden_states(hidden, shape)
            picked = hidden.flatten(0, 1).index_select(0, query.positions.to(hidden.device))
            if dense:
                return own_forward(picked.unsqueeze(0))
            if query.keep is LogitCache.HIDDEN:
                cached = HeadLogits(
                    LMHead(*without_disabled_adapters(self.module, own_forward), self.transform), picked
                )
            if not query.compute_logps:
                return picked.new_empty((1, 1, 0))
            values = self._read_hidden(picked, query, own_forward)
            exact = values.detach()
            # As logits of one row [1, 1, n]: what a model or FSDP2 does to its output expects three dimensions.
            return values.view(1, 1, -1)

        # Values are no logits: what the model would do to logits, `read_positions` does inside the head.
        untouched = contextlib.nullcontext() if dense else self._neutral()
        asked = contextlib.nullcontext() if changed is None else changed.asked(query.positions if dense else None)
        with self._stand_in.computing(compute), untouched, asked:
            output = model(**inputs, use_cache=False)
        flat = output.logits
        output.logits = None  # they are no logits, and a caller of the trainer would take them for such
        if dense:
            return self._read_dense(flat.squeeze(0), query), output
        return HeadResult(*query.split(restore_precision(flat.flatten(), exact)), cached), output

    def _read_hidden(self, hidden: Tensor, query: HeadQuery, own_forward: Forward) -> Tensor:
        """Log-probs and readouts from hidden states [T, H], as one flat tensor; its graph has the head's weights."""
        if query.targets.device != hidden.device:  # with device maps the head may be on another one than the batch
            query = replace(query, targets=query.targets.to(hidden.device))
        provider = LMHead(self.module, own_forward, self.transform)
        return read_positions(hidden, query, provider, provider.weights, self.vocabulary)

    def _read_dense(self, logits: Tensor, query: HeadQuery) -> HeadResult:
        """The same from logits [T, V] that the model has put out."""
        flat = logits.new_empty(0, dtype=softmax_dtype(logits.dtype))
        if query.compute_logps:
            flat = read_positions(logits, query, DenseLogits(), (), self.vocabulary)
        cached = None if query.keep is LogitCache.NOTHING else DenseLogits(logits.detach())
        return HeadResult(*query.split(flat), cached)

    def _changed_logits(self) -> SuppressedForward | None:
        """What changes the model's logits by the text that they follow, at inference; None where nothing does."""
        forward = suppressed_forward(self.owner)
        changes = forward is not None and forward.suppressor is not None and forward.suppressor.changes_logits
        return forward if changes else None

    # What the model does to what the head puts out

    def examine(self, model: nn.Module, inputs: Mapping[str, Any]) -> None:
        """Find out, once, how logits come out of the model: a forward of two tokens, with known numbers for them."""
        if self._chunked is not None:
            return
        out, probes = self._probed(model, inputs)
        transform = LogitTransform() if _same(out, probes) else configured_transform(self.owner)
        if not _same(out, transform(probes)):
            self._chunked = False
        else:
            self._transform = transform
            # A model that has more than this one transform changes the numbers when that is neutral, too.
            with self._neutral():
                self._chunked = transform == LogitTransform() or _same(*self._probed(model, inputs))
        if not self._chunked:
            logger.warning(
                f"{type(self.owner).__name__} changes the logits of its head in a way that is not known: those of "
                "all answer positions of a batch are held at once."
            )

    def _probed(self, model: nn.Module, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The logits that come out of the model, [V], and the numbers that its head put out for them."""
        ids = inputs["input_ids"][:1, :2]
        probes = torch.empty(0)

        def compute(own_forward: Forward, hidden: Tensor) -> Tensor:
            nonlocal probes
            # As wide as logits are: a model may cut them, or change those of some tokens alone.
            width = own_forward(hidden.flatten(0, -2)[-1:]).shape[-1]
            probes = torch.tensor(_PROBES).repeat(-(-width // len(_PROBES)))[:width]
            return probes.to(hidden.device).expand(*hidden.shape[:-1], -1)

        training = [module for module in model.modules() if module.training]
        model.eval()  # dropout would draw random numbers, which belong to the run
        try:
            # Through `model`, wrapped as it is: under ZeRO-3 and FSDP every rank makes this forward.
            with torch.no_grad(), self._stand_in.computing(compute):
                logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        finally:
            for module in training:
                module.training = True
        return logits.flatten(0, -2)[-1].cpu(), probes

    def _neutral(self) -> contextlib.AbstractContextManager[None]:
        """Inside, the model leaves alone what its head puts out."""
        if self.transform == LogitTransform():
            return contextlib.nullcontext()
        return replaced_attributes(neutral_settings(self.owner))


def output_head(model: Any) -> OutputHead:
    """The output head of a model that is not wrapped; the same object for every call.

    It is kept in one attribute of the model, beside its modules and not among them, so that it lives as long as the
    model: what it has learnt of the model is learnt once, and a compiled model meets one forward of its head alone.
    """
    # In the object's own __dict__: a PeftModel and a compiled model pass other attributes on to the model inside.
    head = vars(model).get(_ATTRIBUTE)
    if head is None or not head.is_head_of(model):
        head = vars(model)[_ATTRIBUTE] = OutputHead(model)
    return head


def _require_hidden_states(hidden: Tensor, shape: torch.Size) -> None:
    if hidden.shape[:-1] != shape:
        raise input_error(
            expected=f"a causal language model whose output head reads hidden states {tuple(shape)}",
            got=f"hidden states of shape {tuple(hidden.shape)}",
            why="the answer positions are selected there",
            fix="use an AutoModelForCausalLM without sequence packing or prompt-learning adapters",
        )


def _same(logits: Tensor, expected: Tensor) -> bool:
    tolerance = max(1e-3, torch.finfo(logits.dtype).eps)  # what comes out may be rounded to 16 bits
    return logits.shape == expected.shape and torch.allclose(logits.float(), expected, rtol=tolerance, atol=1e-3)
