"""Stage 2, one forward as scores of answer tokens: the only place where labels are shifted. No loss is known here."""

import contextlib
import enum
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from .data.roles import Role
from .distributions import token_logps
from .errors import input_error
from .taps import Taps

Batch = dict[str, Any]


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
        logits: z_t, [T, V] in the precision that the model puts out; None unless a loss needs them.
        hidden: by layer the hidden states h_t that answer tokens are predicted from, [T, H]; empty unless a loss needs
            them.
        reference: the same under the frozen reference; None unless a loss needs it.
    """

    logps: Tensor
    token_ids: Tensor
    lengths: Tensor
    source: Tensor
    row: Tensor
    logits: Tensor | None = None
    hidden: Mapping[float, Tensor] = field(default_factory=dict)
    reference: "RowScores | None" = None

    def nll(self) -> Tensor:
        """NLL = -sum_t lp_t of each row, [R], nats."""
        return -torch.segment_reduce(self.logps, "sum", lengths=self.lengths)

    def nll_per_token(self) -> Tensor:
        """nll = NLL / n of each row, [R], nats per token."""
        return self.nll() / self.lengths

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

    def with_reference(self, references: dict[Role, RowScores]) -> "Scores":
        """The same scores, each role with its reference."""
        roles = {
            role: replace(scores, reference=references[role]) for role, scores in self.items() if role in references
        }
        return replace(self, **{role.name.lower(): scores for role, scores in roles.items()})

    def items(self) -> list[tuple[Role, RowScores]]:
        """(role, scores) of the roles that the batch holds."""
        found = [(role, self.of(role)) for role in Role]
        return [(role, scores) for role, scores in found if scores is not None]


def answer_mask(labels: Tensor) -> Tensor:
    """Positions whose next token is an answer token: labels [B, L] -> bool [B, L-1].

    Position t predicts token t+1, so the label of position 0 is never a target. This is the project's one label shift.
    """
    return labels[:, 1:] != -100


def missing_keys(batch: Mapping[str, Any]) -> list[str]:
    """What a batch lacks of what is read from it."""
    return [key for key in ("input_ids", "attention_mask", "labels", "role", "source", "row") if key not in batch]


def missing_roles(got: str) -> ValueError:
    """The error of a collator whose batches do not say what their rows are there for."""
    return input_error(
        expected="a data_collator whose batches have input_ids, attention_mask, labels, role, source and row",
        got=got,
        why="without a role per row nothing tells what to forget from what to keep",
        fix="leave data_collator out, or change what hf_unlearn.DataCollatorForUnlearning returns inside your own",
    )


def count_answers(batch: Batch) -> Tensor:
    """Answer tokens and rows of each role in a batch: int64 [roles, 2]; what the losses are divided by."""
    missing = missing_keys(batch)
    if missing:
        raise missing_roles(f"a batch without {', '.join(missing)}")
    lengths = answer_mask(batch["labels"]).sum(1)
    tokens_and_rows = torch.stack([lengths, (lengths > 0).to(lengths.dtype)], dim=1)
    counts = lengths.new_zeros((len(Role), 2))
    return counts.index_add(0, batch["role"], tokens_and_rows)


def score(
    model: nn.Module,
    head: nn.Module,
    batch: Batch,
    *,
    logits: Collection[Role] = (),
    full_logits: bool = False,
    taps: Taps | None = None,
    likelihoods: Likelihoods = Likelihoods.TRAINED,
) -> tuple[Scores, Any]:
    """One forward of the whole batch, as scores by role.

    The output head runs at answer positions only: a hook selects them from the hidden states on the way in, so logits
    [B, L, V] never exist. The call goes through `model`, wrapped as it may be (DDP, DeepSpeed, FSDP).

    Args:
        model: what is called, wrapped or not.
        head: the output embedding module inside it (`model.get_output_embeddings()`).
        batch: from `DataCollatorForUnlearning`.
        logits: roles whose logits [T, V] a loss needs.
        full_logits: compute the logits of every position, as plain Trainer does, and keep them in the output.
        taps: where hidden states are read, if a loss needs them.
        likelihoods: what the log-probs are for; anything but TRAINED needs taps.

    Returns:
        the scores, and the model's output.

    Raises:
        ValueError: rows not in the order of roles, or a head that is not fed [B, L, hidden].
    """
    mask = answer_mask(batch["labels"])
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "position_ids") if key in batch}
    skip_head = likelihoods is Likelihoods.NONE
    with contextlib.ExitStack() as stack:
        if not full_logits:
            stack.enter_context(_answer_positions_only(head, torch.zeros_like(mask) if skip_head else mask))
        if skip_head and taps is not None:
            stack.enter_context(taps.ending())
        hidden: dict[float, Tensor] = {}
        if taps is not None:
            hidden = stack.enter_context(taps.reading(above=likelihoods is Likelihoods.TRAINED))
            stack.enter_context(_grad_after(head, torch.is_grad_enabled()))
        output = model(**inputs, use_cache=False)
    targets = batch["labels"][:, 1:][mask]
    picked = output.logits[:, :-1][mask] if full_logits else output.logits.squeeze(0)
    logps = picked.new_empty(0) if skip_head else token_logps(picked, targets)
    states = {layer: each[:, :-1][mask] for layer, each in hidden.items()}
    return _by_role(batch, mask.sum(1), _Answers(targets, logps, picked, states), logits), output


@contextlib.contextmanager
def _answer_positions_only(head: nn.Module, mask: Tensor) -> Iterator[None]:
    def keep_answers(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = args[0]
        batch_and_length = (mask.shape[0], mask.shape[1] + 1)
        if hidden.shape[:2] != batch_and_length:
            raise input_error(
                expected=f"a causal language model whose output head reads hidden states {batch_and_length}",
                got=f"hidden states of shape {tuple(hidden.shape)}",
                why="the answer positions are selected there",
                fix="use an AutoModelForCausalLM without sequence packing or prompt-learning adapters",
            )
        return (hidden[:, :-1][mask].unsqueeze(0), *args[1:])

    handle = head.register_forward_pre_hook(keep_answers)
    try:
        yield
    finally:
        handle.remove()


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

    targets: Tensor
    logps: Tensor
    logits: Tensor
    hidden: Mapping[float, Tensor]


def _by_role(batch: Batch, lengths: Tensor, answers: _Answers, logits: Collection[Role]) -> Scores:
    role = batch["role"]
    if bool((role.diff() < 0).any()):
        raise input_error(
            expected=f"the rows of a batch in the order {', '.join(each.name.lower() for each in Role)}",
            got="another order",
            why="the tokens of a role are one slice of the batch",
            fix="use DataCollatorForUnlearning, or sort the rows of your own collator by `role`",
        )
    # One transfer for all sizes of the slices below.
    rows_and_tokens = torch.stack([torch.bincount(role, minlength=len(Role)), _tokens_of(role, lengths)]).tolist()
    found, row_start, token_start = {}, 0, 0
    for each, rows, tokens in zip(Role, *rows_and_tokens, strict=True):
        row, token = slice(row_start, row_start + rows), slice(token_start, token_start + tokens)
        row_start, token_start = row.stop, token.stop
        if rows:
            found[each.name.lower()] = RowScores(
                logps=answers.logps[token],
                token_ids=answers.targets[token],
                lengths=lengths[row],
                source=batch["source"][row],
                row=batch["row"][row],
                logits=answers.logits[token] if each in logits else None,
                hidden={layer: states[token] for layer, states in answers.hidden.items()},
            )
    return Scores(**found)


def _tokens_of(role: Tensor, lengths: Tensor) -> Tensor:
    return lengths.new_zeros(len(Role)).index_add(0, role, lengths)


def select_roles(batch: Batch, roles: Collection[Role]) -> Batch:
    """The rows of some roles, cut to their own longest row (right-padded batches only lose padding)."""
    keep = torch.isin(batch["role"], torch.tensor(sorted(roles), device=batch["role"].device))
    part = {key: value[keep] for key, value in batch.items() if isinstance(value, Tensor)}
    columns = part["attention_mask"].any(0)
    return {key: value[:, columns] if value.ndim == 2 else value for key, value in part.items()}
