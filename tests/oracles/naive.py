"""Naive oracles: every loss as its formula reads, one sequence at a time. Not the package's losses, nor for training.

They share no code with the package's scoring and losses: no batch, no padding, no chunks, one forward a sequence,
Python loops over rows and tokens, the softmax in fp32 (fp64 for a model in double). Slow, and short enough to check by
eye.

A row is `{"input_ids": list[int], "labels": list[int]}` in the Hugging Face convention: labels are aligned with the
ids, -100 marks the prompt, and position t predicts labels[t + 1]. Over the n answer tokens of a row:

    lp_t = log pi_theta(y_t | x, y_<t)        NLL = -sum_t lp_t (nats)        nll = NLL / n (nats per token)

and the suffix `_ref` means the same under the reference. Token-level losses (grad_ascent, idk, random_mismatch,
retain_nll, retain_kl) are the mean over all answer tokens of all their rows, pooled; row-level losses (npo, simnpo,
dpo) are the mean over rows. The model runs in the mode it is in; the reference in eval mode, without gradients.

The row bound: a forget loss takes `active`, one bool a forget row. An inactive row's term keeps its value and its
place in the mean but is detached, so it gives no gradient. With every row inactive the loss is a constant.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from hf_unlearn.errors import input_error

Row = dict[str, list[int]]
Rows = Sequence[Row]

PROMPT = -100  # the label of a position that is never a target


def shift_check(row: Row) -> list[tuple[int, int]]:
    """Pair each answer token with the position that predicts it: `[(t, labels[t + 1]), ...]`, in order.

    The only label shift of this file. Labels that are not the ids they stand beside (shifted already, or another
    row's) are refused, because they would give a plausible wrong loss.

    Raises:
        ValueError: the lengths differ, a label is neither -100 nor the id at its place, or there is no answer token.
    """
    input_ids, labels = row["input_ids"], row["labels"]
    if len(input_ids) != len(labels):
        raise input_error(
            expected="one label for each input id",
            got=f"{len(input_ids)} ids and {len(labels)} labels",
            why="answer tokens would be scored at the wrong positions",
            fix="pass labels aligned with input_ids, -100 on the prompt",
        )
    pairs = []
    # labels[0] is never a target: no position comes before it.
    for position in range(len(input_ids) - 1):
        target = labels[position + 1]
        if target == PROMPT:
            continue
        if target != input_ids[position + 1]:
            raise input_error(
                expected="labels[t] equal to input_ids[t], or -100",
                got=f"another label at position {position + 1}",
                why="labels that are shifted already would be shifted twice",
                fix="pass labels aligned with input_ids; the shift is done here",
            )
        pairs.append((position, target))
    if not pairs:
        raise input_error(
            expected="at least one answer token after the first position",
            got=f"none among {len(labels)} labels",
            why="the row has no loss, and its mean would be 0 / 0",
            fix="leave the row out, or unmask its answer",
        )
    return pairs


def answer_logits(model: nn.Module, row: Row) -> Tensor:
    """Logits at the positions that predict the row's n answer tokens: [n, V], in fp32 (fp64 for a model in double)."""
    device = next(model.parameters()).device
    input_ids = torch.tensor([row["input_ids"]], device=device)
    # Every token is seen: a mask guessed from the pad id would hide real end-of-turn tokens.
    logits = model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids)).logits[0]
    if logits.dtype != torch.float64:
        logits = logits.float()
    return torch.stack([logits[position] for position, _ in shift_check(row)])


def token_logps(model: nn.Module, row: Row) -> Tensor:
    """lp_t of each answer token: [n], nats."""
    logps = []
    for logits, (_, target) in zip(answer_logits(model, row), shift_check(row), strict=True):
        logps.append(torch.log_softmax(logits, dim=-1)[target])
    return torch.stack(logps)


def active_rows(model: nn.Module, forget_rows: Rows, bound: float) -> list[bool]:
    """Which forget rows still push: nll < bound (nats per token), in the mode the model is in."""
    with torch.no_grad():
        return [bool(-token_logps(model, row).mean() < bound) for row in forget_rows]


# --- Forget losses ---


