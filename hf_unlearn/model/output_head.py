"""Stage 2c, the output head of a causal language model, run at answer positions in chunks. No loss is known here."""

import contextlib
import enum
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers.utils import logging

from ..errors import input_error
from .chunked_logits import DenseLogits, Placed, ReferenceLogits, read_positions, softmax_dtype
from .head_backward import LMHead, LogitTransform, has_active_dropout, restore_precision, without_disabled_adapters
from .reference_logits import HeadLogits

logger = logging.get_logger(__name__)

# Numbers that a head puts out in place of logits, over and over, to see what the model makes of them.
_PROBES = (0.0, 1.0, -2.0, 3.0, 40.0)


class OutputHead:
    """How a causal language model's logits are had at chosen positions, a chunk at a time.

    The work is done inside the head's own forward, inside the model's own: there ZeRO-3 and FSDP have gathered the
    weights, in the forward as in the backward pass, and every wrapper sees one call as ever. For that call the head
    puts out values of positions in place of logits.

    A head of any kind will do: tied, with a bias, with an adapter on it. Scaled and soft-capped logits are computed
    here. What else a model may do to its logits is noticed once, by numbers that it is given in their place; such a
    model puts out the logits [T, V] of the answer positions, and only their softmaxes are in chunks.

    Args:
        model: not wrapped; a PeftModel or a model of transformers.
    """

    def __init__(self, model: Any) -> None:
        # Weakly: heads are kept by model, and must not keep it in memory.
        self._module = weakref.ref(model.get_output_embeddings())
        self._owner = weakref.ref(model.get_base_model() if isinstance(model, PeftModel) else model)
        self.vocabulary: int = model.config.get_text_config().vocab_size
        self._transform: LogitTransform | None = None
        self._chunked: bool | None = None  # unknown before the first call
        self._request: _Request | _Probe | None = None
        self._own_forward: Any = None
        # One object for all calls: a compiled model is compiled again for every new one.
        self._forward = torch.compiler.disable(self._run)

    @property
    def module(self) -> nn.Module:
        """The head itself."""
        module = self._module()
        assert module is not None
        return module

    @property
    def owner(self) -> Any:
        """The causal language model that it belongs to."""
        owner = self._owner()
        assert owner is not None
        return owner

    def read(
        self, model: nn.Module, inputs: Mapping[str, Any], wanted: "HeadQuery", *, full_logits: bool = False
    ) -> tuple["HeadResult", Any]:
        """One forward of a model whose head this is: what was wanted of it, and its output.

        Args:
            model: what is called, wrapped or not.
            inputs: of its forward.
            wanted: of the answer positions.
            full_logits: leave the head to itself, and the logits of all positions in the output.

        Raises:
            ValueError: a head that is not fed hidden states [B, L, H].
        """
        if full_logits:
            output = model(**inputs, use_cache=False)
            return self._of_dense(output.logits.flatten(0, 1)[wanted.positions], wanted), output
        read = wanted.values or wanted.keep is not LogitCache.NOTHING
        if read:
            self.examine(model, inputs)
        dense = read and (wanted.keep is LogitCache.LOGITS or not self._chunked or has_active_dropout(self.module))
        self._request = request = _Request(inputs["input_ids"].shape, wanted, dense)
        with self._standing_in(), contextlib.nullcontext() if dense else self._neutral():
            output = model(**inputs, use_cache=False)
        found = output.logits
        output.logits = None
        if not dense:
            return HeadResult(restore_precision(found.flatten(), request.values), request.kept), output
        return self._of_dense(found.squeeze(0), wanted), output

    def _of_dense(self, logits: Tensor, wanted: "HeadQuery") -> "HeadResult":
        values = logits.new_empty(0, dtype=softmax_dtype(logits.dtype))
        if wanted.values:
            values = read_positions(logits, wanted.targets, DenseLogits(), wanted.placed, (), self.vocabulary)
        return HeadResult(values, None if wanted.keep is LogitCache.NOTHING else DenseLogits(logits.detach()))

    # The head's own forward

    @contextlib.contextmanager
    def _standing_in(self) -> Iterator[None]:
        module = self.module
        own = vars(module).get("forward")
        self._own_forward = module.forward
        module.forward = self._forward
        try:
            yield
        finally:
            self._request = None
            del module.forward
            if own is not None:
                module.forward = own

    def _run(self, hidden: Tensor) -> Tensor:
        request = self._request
        assert request is not None
        if isinstance(request, _Probe):
            # As wide as logits are: a model may cut them, or change those of some tokens alone.
            width = self._own_forward(hidden.flatten(0, -2)[-1:]).shape[-1]
            request.numbers = torch.tensor(_PROBES).repeat(-(-width // len(_PROBES)))[:width]
            return request.numbers.to(hidden.device).expand(*hidden.shape[:-1], -1)
        if hidden.shape[:-1] != request.shape:
            raise input_error(
                expected=f"a causal language model whose output head reads hidden states {tuple(request.shape)}",
                got=f"hidden states of shape {tuple(hidden.shape)}",
                why="the answer positions are selected there",
                fix="use an AutoModelForCausalLM without sequence packing or prompt-learning adapters",
            )
        wanted = request.wanted
        picked = hidden.flatten(0, 1).index_select(0, wanted.positions.to(hidden.device))
        if request.dense:
            return self._own_forward(picked.unsqueeze(0))
        source = LMHead(self.module, self._own_forward, self.transform)
        if wanted.keep is LogitCache.HIDDEN:
            request.kept = HeadLogits(
                LMHead(*without_disabled_adapters(self.module, self._own_forward), self.transform), picked
            )
        if not wanted.values:
            return picked.new_empty((1, 1, 0))
        weights = [weight for weight in self.module.parameters() if weight.requires_grad]
        targets = wanted.targets.to(hidden.device)
        values = read_positions(picked, targets, source, wanted.placed, weights, self.vocabulary)
        request.values = values.detach()
        return values.view(1, 1, -1)

    # What the model does to what the head puts out

    def examine(self, model: nn.Module, inputs: Mapping[str, Any]) -> None:
        """Find out, once, how logits come out of the model: a forward of two tokens, with known numbers for them."""
        if self._chunked is not None:
            return
        out, probes = self._probed(model, inputs)
        transform = LogitTransform() if _same(out, probes) else self._known_transform()
        if not _same(out, transform(probes)):
            self._chunked = False
        else:
            self._transform = transform
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
        self._request = probe = _Probe()
        training = [module for module in model.modules() if module.training]
        model.eval()  # dropout would draw random numbers, which belong to the run
        try:
            with torch.no_grad(), self._standing_in():
                logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        finally:
            for module in training:
                module.training = True
        assert probe.numbers is not None
        return logits.flatten(0, -2)[-1].cpu(), probe.numbers

    def _known_transform(self) -> LogitTransform:
        """What the model's configuration says of scales and caps."""
        values = {name: getattr(holder, name) for holder, name, _ in self._settings()}
        scale = 1.0 if values.get("logit_scale") is None else values["logit_scale"]
        if values.get("logits_scaling") is not None:
            scale = 1 / values["logits_scaling"]
        return LogitTransform(scale, values.get("final_logit_softcapping"))

    def _settings(self) -> list[tuple[Any, str, float | None]]:
        """Where a model keeps its scales and its cap: what holds them, under which name, and the value for none."""
        text = self.owner.config.get_text_config()
        places = [
            (text, "final_logit_softcapping", None),  # Gemma
            (text, "logits_scaling", 1.0),  # Granite, as a divisor
            (self.owner, "logit_scale", 1.0),  # Cohere
        ]
        return [(holder, name, neutral) for holder, name, neutral in places if hasattr(holder, name)]

    @contextlib.contextmanager
    def _neutral(self) -> Iterator[None]:
        """Inside, the model leaves alone what its head puts out."""
        if self._transform in (None, LogitTransform()):
            yield
            return
        settings = [(holder, name, getattr(holder, name), neutral) for holder, name, neutral in self._settings()]
        for holder, name, _, neutral in settings:
            setattr(holder, name, neutral)
        try:
            yield
        finally:
            for holder, name, value, _ in settings:
                setattr(holder, name, value)

    @property
    def transform(self) -> LogitTransform:
        """From the head's logits to the model's."""
        return self._transform or LogitTransform()


class LogitCache(enum.Enum):
    """What is kept of the answer positions, to have their logits again later."""

    NOTHING = "nothing"
    HIDDEN = "hidden"  # the hidden states; the weights of the head must be there later
    LOGITS = "logits"  # the logits themselves, where those weights are not: another model's, split over ranks


@dataclass(frozen=True)
class HeadQuery:
    """What is wanted of a forward.

    Attributes:
        positions: of the hidden states that are read, in the batch laid flat, [T].
        targets: the token that follows each, [T].
        placed: what is read beside the log-probs.
        values: whether log-probs and readings are computed at all.
        keep: for later.
    """

    positions: Tensor
    targets: Tensor
    placed: Sequence[Placed] = ()
    values: bool = True
    keep: LogitCache = LogitCache.NOTHING


@dataclass(frozen=True)
class HeadResult:
    """The values of `read_positions`, none of them where they were not wanted, and the logits of all T for later."""

    values: Tensor
    logits: ReferenceLogits | None


@dataclass
class _Request:
    shape: torch.Size
    wanted: HeadQuery
    dense: bool
    kept: ReferenceLogits | None = None
    values: Tensor | None = None


@dataclass
class _Probe:
    numbers: Tensor | None = None


def _same(found: Tensor, expected: Tensor) -> bool:
    tolerance = max(1e-3, torch.finfo(found.dtype).eps)  # what comes out may be rounded to 16 bits
    return found.shape == expected.shape and torch.allclose(found.float(), expected, rtol=tolerance, atol=1e-3)


_HEADS: "weakref.WeakKeyDictionary[nn.Module, OutputHead]" = weakref.WeakKeyDictionary()


def output_head(model: Any) -> OutputHead:
    """The output head of a model that is not wrapped; the same object for every call."""
    head = _HEADS.get(model)
    if head is None or head._module() is not model.get_output_embeddings():  # resizing the vocabulary makes another
        head = _HEADS[model] = OutputHead(model)
    return head
