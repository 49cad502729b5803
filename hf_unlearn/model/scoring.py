"""Stage 2, one forward as scores of answer tokens, role by role. No loss is known here."""

import contextlib
import enum
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..data.batch import AnswerIndex, Batch, answer_index
from ..data.roles import Role
from .chunked_logits import Placed, ReferenceLogits, TokenReadout, split_values
from .hidden_states import HiddenStateCapture
from .output_head import HeadQuery, LogitCache, OutputHead
from .reference_logits import slice_logits


class Likelihoods(enum.Enum):
    """What the log-probs of a forward are for."""

    TRAINED = "trained"  # losses, which are differentiated through them
    READ = "read"  # levels and logs: computed without a graph where the losses read hidden states alone
    NONE = "none"  # nothing: the forward may end where the last hidden states are read


@dataclass(frozen=True)
class RowScores:
    """Scores of the answer tokens of R rows of one role, T tokens in all, row after row.

    Attributes:
        logps: log pi(y_t | x, y_<t), [T], nats, fp32 (fp64 for a model in fp64); [0] where the forward ended below the
            head, because nothing reads them.
        token_ids: y_t, [T].
        lengths: answer tokens of each row, [R].
        source: the forget row of the batch to which each row belongs, [R] (-1 for retain rows).
        row: index of each row in its own dataset, [R] (-1 where it has none).
        values: by reading, what was read of the next-token distributions, [T] or [T, width], nats.
        logits: where z_t, [T, V], can be had again in chunks; None unless they were kept.
        hidden: by layer the hidden states h_t that answer tokens are predicted from, [T, H]; empty unless a loss needs
            them.
        reference: the same under the frozen reference; None unless a loss needs it.
    """

    logps: Tensor
    token_ids: Tensor
    lengths: Tensor
    source: Tensor
    row: Tensor
    values: Mapping[Hashable, Tensor] = field(default_factory=dict)
    logits: ReferenceLogits | None = None
    hidden: Mapping[float, Tensor] = field(default_factory=dict)
    reference: "RowScores | None" = None

    def nll_sum(self) -> Tensor:
        """NLL = -sum_t lp_t of each row, [R], nats."""
        return -sum_rows(self.logps, self.lengths)

    def nll_per_token(self) -> Tensor:
        """NLL / n of each row, [R], nats per token."""
        return self.nll_sum() / self.lengths

    def row_of_token(self) -> Tensor:
        """Which of the R rows each token belongs to, [T]."""
        rows = torch.arange(len(self.lengths), device=self.lengths.device)
        return torch.repeat_interleave(rows, self.lengths, output_size=len(self.token_ids))


@dataclass(frozen=True)
class Scores:
    """Scores of a batch by role; a role without rows in the batch is None."""

    forget: RowScores | None = None
    retain: RowScores | None = None
    alternate: RowScores | None = None
    mismatch: RowScores | None = None
    retain_alternate: RowScores | None = None

    def of(self, role: Role) -> RowScores | None:
        """The scores of a role."""
        return getattr(self, role.name.lower())

    def rows(self, role: Role) -> RowScores:
        """The scores of a role that the batch must hold."""
        found = self.of(role)
        assert found is not None, f"no {role.name.lower()} rows in the batch"
        return found

    def with_reference(self, references: Mapping[Role, RowScores]) -> "Scores":
        """The same scores, each role with its reference."""
        roles = {
            role: replace(scores, reference=references[role]) for role, scores in self.items() if role in references
        }
        return replace(self, **{role.name.lower(): scores for role, scores in roles.items()})

    def items(self) -> list[tuple[Role, RowScores]]:
        """(role, scores) of the roles that the batch holds."""
        found = [(role, self.of(role)) for role in Role]
        return [(role, scores) for role, scores in found if scores is not None]


def sum_rows(values: Tensor, lengths: Tensor) -> Tensor:
    """Sums of the values of each row's tokens: [T], [R] -> [R]."""
    # Unsafe: not checked against each other, for which a GPU would be waited for.
    return torch.segment_reduce(values, "sum", lengths=lengths, unsafe=True)