def grad_ascent(model: nn.Module, forget_rows: Rows, active: list[bool] | None = None) -> Tensor:
    """mean_t lp_t, that is, minus the cross-entropy (Jang et al., arXiv 2210.01504)."""
    return _mean_token_logp(model, forget_rows, _kept(forget_rows, active))


def npo(
    model: nn.Module, reference: nn.Module, forget_rows: Rows, beta: float, active: list[bool] | None = None
) -> Tensor:
    """Mean over rows of (2 / beta) softplus(-beta (NLL - NLL_ref)) (Zhang et al., arXiv 2404.05868)."""
    terms = []
    for row, kept in zip(forget_rows, _kept(forget_rows, active), strict=True):
        nll = -token_logps(model, row).sum()
        nll_ref = -_under_reference(token_logps, reference, row).sum()
        term = (2 / beta) * _softplus(-beta * (nll - nll_ref))
        terms.append(term if kept else term.detach())
    return torch.stack(terms).mean()


def simnpo(model: nn.Module, forget_rows: Rows, beta: float, delta: float, active: list[bool] | None = None) -> Tensor:
    """Mean over rows of (2 / beta) softplus(-beta (nll - delta)), nll per token (Fan et al., arXiv 2410.07163)."""
    terms = []
    for row, kept in zip(forget_rows, _kept(forget_rows, active), strict=True):
        nll_per_token = -token_logps(model, row).mean()
        term = (2 / beta) * _softplus(-beta * (nll_per_token - delta))
        terms.append(term if kept else term.detach())
    return torch.stack(terms).mean()


def dpo(
    model: nn.Module,
    reference: nn.Module,
    forget_rows: Rows,
    alternate_rows: Rows,
    beta: float,
    active: list[bool] | None = None,
    sources: Sequence[int] | None = None,
) -> Tensor:
    """Mean over rows of -(2 / beta) logsigmoid(beta [(NLL_alt_ref - NLL_alt) - (NLL_ref - NLL)]).

    Rafailov et al., arXiv 2305.18290, with the alternate answer chosen and the forget answer rejected. Alternate row i
    belongs to forget row `sources[i]` (default: i); each forget row has exactly one.

    Raises:
        ValueError: a forget row has no alternate, or several.
    """
    sources = one_alternate_each(forget_rows, alternate_rows, sources)
    terms = []
    kept_rows = _kept(alternate_rows, active, sources)
    for alternate_row, source, kept in zip(alternate_rows, sources, kept_rows, strict=True):
        forget_row = forget_rows[source]
        nll = -token_logps(model, forget_row).sum()
        nll_ref = -_under_reference(token_logps, reference, forget_row).sum()
        nll_alt = -token_logps(model, alternate_row).sum()
        nll_alt_ref = -_under_reference(token_logps, reference, alternate_row).sum()
        term = -(2 / beta) * logsigmoid(beta * ((nll_alt_ref - nll_alt) - (nll_ref - nll)))
        terms.append(term if kept else term.detach())
    return torch.stack(terms).mean()


def idk(
    model: nn.Module, alternate_rows: Rows, active: list[bool] | None = None, sources: Sequence[int] | None = None
) -> Tensor:
    """-mean_t lp_t of the alternate answers (Maini et al., arXiv 2401.06121).

    Row i belongs to forget row `sources[i]` (default: i).
    """
    return -_mean_token_logp(model, alternate_rows, _kept(alternate_rows, active, sources))


def random_mismatch(
    model: nn.Module, mismatch_rows: Rows, active: list[bool] | None = None, sources: Sequence[int] | None = None
) -> Tensor:
    """-mean_t lp_t of other prompts' answers placed under the forget prompts (Yao et al., arXiv 2310.10683).

    With K answers a forget row there are K rows for it in `mismatch_rows`; row i belongs to forget row `sources[i]`
    (default: i).
    """
    return -_mean_token_logp(model, mismatch_rows, _kept(mismatch_rows, active, sources))


# --- Retain losses ---


def retain_nll(model: nn.Module, retain_rows: Rows) -> Tensor:
    """-mean_t lp_t of the retain answers."""
    return -_mean_token_logp(model, retain_rows, _kept(retain_rows, None))


