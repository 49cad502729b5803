"""Chooses how reference log-probs and logits are obtained, and rejects impossible choices."""

import enum
from dataclasses import dataclass
from typing import Any

from ...errors import input_error
from ...losses.base import Needs


class ReferenceMode(enum.StrEnum):
    """How the reference is obtained."""

    NONE = "none"  # no loss needs it
    PRECOMPUTED = "precomputed"  # log-probs of fixed rows, computed once and cached on disk
    ADAPTER_DISABLED = "adapter"  # the same weights with the adapter as it was: off, or its initial values
    FROZEN_COPY = "copy"  # a second model
    HIDDEN_STATES = "cached"  # what the head reads at the answers of fixed rows, computed once and cached; exact
    TOP_K = "topk"  # the likeliest tokens of the distributions of fixed rows, computed once and cached; approximate


@dataclass(frozen=True)
class ReferencePlan:
    """Which mode serves the log-probs that the losses need, and which the distributions and hidden states."""

    logps: ReferenceMode
    live: ReferenceMode

    @property
    def looked_up(self) -> bool:
        """Whether distributions come from what was computed before training, not from a forward."""
        return self.live in (ReferenceMode.TOP_K, ReferenceMode.HIDDEN_STATES)

    @property
    def modes(self) -> set[ReferenceMode]:
        """The modes in use."""
        return {self.logps, self.live} - {ReferenceMode.NONE}

    def __str__(self) -> str:
        return " + ".join(sorted(self.modes)) or ReferenceMode.NONE


@dataclass(frozen=True)
class ReferenceContext:
    """The facts that decide which modes are possible."""

    peft: bool  # the model is a PeftModel
    trained_adapter: bool  # whose adapter already changes the output
    given: bool  # the user passed a ref_model
    stream: bool  # a needed set has no length
    sharded: bool  # parameters are split over ranks (ZeRO-3, FSDP)
    measured: bool = False  # levels, a bound or a stop rule are measured on the model before unlearning


def plan_reference(needs: Needs, requested: str, context: ReferenceContext) -> ReferencePlan:
    """The cheapest exact modes for what the losses need.

    Log-probs of fixed rows are computed once; distributions and hidden states come from the adapter switched off, or a
    frozen copy.

    Raises:
        ValueError: a reference that was asked for and cannot be had, or a ref_model that nothing would read.
    """
    if not needs.reference:
        if context.given and not context.measured:
            raise unavailable(
                "a loss that compares with the reference, or a level that is measured on it",
                "ref_model, but nothing reads it",
                "drop ref_model",
            )
        return ReferencePlan(ReferenceMode.NONE, ReferenceMode.NONE)
    _require_available(needs, requested, context)
    live = _live_mode(requested, context)
    can_precompute = requested in ("auto", "precomputed", "cached", "topk") and not context.stream
    logps = ReferenceMode.PRECOMPUTED if can_precompute else live
    plan = ReferencePlan(
        logps=logps if needs.reference_logps else ReferenceMode.NONE,
        live=live if needs.reference_live else ReferenceMode.NONE,
    )
    if context.sharded and context.trained_adapter and ReferenceMode.ADAPTER_DISABLED in plan.modes:
        raise unavailable(
            "the adapter's initial weights within reach of every rank",
            "a trained adapter under ZeRO-3 or FSDP",
            "merge it first (hf_unlearn.model.merging.merge(model)) and pass a fresh peft_config, or pass ref_model",
        )
    return plan


def _live_mode(requested: str, context: ReferenceContext) -> ReferenceMode:
    if requested in ("cached", "topk"):
        return ReferenceMode(requested)
    if requested == "copy" or context.given or not context.peft:
        return ReferenceMode.FROZEN_COPY
    return ReferenceMode.ADAPTER_DISABLED


def _require_available(needs: Needs, requested: str, context: ReferenceContext) -> None:
    if requested == "adapter" and not context.peft:
        raise unavailable(
            "a PEFT model, for reference='adapter'",
            "full parameters",
            "pass peft_config=LoraConfig(...), or reference='copy'",
        )
    if requested == "adapter" and context.given:
        raise unavailable("one reference", "both reference='adapter' and ref_model", "keep one of them")
    stored = requested in ("cached", "topk")
    if stored and (needs.reference_hidden or not needs.reference_logits):
        raise unavailable(
            f"a loss that compares distributions, for reference={requested!r}",
            "one of hidden states" if needs.reference_hidden else "none that does",
            "use reference='auto'",
        )
    if stored and context.stream:
        raise unavailable(
            f"sets with a length, for reference={requested!r}", "a stream", "use reference='adapter' or 'copy'"
        )
    if requested == "cached" and context.sharded:
        raise unavailable(
            "an output head that every rank holds whole, for reference='cached'",
            "ZeRO-3 or FSDP, which split it",
            "use reference='auto', or ddp, zero1 or zero2",
        )
    if requested != "precomputed":
        return
    if needs.reference_live:
        raise unavailable(
            "losses that need reference log-probs only, for reference='precomputed'",
            "a loss that needs more of the reference: whole distributions (kl) or hidden states",
            "use reference='auto', which caches what can be cached",
        )
    if context.stream:
        raise unavailable(
            "sets with a length, for reference='precomputed'", "a stream", "use reference='adapter' or 'copy'"
        )


def unavailable(expected: str, got: str, fix: str) -> ValueError:
    """The error of a reference that cannot be had."""
    why = "the loss would be computed against something else than the model before unlearning"
    return input_error(expected=expected, got=got, why=why, fix=fix)


def require_8bit(plan: ReferencePlan, context: ReferenceContext, reload: Any) -> None:
    """Raise unless there is a frozen copy to load in 8 bits."""
    if ReferenceMode.FROZEN_COPY not in plan.modes or context.given or context.sharded or reload is None:
        raise unavailable(
            "a frozen copy of a model given by name, whole on every GPU, for reference_load_in_8bit",
            f"reference: {plan}" + ", ref_model" * context.given + ", a model split over ranks" * context.sharded,
            "leave it out, or set reference='copy' and pass the model by name; a ref_model can be loaded in 8 bits by "
            "from_pretrained(..., quantization_config=...)",
        )
