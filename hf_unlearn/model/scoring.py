"""One forward of a model as scores of answer tokens, role by role: what losses are computed from."""

import contextlib
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..data.answer_positions import AnswerIndex
from ..data.batch import Batch, answer_index
from ..data.roles import Role
from .forward_patching import grad_mode_after
from .head_query import HeadQuery, HeadResult, LogitCache, ReferenceLogits, TokenReadout
from .hidden_states import HiddenStateCapture
from .output_head import OutputHead
from .reference_logits import slice_logits

_FIELD = {role: role.name.lower() for role in Role}  # of `Scores`


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
        source: the forget row of the batch to which each row belongs, [R] (-1 for retain and holdout rows).
        row: index of each row in its own dataset, [R] (-1 where it has none).
        readouts: by the readout's name, what was read of the next-token distributions, [T] or [T, width], nats.
        logits: where z_t, [T, V], can be had again in chunks; None unless they were kept.
        hidden: by layer the hidden states h_t that answer tokens are predicted from, [T, H]; empty unless a loss needs
            them.
        reference: the same under the frozen reference; None unless a loss needs it.
        bound: where each row stops pushing, nats per token: one number for all, [R], or None for no bound.
        level: what a model that never saw each row would give it (tau_i), nats per token, [R]; None in a run without
            levels.
        token_level: the same of each answer token, nats, [T]; None unless a loss needs it.
    """

    logps: Tensor
    token_ids: Tensor
    lengths: Tensor
    source: Tensor
    row: Tensor
    readouts: Mapping[str, Tensor] = field(default_factory=dict)
    logits: ReferenceLogits | None = None
    hidden: Mapping[float, Tensor] = field(default_factory=dict)
    reference: "RowScores | None" = None
    bound: Tensor | float | None = None
    level: Tensor | None = None
    token_level: Tensor | None = None

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


ScoresType = TypeVar("ScoresType", RowScores, "Scores")


@dataclass(frozen=True)
class Scores:
    """Scores of a batch by role; a role without rows in the batch is None.

    Attributes:
        term: name of the loss term that is computed from them, under which the head has read the term's values.
        progress: share of the run's steps up to and including the present one; 1 for what is computed outside of them.
    """

    forget: RowScores | None = None
    retain: RowScores | None = None
    alternate: RowScores | None = None
    mismatch: RowScores | None = None
    retain_alternate: RowScores | None = None
    holdout: RowScores | None = None
    term: str = ""
    progress: float = 1.0

    def of(self, role: Role) -> RowScores | None:
        """The scores of a role."""
        rows: RowScores | None = getattr(self, _FIELD[role])
        return rows

    def rows(self, role: Role) -> RowScores:
        """The scores of a role that the batch must hold."""
        rows = self.of(role)
        assert rows is not None, f"no {role.name.lower()} rows in the batch"
        return rows

    def for_term(self, term: str) -> "Scores":
        """The same scores, as a term of that name is given them."""
        return changed(self, term=term)

    def readout(self, role: Role) -> Tensor:
        """What the head has read for the term at the answer tokens of a role, [T]."""
        return self.rows(role).readouts[self.term]

    def with_reference(self, references: Mapping[Role, RowScores]) -> "Scores":
        """The same scores, each role with its reference."""
        if not references:
            return self
        rows = {role: changed(rows, reference=references[role]) for role, rows in self.items() if role in references}
        return changed(self, **{_FIELD[role]: compared for role, compared in rows.items()})

    def items(self) -> list[tuple[Role, RowScores]]:
        """(role, scores) of the roles that the batch holds."""
        every = [(role, self.of(role)) for role in Role]
        return [(role, rows) for role, rows in every if rows is not None]


def changed(scores: ScoresType, **values: Any) -> ScoresType:
    """The same scores with other values of some attributes.

    What `dataclasses.replace` gives, which looks at every field: several times a step that is a cost.
    """
    new = object.__new__(type(scores))
    vars(new).update(vars(scores) | values)
    return new


def sum_rows(values: Tensor, lengths: Tensor) -> Tensor:
    """Sums of the values of each row's tokens: [T], [R] -> [R]."""
    # Unsafe: not checked against each other, for which a GPU would be waited for.
    return torch.segment_reduce(values, "sum", lengths=lengths, unsafe=True)


def attached_zero(scores: Scores) -> Tensor:
    """0, differentiable by all that was read of a forward, whose derivatives are 0 too.

    Ranks wait for one another's gradient of each weight. One that has rows of one role alone, whose loss reads hidden
    states of a lower layer, would give those above it none.
    """
    read = [values for _, rows in scores.items() for values in (rows.logps, *rows.hidden.values())]
    # A log-prob of minus infinity that no loss reads stays without effect.
    zeros = [(values * 0).nan_to_num().sum() for values in read if values.requires_grad]
    return sum(zeros, torch.zeros((), device=read[0].device))


