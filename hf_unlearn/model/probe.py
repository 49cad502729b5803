"""What kind of model it is, found by a few forwards of ten tokens: what a run relies on and no error would tell.

A model that is not causal, or sees padding, trains in silence on wrong numbers. Neither class nor configuration tells.
"""

import contextlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..data.batch import Batch, indexed
from ..data.collator import DataCollatorForUnlearning
from ..data.tokenized_row import IGNORED_LABEL
from ..errors import input_error
from .output_head import output_head
from .router_loss import RouterLoss, matching_router_loss
from .score_rows import evaluation_mode, preserve_rng_state
from .scoring import model_inputs
from .sharding import reshard
from .suppressed_forward import suppression_identity

# What a model raises that is called in a way that is not its own. torch.OutOfMemoryError is a RuntimeError, too: who
# catches these lets it through first, as it says nothing of the model.
CALL_ERRORS = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)
# Tokens of the row that is tried, and those of its beginning that other rows share.
_LENGTH, _SHARED = 10, 6
# The attribute of a model that holds what was found of it, beside its modules; see `output_head`.
_ATTRIBUTE = "_hf_unlearn_probe"
# What rounding may change, as a share of what another token changes: in fp32 (where it is 1e-6 over all architectures,
# and what is seen in error above 3e-2), and in roundings of a coarser type.
_TOLERANCE, _ROUNDINGS = 1e-4, 6.0


@dataclass(frozen=True)
class ModelProbe:
    """What was found of a model.

    Attributes:
        causal: no token changes the logits before it.
        right_padding: padding on the right of a row changes none of its logits.
        left_padding: nor does padding on the left, with `position_ids` that count the row's own tokens from 0.
        first_position: what the model calls the position of a first token: 0 in most, pad_token_id + 1 in RoBERTa and
            its descendants; None where it takes no `position_ids`, or counts in another way.
        rows_apart: rows in one line, told apart by `position_ids`, do not see each other; None where it was not tried.
        router_loss: the load-balancing loss that the model adds to its own loss, None without one.
        other_loss: what else the model's own loss has beside the NLL, on a batch of ten tokens.
    """

    causal: bool
    right_padding: bool
    left_padding: bool
    first_position: int | None
    rows_apart: bool | None
    router_loss: RouterLoss | None
    other_loss: float


