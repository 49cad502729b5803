"""Numbers worked out by hand for the oracles, where the package's own tests have none for the same formula.

The later losses, masks, surgery, Sophia and the primal-dual weight have theirs in tests/losses, tests/steps and
tests/optimizers, on the package itself; one-step tests then compare the package with the oracles.

The stub model is a bigram table over three tokens, so every probability below can be read off it:

    next token      0     1     2                    0     1     2
    model    0 :   1/2   1/4   1/4    reference 0 : 1/4   1/2   1/4
             1 :   1/4   1/4   1/2              1 : 1/2   1/4   1/4
             2 :   1/8   3/4   1/8              2 : 1/2   1/4   1/4

Each table row carries a constant of its own, so the logits are not yet log-probabilities.
"""

from fractions import Fraction
from math import log, sqrt
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from oracles import naive, steps

LN2 = log(2)

MODEL = [["1/2", "1/4", "1/4"], ["1/4", "1/4", "1/2"], ["1/8", "3/4", "1/8"]]
REFERENCE = [["1/4", "1/2", "1/4"], ["1/2", "1/4", "1/4"], ["1/2", "1/4", "1/4"]]


class Bigram(nn.Module):
    """Logits that depend on the current token alone: `table[token]`, literal numbers."""

    def __init__(self, probabilities: list[list[str]]) -> None:
        super().__init__()
        logits = [[log(Fraction(p)) + constant for p in row] for constant, row in enumerate(probabilities)]
        self.table = nn.Parameter(double(logits))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table[input_ids])


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


def gradient(model: nn.Module, loss: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss, model.table, retain_graph=True)[0]


LOSSES = {
    "grad_ascent": lambda model, reference: naive.grad_ascent(model, ROWS),
    "npo": lambda model, reference: naive.npo(model, reference, ROWS, 4.0),
    "simnpo": lambda model, reference: naive.simnpo(model, ROWS, 4.0, LN2),
    "dpo": lambda model, reference: naive.dpo(model, reference, ROWS, ALTERNATES, 4.0),
    "idk": lambda model, reference: naive.idk(model, ALTERNATES),
    "random_mismatch": lambda model, reference: naive.random_mismatch(model, ALTERNATES),
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
    loss = LOSSES[name](model, reference)
    assert loss.shape == ()
    assert gradient(model, loss).abs().max() > 0.01
    assert loss.item() == pytest.approx(BY_HAND[name], abs=1e-12)


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


def test_inactive_gradient_by_hand(model):
    # Without LONG the token 0 keeps its gradient (onehot - p) / 3; tokens 1 and 2, met by LONG alone, get none.
    expected = double([[1 / 6, -1 / 12, -1 / 12], [0, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(gradient(model, naive.grad_ascent(model, ROWS, [False, True])), expected)


# --- Steps ---


class Weights(nn.Module):
    """Two weights and nothing else, for losses that are functions of the weights."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(double([a])), nn.Parameter(double([[b]]))


def test_sam_by_hand_with_the_norm_over_all_weights():
    def half_square(model: Weights) -> torch.Tensor:
        return (model.a**2).sum() / 2 + (model.b**2).sum() / 2

    # g = theta = (3, 4), of length 5: rho 5 doubles theta, and so the gradient.
    expected = {"a": double([6]), "b": double([[8]])}
    torch.testing.assert_close(steps.sam_gradient(Weights(3.0, 4.0), half_square, rho=5.0), expected)


def test_smoothed_gradient_by_hand():
    # d (a^3 / 3) = a^2: the mean of 2^2 and 0^2 is 2, not the gradient at the mean weight, 1^2.
    noises = [{"a": double([sign]), "b": double([[5]])} for sign in (1, -1)]
    smoothed = steps.smoothed_gradient(Weights(1.0, 1.0), lambda model: (model.a**3).sum() / 3, noises)
    torch.testing.assert_close(smoothed, {"a": double([2]), "b": double([[0]])})


def test_projection_by_hand_and_over_all_weights_together():
    # <g_f, g_r> = -1 and ||g_r||^2 = 2: g_f + g_r / 2.
    conflict = steps.projected({"a": double([1]), "b": double([[0]])}, {"a": double([-1]), "b": double([[1]])})
    torch.testing.assert_close(conflict, {"a": double([1 / 2]), "b": double([[1 / 2]])})
    # In conflict at a alone, but not altogether: -1 + 3 > 0.
    forget, retain = {"a": double([1]), "b": double([[3]])}, {"a": double([-1]), "b": double([[1]])}
    assert steps.projected(forget, retain) == forget


def test_average_by_hand():
    trajectory = [{"a": double([value])} for value in (1, 2, 6)]
    torch.testing.assert_close(steps.averaged(trajectory), {"a": double([3])})


# --- The latent attack ---


class Tower(nn.Module):
    """One decoder block, h -> 2 h, and a head that triples: logits (6 h1, 6 h2, 0) on literal embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.embed = nn.Parameter(double([[1, 0], [0, 1], [1, 1]]))
        self.model.layers = nn.ModuleList([nn.Linear(2, 2, bias=False, dtype=torch.float64)])
        with torch.no_grad():
            self.model.layers[0].weight.copy_(2 * torch.eye(2))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        states = self.model.layers[0](self.model.embed[input_ids])
        return SimpleNamespace(logits=nn.functional.pad(3 * states, (0, 1)))


class Valley(nn.Module):
    """One block that puts out zeros, [1, L, 1]; the logits are -(h - 0.7)^2 and 0, so h = 0.7 favours token 0 most."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.layers = nn.ModuleList([nn.Identity()])
        self.at = nn.Parameter(double([0.7]))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        states = self.model.layers[0](input_ids.to(torch.float64)[..., None])
        return SimpleNamespace(logits=nn.functional.pad(-((states - self.at) ** 2), (0, 1)))


def test_latent_attack_by_hand():
    # SHORT after the block: h = (2, 0), logits (6, 0, 0), slope 3 (p0 - 1, p1) along (-2, 1). One step of 5/2 eps is
    # cut to eps; the second position predicts nothing.
    delta = steps.latent_attack(Tower(), SHORT, 1, eps=0.1, steps=1)
    torch.testing.assert_close(delta, 0.1 / sqrt(5) * double([[2, -1], [0, 0]]))


@pytest.mark.parametrize(("count", "end"), [(1, 1), (5, 1 / 2), (9, 5 / 6), (10, 1 / 2)])
def test_latent_attack_steps_by_hand(count, end):
    # eps 1, the best delta 0.7, steps of 2.5 / count: cut to 1; then 1/2 1 1/2 1 1/2; 5/18 5/9 5/6 5/9 ... 5/6;
    # 1/4 1/2 3/4 1/2 ... 1/2.
    delta = steps.latent_attack(Valley(), SHORT, 1, eps=1.0, steps=count)
    torch.testing.assert_close(delta, double([[end], [0]]))