def score(
    model: nn.Module,
    head: OutputHead,
    batch: Batch,
    *,
    readings: Sequence[TokenReadout] = (),
    keep: Mapping[Role, LogitCache] | None = None,
    full_logits: bool = False,
    taps: HiddenStateCapture | None = None,
    likelihoods: Likelihoods = Likelihoods.TRAINED,
) -> tuple[Scores, Any]:
    """One forward of the whole batch, as scores by role.

    The output head runs at answer positions only, in chunks, inside the model's own forward: logits [B, L, V] never
    exist, nor [T, V]. The call goes through `model`, wrapped as it may be (DDP, DeepSpeed, FSDP).

    Args:
        model: what is called, wrapped or not.
        head: `output_head` of the model inside it.
        batch: from `DataCollatorForUnlearning`.
        readings: what losses read of the distributions at the answer tokens of a role.
        keep: roles whose logits are to be had again later, and how.
        full_logits: compute the logits of every position, as plain Trainer does, and keep them in the output.
        taps: where hidden states are read, if a loss needs them.
        likelihoods: what the log-probs are for; anything but TRAINED needs taps or `keep`.

    Returns:
        the scores, and the model's output.

    Raises:
        ValueError: rows not in the order of roles, or a head that is not fed [B, L, hidden].
    """
    layout = answer_index(batch)
    kept = keep or {}
    ending = likelihoods is Likelihoods.NONE and not kept
    with contextlib.ExitStack() as stack:
        if ending and taps is not None:
            stack.enter_context(taps.ending())
        hidden: dict[float, Tensor] = {}
        if taps is not None:
            hidden = stack.enter_context(taps.reading(above=likelihoods is Likelihoods.TRAINED))
            stack.enter_context(_grad_after(head.module, torch.is_grad_enabled()))
        placed = [Placed(each, layout.token_slice(each.role)) for each in readings]
        wanted = HeadQuery(
            layout.positions[:0] if ending else layout.positions,
            layout.targets,
            placed,
            values=likelihoods is not Likelihoods.NONE,
            keep=max(kept.values(), key=list(LogitCache).index, default=LogitCache.NOTHING),
        )
        found, output = head.read(model, model_inputs(batch, layout), wanted, full_logits=full_logits)
    tokens = len(layout.targets) if wanted.values else 0
    logps, values = split_values(found.values, tokens, placed if wanted.values else [])
    states = {layer: each.flatten(0, 1)[layout.positions] for layer, each in hidden.items()}
    answers = _Answers(logps, values, dict.fromkeys(kept, found.logits), states)
    return _by_role(batch, layout, answers), output


def score_answers(
    model: nn.Module,
    head: OutputHead,
    batch: Batch,
    *,
    readings: Sequence[TokenReadout] = (),
    full_logits: bool = False,
) -> tuple[RowScores, Any]:
    """One forward of a batch, as scores of all its B rows in their order, whatever they are there for.

    Args:
        model: what is called, wrapped or not.
        head: `output_head` of the model inside it.
        batch: with its answer index; its rows need no roles.
        readings: what is read of the distributions at answer tokens, each of role None.
        full_logits: compute the logits of every position too, and keep them in the output.

    Returns:
        the scores, and the model's output.
    """
    index = answer_index(batch)
    placed = [Placed(reading, index.token_slice(None)) for reading in readings]
    query = HeadQuery(index.positions, index.targets, placed)
    result, output = head.read(model, model_inputs(batch, index), query, full_logits=full_logits)
    logps, values = split_values(result.values, len(index.targets), placed)
    rows = RowScores(
        logps=logps,
        token_ids=index.targets,
        lengths=index.lengths,
        source=torch.full_like(index.lengths, -1),  # to no row of another role does any of them belong
        row=batch["row"],
        values={key: value for (_, key), value in values.items()},
    )
    return rows, output


def model_inputs(batch: Batch, layout: AnswerIndex) -> dict[str, Any]:
    """What the model's forward takes of a batch."""
    inputs: dict[str, Any] = {
        key: batch[key] for key in ("input_ids", "attention_mask", "position_ids") if key in batch
    }
    if layout.packed:
        # Read by flash attention over rows of any length; others see by the positions where rows begin.
        ends = torch.nn.functional.pad(batch["row_lengths"].cumsum(0), (1, 0)).int()
        inputs |= {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends}
        inputs |= {"max_length_q": layout.longest, "max_length_k": layout.longest}
    return inputs


@contextlib.contextmanager
def _grad_after(head: nn.Module, enabled: bool) -> Iterator[None]:
    """Switches gradients back on where the forward ends, while DDP still looks at them."""

    def switch(_: nn.Module, __: Any, ___: Any) -> None:  # what a hook returns would stand in for the head's output
        torch.set_grad_enabled(enabled)

    handle = head.register_forward_hook(switch)
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True)
class _Answers:
    """What a forward gives at the T answer positions of a batch, row after row."""

    logps: Tensor
    values: Mapping[tuple[Role | None, Hashable], Tensor]
    logits: Mapping[Role, ReferenceLogits | None]
    hidden: Mapping[float, Tensor]


def _by_role(batch: Batch, layout: AnswerIndex, answers: _Answers) -> Scores:
    found = {}
    for role in Role:
        if not layout.rows[role]:
            continue
        row, token = layout.row_slice(role), layout.token_slice(role)
        logits = answers.logits.get(role)
        found[role.name.lower()] = RowScores(
            logps=answers.logps[token],
            token_ids=layout.targets[token],
            lengths=layout.lengths[row],
            source=batch["source"][row],
            row=batch["row"][row],
            values={key: each for (of, key), each in answers.values.items() if of is role},
            logits=None if logits is None else slice_logits(logits, token),
            hidden={layer: states[token] for layer, states in answers.hidden.items()},
        )
    return Scores(**found)