def probe_model(
    model: nn.Module,
    unwrapped: Any,
    *,
    rows_apart: bool = False,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> ModelProbe:
    """What kind of model it is; asked once of a model, as long as its head and its attention stay what they are.

    The model, its training mode and all random states are left as they were.

    Args:
        model: what is called, wrapped or not; under ZeRO-3 and FSDP by every rank.
        unwrapped: the model inside.
        rows_apart: also try rows in one line.
        autocast: under which the run calls it.

    Raises: ValueError, where it makes no logits of token ids and a mask.
    """
    attention = getattr(unwrapped.config.get_text_config(), "_attn_implementation", None)
    identity = (id(output_head(unwrapped)), attention, suppression_identity(unwrapped))
    known_of, known = vars(unwrapped).get(_ATTRIBUTE, (None, None))
    probe: ModelProbe | None = known if known_of == identity else None
    if probe is not None and (probe.rows_apart is not None or not rows_apart):
        return probe
    with preserve_rng_state(), evaluation_mode(model), autocast():
        trial = Trial.of(model, unwrapped)
        probe = _probed(trial) if probe is None else probe
        if rows_apart:
            probe = replace(probe, rows_apart=_rows_apart(trial))
    reshard(model)
    # In the object's own __dict__: a PeftModel passes other attributes on to the model inside.
    vars(unwrapped)[_ATTRIBUTE] = (identity, probe)
    return probe


@dataclass(frozen=True)
class Trial:
    """A model and the row that it is tried with.

    Attributes:
        model: what is called.
        unwrapped: the model inside.
        row: its token ids.
        other: those of a row of its length, the same up to its last tokens.
        shared: tokens that both begin with.
        logits: of both in one batch, [2, L, V]: the right values of every other way to feed them.
    """

    model: nn.Module
    unwrapped: Any
    row: list[int]
    other: list[int]
    shared: int
    logits: Tensor

    @classmethod
    def of(cls, model: nn.Module, unwrapped: Any) -> "Trial":
        """With the right values, which one forward gives."""
        config = unwrapped.config.get_text_config()
        # Room for what generation adds, and for positions that do not begin at 0.
        room = (getattr(config, "max_position_embeddings", None) or math.inf) - 4
        length = int(max(3, min(_LENGTH, room)))
        shared = length * _SHARED // _LENGTH
        ids = _plain_ids(unwrapped.config, 2 * length)
        row, other = ids[:length], [*ids[:shared], *ids[length + shared :]]
        trial = cls(model, unwrapped, row, other, shared, torch.empty(0))
        return replace(trial, logits=trial.call([row, other]).logits)

    @property
    def pad(self) -> int:
        """The token that the trial pads with."""
        pad = getattr(self.unwrapped.config.get_text_config(), "pad_token_id", None)
        return pad if isinstance(pad, int) and pad >= 0 else 0

    def call(self, rows: Sequence[Sequence[int]], **collator: Any) -> Any:
        """The model's output for rows, fed as the collator and the scoring of rows feed them."""
        labels = [[IGNORED_LABEL, *row[1:]] for row in rows]
        tokenized = [{"input_ids": ids, "labels": answer} for ids, answer in zip(rows, labels, strict=True)]
        batch = indexed(DataCollatorForUnlearning(self.pad, **collator).collate_rows(tokenized))
        return self.forward(model_inputs(_on(batch, self.unwrapped.device), batch["answer_index"]))

    def forward(self, inputs: Mapping[str, Any]) -> Any:
        """The model's output; raises a ValueError where it fails, or makes no logits [B, L, V]."""
        inputs = {name: value for name, value in inputs.items() if name != "position_ids" or self.takes_positions}
        try:
            output = self.model(**inputs, use_cache=False)
        except torch.OutOfMemoryError:
            raise
        except CALL_ERRORS as error:
            raise _uncallable(self.unwrapped, f"{type(error).__name__} in its forward") from error
        logits, shape = getattr(output, "logits", None), inputs["input_ids"].shape
        if not isinstance(logits, Tensor) or logits.shape[:-1] != shape:
            got = "no logits" if logits is None else f"logits of shape {tuple(logits.shape)}"
            raise _uncallable(self.unwrapped, f"{got} for token ids of shape {tuple(shape)}")
        return output

    @property
    def takes_positions(self) -> bool:
        """Whether the model can be told positions."""
        return output_head(self.unwrapped).takes_positions

    def same(self, logits: Tensor, right: Tensor) -> bool:
        """Whether logits are the right ones, but for rounding."""
        # What another token changes at its own place and after it is the measure for what must not change.
        signal = _difference(self.logits[0, self.shared :], self.logits[1, self.shared :])
        return _difference(logits, right) <= rounding_tolerance(self.unwrapped, self.logits) * signal


def rounding_tolerance(model: Any, logits: Tensor) -> float:
    """What rounding may change of a model's logits, as a share of what another token changes.

    Args:
        model: not wrapped.
        logits: of it, under the autocast that is on.
    """
    kinds = [logits.dtype, *(weight.dtype for weight in model.parameters())]
    if torch.is_autocast_enabled(logits.device.type):
        kinds.append(torch.get_autocast_dtype(logits.device.type))
    coarsest = max(torch.finfo(kind).eps for kind in kinds if kind.is_floating_point)
    if logits.is_cuda and torch.backends.cuda.matmul.allow_tf32:  # as coarse as fp16
        coarsest = max(coarsest, torch.finfo(torch.float16).eps)
    if getattr(model, "is_quantized", False):
        coarsest = max(coarsest, torch.finfo(torch.bfloat16).eps)
    return max(_TOLERANCE, _ROUNDINGS * coarsest)


def _probed(trial: Trial) -> ModelProbe:
    """Everything but rows in one line."""
    shared, right = trial.shared, trial.logits[0]
    if not bool(trial.logits.isfinite().all()):
        raise _uncallable(trial.unwrapped, "logits that are not finite")
    rows = [trial.row, trial.row[:shared]]
    after = trial.call(rows).logits
    before = trial.call(rows, padding_side="left").logits
    from_zero = trial.same(before[0], right)
    router_loss, other_loss = _own_loss(trial)
    return ModelProbe(
        causal=trial.same(trial.logits[1, :shared], right[:shared]),
        right_padding=trial.same(after[1, :shared], right[:shared]) and trial.same(after[0], right),
        left_padding=trial.same(before[1, -shared:], right[:shared]) and from_zero,
        first_position=_first_position(trial, from_zero),
        rows_apart=None,
        router_loss=router_loss,
        other_loss=other_loss,
    )


def _rows_apart(trial: Trial) -> bool:
    """Whether two rows have in one line the logits that they have alone."""
    try:
        line = trial.call([trial.row[: trial.shared], trial.row], padding_free=True).logits[0]
    except ValueError:  # it says itself that it cannot
        return False
    right = trial.logits[0]
    return (
        trial.takes_positions
        and trial.same(line[: trial.shared], right[: trial.shared])
        and trial.same(line[trial.shared :], right)
    )


def _first_position(trial: Trial, from_zero: bool) -> int | None:
    """The model's own position of a first token, given whether positions from 0 are right."""
    if not trial.takes_positions or from_zero:
        return 0 if trial.takes_positions else None
    first = trial.pad + 1
    ids = torch.tensor([trial.row], device=trial.unwrapped.device)
    numbered = torch.arange(first, first + len(trial.row), device=ids.device)[None]
    logits = trial.forward({"input_ids": ids, "attention_mask": torch.ones_like(ids), "position_ids": numbered}).logits
    return first if trial.same(logits[0], trial.logits[0]) else None


def _own_loss(trial: Trial) -> tuple[RouterLoss | None, float]:
    """What the model's own loss has beside the NLL: its router loss, and what else."""
    kinds = inspect.signature(output_head(trial.unwrapped).owner.forward).parameters.values()
    # Trainer's own test for a loss that is told how many items an optimizer step has.
    if not any(kind.kind is inspect.Parameter.VAR_KEYWORD for kind in kinds):
        return None, 0.0
    try:
        output, added = _added_to_nll(trial, trial.row)
    except ValueError:  # a loss of another kind, which is never computed here
        return None, 0.0
    if math.isnan(added):
        return None, 0.0  # a mean over no label
    value, router_logits = getattr(output, "aux_loss", None), getattr(output, "router_logits", None)
    if added and isinstance(value, Tensor) and router_logits:
        coefficient = added / float(value)
        second, of_second = _added_to_nll(trial, trial.other)
        # The router loss alone: then it is the same multiple of the model's figure on other tokens.
        alone = math.isclose(of_second, coefficient * float(second.aux_loss), rel_tol=1e-4)
        loss = matching_router_loss(float(f"{coefficient:.5g}"), router_logits, None, float(value))
        if loss is not None and alone:
            return loss, 0.0
    return None, added


def _added_to_nll(trial: Trial, row: list[int]) -> tuple[Any, float]:
    """The model's output for a row, and its own loss over no label and one item, where the NLL is 0."""
    ids = torch.tensor([row], device=trial.unwrapped.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.full_like(ids, IGNORED_LABEL)}
    output = trial.forward(inputs | {"num_items_in_batch": torch.ones((), device=ids.device)})
    loss = getattr(output, "loss", None)
    return output, math.nan if loss is None else float(loss)


def _difference(one: Tensor, other: Tensor) -> float:
    """The mean absolute difference; what is equal, minus infinity too, does not differ."""
    gap = (one.float() - other.float()).abs()
    return float(torch.where(one == other, torch.zeros_like(gap), gap).mean())


def _on(batch: Batch, device: torch.device) -> Batch:
    return {name: value.to(device) for name, value in batch.items()}


def _plain_ids(config: Any, count: int) -> list[int]:
    """Ids that stand for ordinary text: none that the configuration has a name for."""
    named = set()
    for part in (config, config.get_text_config()):
        values = [value for name, value in part.to_dict().items() if "token" in name]
        named |= {number for value in values for number in (value if isinstance(value, list) else [value])}
    vocabulary = config.get_text_config().vocab_size
    middle = vocabulary // 4  # special tokens stand at either end
    plain = [token for token in [*range(middle, vocabulary), *range(middle)] if token not in named]
    return (plain[:count] * count)[:count]


def _uncallable(model: Any, got: str) -> ValueError:
    return input_error(
        expected="a causal language model that makes logits [B, L, V] of token ids and an attention mask",
        got=f"{type(model).__name__}: {got}",
        why="log-probs of answers are read at the positions of their tokens",
        fix="use an AutoModelForCausalLM, with an attention that works on this machine",
    )