def retain_kl(model: nn.Module, reference: nn.Module, retain_rows: Rows) -> Tensor:
    """mean_t KL(pi_ref || pi_theta), each sum_v pi_ref(v) (log pi_ref(v) - log pi_theta(v)): answer positions only."""
    divergences = []
    for row in retain_rows:
        reference_logits = _under_reference(answer_logits, reference, row)
        for logits, logits_ref in zip(answer_logits(model, row), reference_logits, strict=True):
            logp, logp_ref = torch.log_softmax(logits, dim=-1), torch.log_softmax(logits_ref, dim=-1)
            divergences.append((logp_ref.exp() * (logp_ref - logp)).sum())
    return torch.stack(divergences).mean()


# --- A whole objective, and a step on it ---


def seed_recipe(
    model: nn.Module,
    reference: nn.Module,
    forget_rows: Rows,
    mismatch_rows: Rows,
    retain_rows: Rows,
    active: list[bool] | None = None,
    sources: Sequence[int] | None = None,
) -> Tensor:
    """0.5 grad_ascent + 1 random_mismatch + 1 retain_kl (Gundavarapu et al., arXiv 2405.15152)."""
    ascent = grad_ascent(model, forget_rows, active)
    mismatch = random_mismatch(model, mismatch_rows, active, sources)
    return 0.5 * ascent + mismatch + retain_kl(model, reference, retain_rows)


def sgd_step_weights(model: nn.Module, loss: Tensor, lr: float) -> dict[str, Tensor]:
    """theta - lr * dloss/dtheta by parameter name (frozen ones as they are); the model and its `.grad` stay untouched.

    torch raises RuntimeError where the loss does not depend on a trainable weight (a constant, another model's loss):
    a step that moves nothing would agree with any other step that moves nothing.
    """
    stepped = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    trainable = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    gradients = torch.autograd.grad(loss, list(trainable.values()), retain_graph=True)
    for name, gradient in zip(trainable, gradients, strict=True):
        stepped[name] -= lr * gradient
    return stepped


def _mean_token_logp(model: nn.Module, rows: Rows, kept_rows: list[bool]) -> Tensor:
    """mean_t lp_t over the answer tokens of all rows, pooled; a row that is not kept is detached."""
    terms = []
    for row, kept in zip(rows, kept_rows, strict=True):
        for logp in token_logps(model, row):
            terms.append(logp if kept else logp.detach())
    return torch.stack(terms).mean()


def _kept(rows: Rows, active: list[bool] | None, sources: Sequence[int] | None = None) -> list[bool]:
    """For each row, whether the forget row it belongs to is active (all of them when `active` is None)."""
    if active is None:
        return [True] * len(rows)
    sources = range(len(active)) if sources is None else sources
    if len(sources) != len(rows):
        raise input_error(
            expected="one forget row named for each row of the loss",
            got=f"{len(rows)} rows and {len(sources)} forget rows",
            why="a row would be detached, or kept, with another row's forget row",
            fix="pass sources, the forget row each alternate or mismatch row belongs to",
        )
    return [active[source] for source in sources]


def _softplus(value: Tensor) -> Tensor:
    """log(1 + exp(value)), exact at both ends: torch's softplus turns into the identity above 20."""
    return torch.logaddexp(value, torch.zeros_like(value))


def _under_reference(score: Callable[[nn.Module, Row], Tensor], reference: nn.Module, row: Row) -> Tensor:
    """`score(reference, row)` in eval mode, without gradients; each submodule's mode is put back afterwards."""
    modes = [(module, module.training) for module in reference.modules()]
    reference.eval()
    try:
        with torch.no_grad():
            return score(reference, row)
    finally:
        for module, training in modes:
            module.training = training


def one_alternate_each(forget_rows: Rows, alternate_rows: Rows, sources: Sequence[int] | None) -> Sequence[int]:
    """The forget row of each alternate (default: in order), or a ValueError where they are not one to one."""
    sources = range(len(alternate_rows)) if sources is None else sources
    if sorted(sources) != list(range(len(forget_rows))):
        raise input_error(
            expected="exactly one alternate row for each forget row",
            got=f"alternates of the forget rows {list(sources)}, and {len(forget_rows)} forget rows",
            why="the mean over rows would not be a mean over forget rows",
            fix="pass one alternate a forget row, with sources a permutation of the forget rows",
        )
    return sources
