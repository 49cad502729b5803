"""The oracles against numbers worked out by hand, theorems and Hugging Face's own loss. Not a test of the package.

The stub model is a bigram table over three tokens, so every probability below can be read off it:

    next token      0     1     2                    0     1     2
    model    0 :   1/2   1/4   1/4    reference 0 : 1/4   1/2   1/4
             1 :   1/4   1/4   1/2              1 : 1/2   1/4   1/4
             2 :   1/8   3/4   1/8              2 : 1/2   1/4   1/4

Each table row carries a constant of its own, so the logits are not yet log-probabilities.
"""

from fractions import Fraction
from math import log
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from oracles import naive

LN2 = log(2)

MODEL = [["1/2", "1/4", "1/4"], ["1/4", "1/4", "1/2"], ["1/8", "3/4", "1/8"]]
REFERENCE = [["1/4", "1/2", "1/4"], ["1/2", "1/4", "1/4"], ["1/2", "1/4", "1/4"]]


class Bigram(nn.Module):
    """Logits that depend on the current token alone: `table[token]`, literal numbers."""

    def __init__(self, probabilities: list[list[str]], dropout: float = 0.0) -> None:
        super().__init__()
        logits = [[log(Fraction(p)) + constant for p in row] for constant, row in enumerate(probabilities)]
        self.table = nn.Parameter(double(logits))
        self.dropout = nn.Dropout(dropout)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.dropout(self.table[input_ids]))


