"""Stage 2, one forward as scores of answer tokens: the only place where labels are shifted. No loss is known here."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .data.roles import Role
from .errors import input_error

# Elements of one fp32 chunk of logits: 64 MB, whatever the vocabulary.
_CHUNK_ELEMENTS = 1 << 24

Batch = dict[str, Any]


@dataclass(frozen=True)
class RowScores:
    """Scores of the answer tokens of R rows of one role, T tokens in all, row after row.

    Attributes:
        logps: log pi(y_t | x, y_<t), [T], nats, fp32 (fp64 for a model in fp64).
        token_ids: y_t, [T].
        lengths: answer tokens of each row, [R].
        source: the forget row of the batch to which each row belongs, [R] (-1 for retain rows).
        row: index of each row in its own dataset, [R] (-1 where it has none).
        logits: z_t, [T, V] in the precision that the model puts out; None unless a loss needs them.
        reference: the same under the frozen reference; None unless a loss needs it.
    """

    logps: Tensor
    token_ids: Tensor
    lengths: Tensor
    source: Tensor
    row: Tensor
    logits: Tensor | None = None
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
        return torch.repeat_interleave(rows, self.lengths, output_size=len(self.logps))


@dataclass(frozen=True)
class Scores:
    """Scores of a batch by role; a role without rows in the batch is None."""

    forget: RowScores | None = None
    retain: RowScores | None = None
    alternate: RowScores | None = None
    mismatch: RowScores | None = None

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
    model: nn.Module, head: nn.Module, batch: Batch, *, logits: Collection[Role] = (), full_logits: bool = False
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

    Returns:
        the scores, and the model's output.

    Raises:
        ValueError: rows not in the order of roles, or a head that is not fed [B, L, hidden].
    """
    mask = answer_mask(batch["labels"])
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "position_ids") if key in batch}
    with contextlib.nullcontext() if full_logits else _answer_positions_only(head, mask):
        output = model(**inputs, use_cache=False)
    picked = output.logits[:, :-1][mask] if full_logits else output.logits.squeeze(0)
    targets = batch["labels"][:, 1:][mask]
    return _by_role(batch, mask.sum(1), picked, targets, logits), output


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


def _by_role(batch: Batch, lengths: Tensor, picked: Tensor, targets: Tensor, logits: Collection[Role]) -> Scores:
    role = batch["role"]
    if bool((role.diff() < 0).any()):
        raise input_error(
            expected="the rows of a batch in the order forget, retain, alternate, mismatch",
            got="another order",
            why="the tokens of a role are one slice of the batch",
            fix="use DataCollatorForUnlearning, or sort the rows of your own collator by `role`",
        )
    logps = token_logps(picked, targets)
    # One transfer for all sizes of the slices below.
    rows_and_tokens = torch.stack([torch.bincount(role, minlength=len(Role)), _tokens_of(role, lengths)]).tolist()
    found, row_start, token_start = {}, 0, 0
    for each, rows, tokens in zip(Role, *rows_and_tokens, strict=True):
        row, token = slice(row_start, row_start + rows), slice(token_start, token_start + tokens)
        row_start, token_start = row.stop, token.stop
        if rows:
            found[each.name.lower()] = RowScores(
                logps=logps[token],
                token_ids=targets[token],
                lengths=lengths[row],
                source=batch["source"][row],
                row=batch["row"][row],
                logits=picked[token] if each in logits else None,
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


def chunks(tokens: int, vocabulary: int) -> Iterator[slice]:
    """Slices over T tokens such that one slice of [T, V] in fp32 stays at 64 MB."""
    size = max(1, _CHUNK_ELEMENTS // vocabulary)
    for start in range(0, tokens, size):
        yield slice(start, min(start + size, tokens))


def softmax_dtype(logits: Tensor) -> torch.dtype:
    """fp32, or fp64 where the model itself is in fp64."""
    return torch.promote_types(logits.dtype, torch.float32)


def token_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """log softmax(z_t)[y_t] at T positions: logits [T, V], targets [T] -> [T], fp32, in chunks both ways."""
    return _TokenLogps.apply(logits, targets)


class _TokenLogps(torch.autograd.Function):
    """Keeps the logits in their own precision and the normalisers; neither pass holds an fp32 copy of all of them."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        dtype = softmax_dtype(logits)
        normalisers = torch.empty(len(targets), dtype=dtype, device=logits.device)
        logps = torch.empty_like(normalisers)
        for part in chunks(*logits.shape):
            z = logits[part].to(dtype)
            normalisers[part] = z.logsumexp(-1)
            logps[part] = z.gather(-1, targets[part, None]).squeeze(-1) - normalisers[part]
        ctx.save_for_backward(logits, targets, normalisers)
        return logps

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, targets, normalisers = ctx.saved_tensors
        grad_logits = torch.empty_like(logits)
        for part in chunks(*logits.shape):
            # d lp / d z = onehot(y) - softmax(z)
            probabilities = (logits[part].to(normalisers.dtype) - normalisers[part, None]).exp_()
            weighted = probabilities.mul_(-grad[part, None])
            weighted.scatter_add_(-1, targets[part, None], grad[part, None])
            grad_logits[part] = weighted
        return grad_logits, None