def score(
    model: nn.Module,
    head: OutputHead,
    batch: Batch,
    *,
    readouts: Sequence[TokenReadout] = (),
    keep: Mapping[Role, LogitCache] | None = None,
    full_logits: bool = False,
    capture: HiddenStateCapture | None = None,
    likelihoods: Likelihoods = Likelihoods.TRAINED,
) -> tuple[Scores, Any]:
    """One forward of the whole batch, as scores by role.

    The output head runs at answer positions only, in chunks, inside the model's own forward: logits [B, L, V] never
    exist, nor [T, V]. The call goes through `model`, wrapped as it may be (DDP, DeepSpeed, FSDP).

    Args:
        model: what is called, wrapped or not.
        head: `output_head` of the model inside it.
        batch: from `DataCollatorForUnlearning`.
        readouts: what losses read of the distributions at the answer tokens of a role.
        keep: roles whose logits are to be had again later, and how.
        full_logits: compute the logits of every position, as plain Trainer does, and keep them in the output.
        capture: where hidden states are read, if a loss needs them.
        likelihoods: what the log-probs are for; anything but TRAINED needs `capture` or `keep`.

    Returns:
        the scores, and the model's output.

    Raises:
        ValueError: rows not in the order of roles, or a head that is not fed [B, L, hidden].
    """
    index = answer_index(batch)
    kept = keep or {}
    ends_early = likelihoods is Likelihoods.NONE and not kept
    query = HeadQuery(
        positions=index.positions[:0] if ends_early else index.positions,
        targets=index.targets,
        tokens={readout.role: index.token_slice(readout.role) for readout in readouts},
        readouts=readouts,
        compute_logps=likelihoods is not Likelihoods.NONE,
        keep=max(kept.values(), key=list(LogitCache).index, default=LogitCache.NOTHING),
    )
    hidden: dict[float, Tensor] = {}
    with contextlib.ExitStack() as stack:
        if capture is not None:
            if ends_early:
                stack.enter_context(capture.early_exit())
            hidden = stack.enter_context(capture.capture(above=likelihoods is Likelihoods.TRAINED))
            # Back on before the forward ends: DDP asks there whether a backward is to come.
            stack.enter_context(grad_mode_after(head.module, torch.is_grad_enabled()))
        result, output = head.read(model, model_inputs(batch, index), query, full_logits=full_logits)
    logps = result.logps.split_with_sizes(index.tokens) if len(result.logps) else [result.logps] * len(Role)
    states = {layer: outputs.flatten(0, 1)[index.positions] for layer, outputs in hidden.items()}
    scores: dict[str, Any] = {
        _FIELD[role]: _of_role(role, batch, index, query, result, logps[role], states, keeps=role in kept)
        for role in Role
        if index.rows[role]
    }
    return Scores(**scores), output


def score_answers(
    model: nn.Module,
    head: OutputHead,
    batch: Batch,
    *,
    readouts: Sequence[TokenReadout] = (),
    full_logits: bool = False,
    keep: LogitCache = LogitCache.NOTHING,
) -> tuple[RowScores, Any]:
    """One forward of a batch, as scores of all its B rows in their order, whatever they are there for.

    Args:
        model: what is called, wrapped or not.
        head: `output_head` of the model inside it.
        batch: with its answer index; its rows need no roles.
        readouts: what is read of the distributions at answer tokens, each of role None.
        full_logits: compute the logits of every position too, and keep them in the output.
        keep: how the logits are to be had again later; where they are, log-probs and readouts are not computed.

    Returns:
        the scores, and the model's output.
    """
    index = answer_index(batch)
    computed = keep is LogitCache.NOTHING
    query = HeadQuery(index.positions, index.targets, {None: index.token_slice(None)}, readouts, computed, keep)
    result, output = head.read(model, model_inputs(batch, index), query, full_logits=full_logits)
    rows = RowScores(
        logps=result.logps,
        token_ids=index.targets,
        lengths=index.lengths,
        source=torch.full_like(index.lengths, -1),  # to no row of another role does any of them belong
        row=batch["row"],
        readouts=result.readouts,
        logits=result.logits,
    )
    return rows, output


def model_inputs(batch: Batch, index: AnswerIndex) -> dict[str, Any]:
    """What the model's forward takes of a batch."""
    inputs: dict[str, Any] = {
        key: batch[key] for key in ("input_ids", "attention_mask", "position_ids") if key in batch
    }
    if index.packed:
        # Read by flash attention over rows of any length; others see by the positions where rows begin.
        ends = torch.nn.functional.pad(batch["row_lengths"].cumsum(0), (1, 0)).int()
        inputs |= {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends}
        inputs |= {"max_length_q": index.longest, "max_length_k": index.longest}
    return inputs


def _of_role(
    role: Role,
    batch: Batch,
    index: AnswerIndex,
    query: HeadQuery,
    result: HeadResult,
    logps: Tensor,
    states: Mapping[float, Tensor],
    *,
    keeps: bool,
) -> RowScores:
    """The part of a forward's results that belongs to the rows of one role."""
    row, token = index.row_slice(role), index.token_slice(role)
    own = [readout.name for readout in query.readouts if readout.role is role]
    logits = result.logits if keeps else None
    return RowScores(
        logps=logps,
        token_ids=index.targets[token],
        lengths=index.lengths[row],
        source=batch["source"][row],
        row=batch["row"][row],
        readouts={name: result.readouts[name] for name in own if name in result.readouts},
        logits=None if logits is None else slice_logits(logits, token),
        hidden={layer: hidden[token] for layer, hidden in states.items()},
    )