def double(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def row(*input_ids: int, prompt: int) -> naive.Row:
    """A row whose first `prompt` ids are the prompt."""
    return {"input_ids": list(input_ids), "labels": [-100] * prompt + list(input_ids[prompt:])}


# What the hand calculations below start from, read off the tables:
#   LONG   p(2|1) = 1/2, p(0|2) = 1/8    NLL = 1 + 3 = 4 ln 2    nll = 2 ln 2    NLL_ref = 2 + 1 = 3 ln 2
#   SHORT  p(0|0) = 1/2                  NLL = nll = ln 2                        NLL_ref = 2 ln 2
LONG, SHORT = row(0, 1, 2, 0, prompt=2), row(0, 0, prompt=1)
#   first  p(1|1) = 1/4                  NLL = 2 ln 2                            NLL_ref = 2 ln 2
#   second p(2|0) = 1/4, p(1|2) = 3/4    NLL = 2 ln 2 - ln(3/4) = 4 ln 2 - ln 3  NLL_ref = 4 ln 2
ALTERNATES = [row(0, 1, 1, prompt=2), row(0, 2, 1, prompt=1)]
ROWS = [LONG, SHORT]


@pytest.fixture
def model() -> Bigram:
    return Bigram(MODEL)


@pytest.fixture
def reference() -> Bigram:
    return Bigram(REFERENCE)


def gradient(model: Bigram, loss: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss, model.table, retain_graph=True)[0]


FORGET_LOSSES = {
    "grad_ascent": lambda model, reference, active=None: naive.grad_ascent(model, ROWS, active),
    "npo": lambda model, reference, active=None: naive.npo(model, reference, ROWS, 4.0, active),
    "simnpo": lambda model, reference, active=None: naive.simnpo(model, ROWS, 4.0, LN2, active),
    "dpo": lambda model, reference, active=None: naive.dpo(model, reference, ROWS, ALTERNATES, 4.0, active),
    "idk": lambda model, reference, active=None: naive.idk(model, ALTERNATES, active),
    "random_mismatch": lambda model, reference, active=None: naive.random_mismatch(model, ALTERNATES, active),
}
RETAIN_LOSSES = {
    "retain_nll": lambda model, reference: naive.retain_nll(model, ROWS),
    "retain_kl": lambda model, reference: naive.retain_kl(model, reference, ROWS),
}
BY_HAND = {
    # Pooled over the 3 tokens, not the mean of the two rows' means (-3/2 ln 2): -(4 + 1) ln 2 / 3.
    "grad_ascent": -5 / 3 * LN2,
    # 2 / beta = 1/2 for beta 4. NLL - NLL_ref = +ln 2 and -ln 2: the mean of 1/2 ln(1 + 2^-4) and 1/2 ln(1 + 2^4).
    "npo": (log(17 / 16) + log(17)) / 4,
    # beta 4, delta ln 2. nll - delta = ln 2 and 0: the mean of 1/2 ln(1 + 2^-4) and 1/2 ln 2.
    "simnpo": (log(17 / 16) + log(2)) / 4,
    # beta 4. First: (2 - 2) ln 2 - (3 - 4) ln 2 = ln 2, so 1/2 ln(1 + 2^-4).
    # Second: 4 ln 2 - (4 ln 2 - ln 3) - (2 - 1) ln 2 = ln(3/2), so 1/2 ln(1 + (2/3)^4).
    "dpo": (log(17 / 16) + log(97 / 81)) / 4,
    # (2 ln 2 + 4 ln 2 - ln 3) / 3 tokens.
    "idk": (6 * LN2 - log(3)) / 3,
    "random_mismatch": (6 * LN2 - log(3)) / 3,
    "retain_nll": 5 / 3 * LN2,
    # KL(ref || model) after token 1: 1/2 ln 2 + 0 + 1/4 ln(1/2) = 1/4 ln 2;
    # after token 2: 1/2 ln 4 + 1/4 ln(1/3) + 1/4 ln 2 = 5/4 ln 2 - 1/4 ln 3;
    # after token 0: 1/4 ln(1/2) + 1/2 ln 2 + 0 = 1/4 ln 2.
    "retain_kl": (7 / 4 * LN2 - log(3) / 4) / 3,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_loss_by_hand(name, model, reference):
    loss = (FORGET_LOSSES | RETAIN_LOSSES)[name](model, reference)
    assert loss.shape == ()
    assert gradient(model, loss).abs().max() > 0.01
    assert loss.item() == pytest.approx(BY_HAND[name], abs=1e-12)


def test_seed_recipe_by_hand(model, reference):
    loss = naive.seed_recipe(model, reference, ROWS, ALTERNATES, ROWS)
    expected = 0.5 * BY_HAND["grad_ascent"] + BY_HAND["random_mismatch"] + BY_HAND["retain_kl"]
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_gradients_by_hand(model, reference):
    # d lp / d table[token] = onehot(target) - p, over 3 tokens.
    ascent = double([[1 / 2, -1 / 4, -1 / 4], [-1 / 4, -1 / 4, 1 / 2], [7 / 8, -3 / 4, -1 / 8]]) / 3
    torch.testing.assert_close(gradient(model, naive.grad_ascent(model, ROWS)), ascent)
    # dNPO / d lp = 2 sigmoid(-beta (NLL - NLL_ref)) / 2 rows: sigmoid(-4 ln 2) = 1/17 for LONG and 16/17 for SHORT,
    # the only row that meets token 0.
    weights = double([[16 / 17], [1 / 17], [1 / 17]])
    torch.testing.assert_close(gradient(model, naive.npo(model, reference, ROWS, 4.0)), 3 * ascent * weights)


# --- The label shift ---


def test_shift_check_pairs_each_answer_token_with_the_position_before_it():
    assert naive.shift_check(LONG) == [(1, 2), (2, 0)]
    assert naive.shift_check(row(2, 1, prompt=0)) == [(0, 1)]  # the first token is never a target


@pytest.mark.parametrize(
    ("bad_row", "message"),
    [
        ({"input_ids": [0, 1, 2, 0], "labels": [-100, 2, 0, -100]}, "shifted twice"),
        ({"input_ids": [0, 1, 2], "labels": [-100, 1]}, "3 ids and 2 labels"),
        ({"input_ids": [0, 1], "labels": [0, -100]}, "0 / 0"),
    ],
)
def test_shift_check_refuses(bad_row, message, model):
    with pytest.raises(ValueError, match=message):
        naive.token_logps(model, bad_row)


def test_token_scores_by_hand(model):
    torch.testing.assert_close(naive.token_logps(model, LONG), double([-LN2, -3 * LN2]))
    torch.testing.assert_close(naive.answer_logits(model, LONG), model.table[[1, 2]])


def test_retain_nll_is_the_loss_of_transformers():
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=11, hidden_size=8, ffn_dim=8, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=8
    )
    opt = OPTForCausalLM(config).eval()
    opt.model.decoder.embed_tokens.weight.data.mul_(50)  # far from uniform, so that a wrong position would show
    # The pad id 1 stands inside the row, and must be seen like any other token.
    example = row(3, 1, 5, 7, 1, 9, prompt=3)
    theirs = opt(**{name: torch.tensor([values]) for name, values in example.items()}).loss
    assert abs(theirs - log(11)) > 0.1
    torch.testing.assert_close(naive.retain_nll(opt, [example]), theirs)


# --- Theorems ---


@pytest.mark.parametrize("beta", [0.1, 3.0])
def test_npo_and_dpo_at_the_reference_are_two_over_beta_ln_2(beta, model):
    same = Bigram(MODEL)
    for loss in (naive.npo(model, same, ROWS, beta), naive.dpo(model, same, ROWS, ALTERNATES, beta)):
        assert gradient(model, loss).abs().max() > 0.01  # at the reference they push all the same
        assert loss.item() == pytest.approx(2 / beta * LN2)


def test_retain_kl_at_the_reference_is_zero_with_zero_gradient(model, reference):
    assert gradient(model, naive.retain_kl(model, reference, ROWS)).abs().max() > 0.01
    loss = naive.retain_kl(model, Bigram(MODEL), ROWS)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(gradient(model, loss), torch.zeros_like(model.table), atol=1e-12, rtol=0)


def test_npo_gradient_tends_to_gradient_ascent_as_beta_falls(model, reference):
    # Zhang et al.: sigmoid(0) = 1/2 for every row, so the limit is the ascent on the mean row's log-probability.
    limit = gradient(model, torch.stack([naive.token_logps(model, r).sum() for r in ROWS]).mean())
    assert limit.abs().max() > 0.1
    torch.testing.assert_close(gradient(model, naive.npo(model, reference, ROWS, 1e-7)), limit, atol=1e-6, rtol=0)


def test_npo_is_exact_far_below_the_reference(reference):
    # NLL_ref - NLL = 60 ln 2 > 20 / beta, where torch's softplus would give the identity: 60 ln 2 + ln(1 + 2^-60).
    model, steps = Bigram([["1/2", "1/4", "1/4"]] * 3), 60
    far = naive.npo(model, reference, [row(*[0] * (steps + 1), prompt=1)], 0.5)
    # NLL - NLL_ref = -60 ln 2; the slope 2 sigmoid(30 ln 2) = 2 / (1 + 2^-30), times 60 onehot - 60 p.
    grad_logits = 2 / (1 + 2.0**-30)
    expected = double([30.0, -15.0, -15.0]) * grad_logits
    assert far.item() == pytest.approx(4 * (30 * LN2 + log(1 + 2.0**-30)), rel=1e-13)
    torch.testing.assert_close(gradient(model, far)[0], expected, atol=0, rtol=1e-13)


# --- The row bound ---


def test_active_rows_are_strictly_below_the_bound(model):
    nll_of_short = -naive.token_logps(model, SHORT).mean().item()
    assert naive.active_rows(model, ROWS, 2.1 * LN2) == [True, True]
    assert naive.active_rows(model, ROWS, 1.5 * LN2) == [False, True]
    assert naive.active_rows(model, ROWS, nll_of_short) == [False, False]


@pytest.mark.parametrize("name", FORGET_LOSSES)
def test_an_inactive_row_keeps_the_value_and_gives_no_gradient(name, model, reference):
    def value_and_gradient(active):
        loss = FORGET_LOSSES[name](model, reference, active)
        return loss.item(), gradient(model, loss)

    value, both = value_and_gradient(None)
    first_value, first = value_and_gradient([True, False])
    second_value, second = value_and_gradient([False, True])
    assert first.abs().max() > 0.01
    assert second.abs().max() > 0.01
    assert value == first_value == second_value
    torch.testing.assert_close(first + second, both)  # the denominator is the same: no row is left out of it
    assert not FORGET_LOSSES[name](model, reference, [False, False]).requires_grad


def test_inactive_gradient_by_hand(model):
    # Without LONG the token 0 keeps its gradient (onehot - p) / 3; tokens 1 and 2, met by LONG alone, get none.
    expected = double([[1 / 6, -1 / 12, -1 / 12], [0, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(gradient(model, naive.grad_ascent(model, ROWS, [False, True])), expected)


def test_sources_say_which_forget_row_detaches(model, reference):
    crossed = naive.random_mismatch(model, ALTERNATES, [False, True], sources=[1, 0])
    torch.testing.assert_close(gradient(model, crossed), gradient(model, naive.idk(model, ALTERNATES, [True, False])))
    assert gradient(model, crossed).abs().max() > 0.01
    # Three mismatched answers, two of them under the first forget row: only the third pushes.
    three = naive.random_mismatch(model, [*ALTERNATES, SHORT], [False, True], sources=[0, 0, 1])
    expected = double([[-1 / 8, 1 / 16, 1 / 16], [0, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(gradient(model, three), expected)
    swapped = naive.dpo(model, reference, ROWS, ALTERNATES[::-1], 4.0, sources=[1, 0])
    assert swapped.item() == pytest.approx(BY_HAND["dpo"], abs=1e-12)


def test_rows_without_a_forget_row_are_refused(model, reference):
    with pytest.raises(ValueError, match="3 rows and 2 forget rows"):
        naive.random_mismatch(model, [*ALTERNATES, SHORT], [False, True])
    with pytest.raises(ValueError, match="exactly one alternate"):
        naive.dpo(model, reference, ROWS, ALTERNATES[:1], 4.0)


# --- The reference, the precision and the step ---


def test_reference_runs_in_eval_mode_without_gradients_and_is_put_back(model):
    noisy = Bigram(REFERENCE, dropout=0.9).train()
    for mode in (True, False):  # False: a submodule put in eval mode by hand stays in it
        noisy.dropout.train(mode)
        assert naive.npo(model, noisy, ROWS, 4.0).item() == pytest.approx(BY_HAND["npo"], abs=1e-12)
        assert (noisy.training, noisy.dropout.training) == (True, mode)
    loss = naive.seed_recipe(model, noisy, ROWS, ALTERNATES, ROWS) + naive.dpo(model, noisy, ROWS, ALTERNATES, 4.0)
    loss.backward()
    assert model.table.grad.abs().max() > 0.01
    assert noisy.table.grad is None


@pytest.mark.parametrize(("weights", "scores"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_softmax_precision(weights, scores):
    assert naive.token_logps(Bigram(MODEL).to(weights), LONG).dtype == scores


def test_sgd_step_by_hand(model):
    before = model.table.detach().clone()
    stepped = naive.sgd_step_weights(model, naive.retain_nll(model, [SHORT]), lr=0.5)
    # -0.5 * -(onehot - p) on the one table row met.
    moved = double([[1 / 4, -1 / 8, -1 / 8], [0, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(stepped, {"table": before + moved})
    assert torch.equal(model.table, before)
    assert model.table.grad is None


def test_sgd_step_on_a_constant_is_refused(model):
    with pytest.raises(RuntimeError, match="does not require grad"):
        naive.sgd_step_weights(model, naive.grad_ascent(model, ROWS, [False, False]), lr=0.5)
