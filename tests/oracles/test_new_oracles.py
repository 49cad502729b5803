"""The later oracles against numbers worked out by hand, theorems and real blocks. Not a test of the package.

Losses stand on the bigram tables of `test_naive`: LONG is scored after the tokens 1 and 2, SHORT after the token 0,
and read off the tables, pi and pi_ref at these three answer tokens are

    LONG   after 1, y = 2:  model 1/4 1/4 1/2  reference 1/2 1/4 1/4
           after 2, y = 0:        1/8 3/4 1/8            1/2 1/4 1/4
    SHORT  after 0, y = 0:        1/2 1/4 1/4            1/4 1/2 1/4

The alternates' answer tokens have the probabilities 1/4 (first), 1/4 and 3/4 (second).
"""

from math import exp, log, sqrt, tanh
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from oracles import distributions, hidden, likelihoods, naive, steps
from oracles.test_naive import ALTERNATES, LN2, LONG, MODEL, REFERENCE, ROWS, SHORT, Bigram, double, row

LN3, LN5, LN7 = log(3), log(5), log(7)


class Tower(nn.Module):
    """Two decoder blocks, h -> 2 h (or `first` h) and h -> 3 h, on literal embeddings; logits (h1, h2, 0)."""

    def __init__(self, first: float = 2.0) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.embed = nn.Parameter(double([[1, 0], [0, 1], [1, 1]]))
        self.model.layers = nn.ModuleList(nn.Linear(2, 2, bias=False, dtype=torch.float64) for _ in range(2))
        with torch.no_grad():
            for block, factor in zip(self.model.layers, (first, 3.0), strict=True):
                block.weight.copy_(factor * torch.eye(2))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        states = self.model.embed[input_ids]
        for block in self.model.layers:
            states = block(states)
        return SimpleNamespace(logits=nn.functional.pad(states, (0, 1)))


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


class Weights(nn.Module):
    """Nothing but two weights and a frozen one, for losses that are functions of the weights."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(double([a])), nn.Parameter(double([[b]]))
        self.frozen = nn.Parameter(double([1.0]), requires_grad=False)


def transformer(kind: str) -> nn.Module:
    torch.manual_seed(0)
    shared = dict(vocab_size=11, hidden_size=8, num_hidden_layers=3, num_attention_heads=2, max_position_embeddings=16)
    if kind == "opt":
        config = OPTConfig(**shared, ffn_dim=8, word_embed_proj_dim=8, dropout=0.0, init_std=0.3)
        return OPTForCausalLM(config).double().eval()
    config = LlamaConfig(**shared, intermediate_size=8, num_key_value_heads=2, initializer_range=0.3)
    return LlamaForCausalLM(config).double().eval()


EXAMPLE = row(3, 1, 5, 7, 2, 9, prompt=3)  # for the transformers: answer tokens predicted at positions 2, 3, 4


@pytest.fixture
def model() -> Bigram:
    return Bigram(MODEL)


@pytest.fixture
def reference() -> Bigram:
    return Bigram(REFERENCE)


def table_gradient(model: Bigram, loss: torch.Tensor) -> torch.Tensor:
    return steps.gradient(model, loss)["table"]


# --- Losses by hand ---

FORGET_LOSSES = {
    "wga": lambda model, ref, rows, others, active=None: likelihoods.wga(model, rows, 2.0, active),
    "satimp": lambda model, ref, rows, others, active=None: likelihoods.satimp(model, rows, 2.0, 1.0, active),
    "jsd": lambda model, ref, rows, others, active=None: likelihoods.jsd_alternate(model, others, active),
    "flat": lambda model, ref, rows, others, active=None: likelihoods.flat(model, rows, others, active),
    "max_entropy": lambda model, ref, rows, others, active=None: distributions.max_entropy(model, rows, active),
    "undial": lambda model, ref, rows, others, active=None: distributions.undial(model, ref, rows, log(4), active),
    "ceu": lambda model, ref, rows, others, active=None: distributions.ceu(model, rows, active),
    "ihl": lambda model, ref, rows, others, active=None: distributions.ihl(model, rows, active),
    "logit_margin": lambda model, ref, rows, others, active=None: distributions.logit_margin(model, rows, active),
}
RETAIN_LOSSES = {
    "retain_jsd": lambda model, ref, rows, others: distributions.retain_jsd(model, ref, rows),
    "answer_preservation": lambda model, ref, rows, others: likelihoods.answer_preservation(model, rows, others, 4.0),
}
BY_HAND = {
    # beta 2: (1/4 ln(1/2) + 1/64 ln(1/8) + 1/4 ln(1/2)) / 3 = -(16 + 3 + 16) ln 2 / 192.
    "wga": -35 / 192 * LN2,
    # beta1 2, beta2 1: the same with another 1/2, 7/8, 1/2: -(1/8 + 21/512 + 1/8) ln 2 / 3.
    "satimp": -149 / 1536 * LN2,
    # p at y: m = (1 + p)/2 there and half of pi elsewhere, so JSD = ((1-p) ln 2 + p ln(2p/(1+p)) + ln(2/(1+p))) / 2.
    # p = 1/4: 2 ln 2 - 5/8 ln 5. p = 3/4: 2 ln 2 + 3/8 ln 3 - 7/8 ln 7.
    "jsd": (6 * LN2 - 5 / 4 * LN5 + 3 / 8 * LN3 - 7 / 8 * LN7) / 3,
    # First row: P = (1/2 + 1/8)/2 = 5/16 and P_alt = 1/4. Second: P = 1/2 and P_alt = (1/4 + 3/4)/2 = 1/2.
    "flat": (tanh(5 / 16) / 2 - tanh(1 / 4) / 2 + 0) / 2,
    # -(1/3) sum_v ln pi(v) = 5/3 ln 2, (8 ln 2 - ln 3)/3 and 5/3 ln 2, each less ln 3.
    "max_entropy": (18 * LN2 - LN3) / 9 - LN3,
    # Targets, y divided by 4: (1/2 1/4 1/16) = (8 4 1)/13, (1/8 1/4 1/4) = (1 2 2)/5, (1/16 1/2 1/4) = (1 8 4)/13.
    # Against -ln pi: 25/13 ln 2, (3 ln 2 + 2 (2 ln 2 - ln 3) + 6 ln 2)/5 and 25/13 ln 2.
    "undial": (50 / 13 * LN2 + 13 / 5 * LN2 - 2 / 5 * LN3) / 3,
    # Targets (1/2 1/2 0), (0 6/7 1/7), (0 1/2 1/2): 2 ln 2, 6/7 (2 ln 2 - ln 3) + 3/7 ln 2 and 2 ln 2.
    "ceu": (4 * LN2 + 15 / 7 * LN2 - 6 / 7 * LN3) / 3,
    # 1 + 1/2 - 1/4, 1 + 1/8 - 3/4, 1 + 1/2 - 1/4.
    "ihl": (5 / 4 + 3 / 8 + 5 / 4) / 3,
    # -ln 2 + 5/3 ln 2, (ln 3 - 2 ln 2) - (ln 3 - 8 ln 2)/3 = 2/3 ln 6, and 2/3 ln 2 again.
    "logit_margin": (2 * LN2**2 + (LN2 + LN3) ** 2) * 4 / 27,
    # After 1 and 0: 1/4 ln(2/3) + 1/2 ln(4/3), both halves alike. After 2, with m = 5/16 1/2 3/16:
    # 1/8 ln(2/5) + 3/4 ln(3/2) + 1/8 ln(2/3), and 1/2 ln(8/5) + 1/4 ln(1/2) + 1/4 ln(4/3).
    "retain_jsd": (
        2 * (5 / 4 * LN2 - 3 / 4 * LN3)
        + (log(2 / 5) / 8 + 3 / 4 * log(3 / 2) + log(2 / 3) / 8 + log(8 / 5) / 2 - LN2 / 4 + log(4 / 3) / 4) / 2
    )
    / 3,
    # beta 4. nll_alt - nll = (2 - 2) ln 2 and (4 ln 2 - ln 3)/2 - ln 2: the mean of 1/4 ln 2 and 1/4 ln(1 + 9/16).
    "answer_preservation": (LN2 + log(25 / 16)) / 8,
}
GRADIENTS_BY_HAND = {
    # beta 2, the weight held constant: p^2 (onehot - pi).
    "wga": [[1 / 8, -1 / 16, -1 / 16], [-1 / 16, -1 / 16, 1 / 8], [7 / 512, -3 / 256, -1 / 512]],
    # pi - target, the target held constant.
    "undial": [
        [1 / 2 - 1 / 13, 1 / 4 - 8 / 13, 1 / 4 - 4 / 13],
        [1 / 4 - 8 / 13, 1 / 4 - 4 / 13, 1 / 2 - 1 / 13],
        [1 / 8 - 1 / 5, 3 / 4 - 2 / 5, 1 / 8 - 2 / 5],
    ],
    "ceu": [[1 / 2, -1 / 4, -1 / 4], [-1 / 4, -1 / 4, 1 / 2], [1 / 8, -3 / 28, -1 / 56]],
    # pi - uniform.
    "max_entropy": [[1 / 6, -1 / 12, -1 / 12], [-1 / 12, -1 / 12, 1 / 6], [-5 / 24, 5 / 12, -5 / 24]],
}
LOSSES = FORGET_LOSSES | RETAIN_LOSSES


@pytest.mark.parametrize("name", LOSSES)
def test_loss_by_hand(name, model, reference):
    loss = LOSSES[name](model, reference, ROWS, ALTERNATES)
    assert loss.shape == ()
    assert table_gradient(model, loss).abs().max() > 0.01
    assert loss.item() == pytest.approx(BY_HAND[name], abs=1e-12)


@pytest.mark.parametrize("name", GRADIENTS_BY_HAND)
def test_gradient_by_hand(name, model, reference):
    loss = LOSSES[name](model, reference, ROWS, ALTERNATES)
    torch.testing.assert_close(table_gradient(model, loss), double(GRADIENTS_BY_HAND[name]) / 3)


def dressed(plain: naive.Row) -> naive.Row:
    """The same answer behind a longer prompt and before two positions of padding."""
    ids, labels = plain["input_ids"], plain["labels"]
    return {"input_ids": [2, 2, *ids, 1, 1], "labels": [-100, -100, *labels, -100, -100]}


@pytest.mark.parametrize("name", LOSSES)
def test_prompt_and_padding_do_not_count(name, model, reference):
    plain = LOSSES[name](model, reference, ROWS, ALTERNATES)
    padded = LOSSES[name](model, reference, [dressed(r) for r in ROWS], [dressed(r) for r in ALTERNATES])
    assert padded.item() == plain.item()
    assert table_gradient(model, plain).abs().max() > 0.01
    torch.testing.assert_close(table_gradient(model, padded), table_gradient(model, plain))


# --- The row bound ---


@pytest.mark.parametrize("name", FORGET_LOSSES)
def test_an_inactive_row_keeps_the_value_and_gives_no_gradient(name, model, reference):
    whole = FORGET_LOSSES[name](model, reference, ROWS, ALTERNATES)
    first = FORGET_LOSSES[name](model, reference, ROWS, ALTERNATES, [True, False])
    second = FORGET_LOSSES[name](model, reference, ROWS, ALTERNATES, [False, True])
    none = FORGET_LOSSES[name](model, reference, ROWS, ALTERNATES, [False, False])
    assert whole.item() == first.item() == second.item() == none.item()
    parts = [table_gradient(model, first), table_gradient(model, second)]
    assert min(part.abs().max() for part in parts) > 1e-3
    torch.testing.assert_close(sum(parts), table_gradient(model, whole))
    assert not none.requires_grad


def test_sources_say_which_forget_row_an_alternate_belongs_to(model):
    crossed = likelihoods.jsd_alternate(model, ALTERNATES, [False, True], sources=[1, 0])
    straight = likelihoods.jsd_alternate(model, ALTERNATES, [True, False])
    assert table_gradient(model, crossed).abs().max() > 0.01
    torch.testing.assert_close(table_gradient(model, crossed), table_gradient(model, straight))
    # Unlike the mean over rows, each row's own gradient knows which alternate it met.
    swapped = likelihoods.flat(model, ROWS, ALTERNATES[::-1], [True, False], sources=[1, 0])
    straight = likelihoods.flat(model, ROWS, ALTERNATES, [True, False])
    assert swapped.item() == pytest.approx(BY_HAND["flat"], abs=1e-12)
    torch.testing.assert_close(table_gradient(model, swapped), table_gradient(model, straight))


def test_rows_that_do_not_pair_are_refused(model):
    with pytest.raises(ValueError, match="exactly one alternate"):
        likelihoods.flat(model, ROWS, ALTERNATES[:1])
    with pytest.raises(ValueError, match="2 retain rows and 1 alternate rows"):
        likelihoods.answer_preservation(model, ROWS, ALTERNATES[:1], 4.0)


# --- Theorems of the losses ---


def test_jensen_shannon_is_symmetric_and_between_zero_and_log_2():
    p, q = torch.log_softmax(double([[0, 2, -1, 0.5], [3, -2, 0, 1]]), dim=-1)
    value = distributions.jensen_shannon(p, q)
    assert 0.1 < value < LN2
    torch.testing.assert_close(distributions.jensen_shannon(q, p), value)
    p, q = double([1 / 4, 3 / 4, 0, 0]).log(), double([0, 0, 1 / 2, 1 / 2]).log()
    assert distributions.jensen_shannon(p, q).item() == pytest.approx(LN2, abs=1e-15)


@pytest.mark.parametrize("scale", [20, 200])
def test_jensen_shannon_in_fp32_survives_probabilities_that_underflow(scale):
    logits = scale * torch.randn(2, 261, generator=torch.Generator().manual_seed(0))
    assert torch.softmax(logits, dim=-1).min() == 0

    def value_and_gradient(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first = torch.log_softmax(first, dim=-1).requires_grad_()
        value = distributions.jensen_shannon(first, torch.log_softmax(second, dim=-1))
        return value, torch.autograd.grad(value, first)[0]

    single, exact = value_and_gradient(*logits), value_and_gradient(*logits.double())
    assert exact[1].abs().max() > 0.1
    for ours, theirs in zip(single, exact, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-6)


def test_jsd_is_log_2_where_the_alternate_is_impossible_and_zero_where_it_is_certain():
    model = Bigram(MODEL)
    with torch.no_grad():
        model.table[0] = double([-1e4, 0, 1])  # p(0|0) underflows to exactly zero
        model.table[1] = double([0, 1e4, 0])
    impossible, certain = (likelihoods.jsd_alternate(model, [r]) for r in (SHORT, row(1, 1, prompt=1)))
    assert impossible.item() == pytest.approx(LN2, abs=1e-15)
    assert certain.item() == 0
    assert torch.isfinite(table_gradient(model, impossible)).all()  # 0 log 0 has no part in the gradient either


def test_retain_jsd_at_the_reference_is_zero_with_zero_gradient(model):
    loss = distributions.retain_jsd(model, Bigram(MODEL), ROWS)
    assert loss.item() == pytest.approx(0, abs=1e-15)
    assert table_gradient(model, loss).abs().max() < 1e-15


def test_max_entropy_and_logit_margin_are_zero_with_zero_gradient_at_uniform():
    uniform = Bigram([["1/3"] * 3] * 3)
    for loss in (distributions.max_entropy(uniform, ROWS), distributions.logit_margin(uniform, ROWS)):
        assert loss.item() == pytest.approx(0, abs=1e-15)
        assert table_gradient(uniform, loss).abs().max() < 1e-15


def test_undial_and_ceu_targets_are_distributions_without_the_answer():
    logits = double([1, 2, 0, -1])
    before = torch.softmax(logits, dim=-1)
    for target, left in (
        # e^-2 of the answer's odds stay, and none at all.
        (distributions.undial_target(logits, 1, 2.0), before[1] * exp(-2) / (1 - before[1] + before[1] * exp(-2))),
        (distributions.ceu_target(logits, 1), 0.0),
    ):
        assert target.sum().item() == pytest.approx(1, abs=1e-15)
        assert target[1].item() == pytest.approx(float(left), abs=1e-15)
        assert target[1] < before[1] / 2
        # The other tokens keep their odds among themselves.
        torch.testing.assert_close(target[[0, 3]] / target[2], before[[0, 3]] / before[2])
    assert logits.tolist() == [1, 2, 0, -1]


def test_undial_without_a_push_is_self_distillation(model):
    loss = distributions.undial(model, Bigram(MODEL), ROWS, 0.0)
    assert loss.item() > 0.5  # the entropy: a cross-entropy, not a divergence
    assert table_gradient(model, loss).abs().max() < 1e-15


def test_ihl_reaches_both_its_ends():
    model = Bigram(MODEL)
    with torch.no_grad():
        model.table[0] = double([1e4, 0, 0])
        model.table[1] = double([0, 0, 1e4])
    assert distributions.ihl(model, [row(0, 0, prompt=1)]).item() == 2
    assert distributions.ihl(model, [row(1, 0, prompt=1)]).item() == 0


def test_weighted_ascents_meet_gradient_ascent(model):
    ascent = naive.grad_ascent(model, ROWS)
    for loss in (likelihoods.wga(model, ROWS, 0.0), likelihoods.satimp(model, ROWS, 0.0, 0.0)):
        torch.testing.assert_close(loss, ascent)
        torch.testing.assert_close(table_gradient(model, loss), table_gradient(model, ascent))
    torch.testing.assert_close(likelihoods.satimp(model, ROWS, 2.0, 0.0), likelihoods.wga(model, ROWS, 2.0))


# --- Hidden states ---


def test_hidden_losses_by_hand():
    tower = Tower()
    # LONG is predicted from the tokens 1 and 2, SHORT from 0; the first block doubles, the second triples that.
    torch.testing.assert_close(hidden.answer_hidden(tower, LONG, 1), double([[0, 2], [2, 2]]))
    torch.testing.assert_close(hidden.answer_hidden(tower, SHORT, 2), double([[6, 0]]))
    # c 0: the mean of (0 + 4)/2, (4 + 4)/2 and (4 + 0)/2.
    assert hidden.rmu(tower, ROWS, 1, c=0.0, seed=0).item() == pytest.approx(8 / 3)
    # |h - c u|^2 = |h|^2 - 2 c h.u + c^2, the h summing to (4, 4).
    u = hidden.rmu_direction(2, seed=7).double()
    expected = (16 - 2 * 5 * 4 * u.sum() + 3 * 25) / 2 / 3
    assert hidden.rmu(tower, ROWS, 1, c=5.0, seed=7).item() == pytest.approx(expected.item(), rel=1e-6)
    # The reference's first block keeps h as it is: each difference is half of h, its square a quarter.
    retained = hidden.retain_hidden(tower, Tower(first=1.0), ROWS, 1)
    assert retained.item() == pytest.approx(8 / 3 / 4)
    at_reference = hidden.retain_hidden(tower, Tower(), ROWS, 1)
    assert at_reference.item() == 0
    assert steps.gradient(tower, retained)["model.embed"].abs().max() > 0.1
    assert steps.gradient(tower, at_reference)["model.embed"].abs().max() == 0


def test_rmu_is_bounded_by_row_and_reaches_no_later_block():
    tower = Tower()
    whole, first, second = (
        steps.gradient(tower, hidden.rmu(tower, ROWS, 1, 5.0, 0, active))
        for active in (None, [True, False], [False, True])
    )
    assert min(each["model.embed"].abs().max() for each in (first, second)) > 0.1
    torch.testing.assert_close({name: first[name] + second[name] for name in whole}, whole)
    assert whole["model.layers.1.weight"].abs().max() == 0
    assert second["model.embed"][1:].abs().max() == 0  # SHORT is scored after token 0 alone
    assert not hidden.rmu(tower, ROWS, 1, 5.0, 0, [False, False]).requires_grad


def test_prompt_and_padding_do_not_count_in_hidden_losses():
    tower, other, padded = Tower(), Tower(first=1.0), [dressed(r) for r in ROWS]
    for plain, same in (
        (hidden.rmu(tower, ROWS, 1, 5.0, 0), hidden.rmu(tower, padded, 1, 5.0, 0)),
        (hidden.retain_hidden(tower, other, ROWS, 1), hidden.retain_hidden(tower, other, padded, 1)),
    ):
        assert same.item() == plain.item()
        assert steps.gradient(tower, plain)["model.embed"].abs().max() > 0.1
        torch.testing.assert_close(steps.gradient(tower, same), steps.gradient(tower, plain))


def test_rmu_direction_is_seeded_positive_and_of_length_one():
    state = torch.get_rng_state()
    u = hidden.rmu_direction(64, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert u.norm().item() == pytest.approx(1, abs=1e-6)
    assert u.min() >= 0
    assert torch.equal(hidden.rmu_direction(64, seed=3), u)
    assert (hidden.rmu_direction(64, seed=4) - u).abs().max() > 0.1


@pytest.mark.parametrize("block", [0, 3, -1])
def test_blocks_are_counted_from_one(block):
    with pytest.raises(ValueError, match="a block from 1 to 2"):
        hidden.answer_hidden(Tower(), LONG, block)


@pytest.mark.parametrize("kind", ["opt", "llama"])
def test_hidden_states_of_real_blocks(kind):
    model = transformer(kind)
    theirs = model(torch.tensor([EXAMPLE["input_ids"]]), output_hidden_states=True).hidden_states
    for block in (1, 2):
        ours = hidden.answer_hidden(model, EXAMPLE, block)
        assert (theirs[block] - theirs[block - 1]).abs().max() > 0.1
        torch.testing.assert_close(ours, theirs[block][0, 2:5])
    # Behind the last block there is only the final norm, which is not part of h, and the head.
    norm = model.model.decoder.final_layer_norm if kind == "opt" else model.model.norm
    last = hidden.answer_hidden(model, EXAMPLE, 3)
    assert (last - theirs[3][0, 2:5]).abs().max() > 0.1
    torch.testing.assert_close(model.lm_head(norm(last)), naive.answer_logits(model, EXAMPLE))


def test_hooks_leave_with_the_forward_even_when_it_fails():
    model = transformer("opt")
    hidden.answer_hidden(model, EXAMPLE, 2)
    with pytest.raises(RuntimeError, match="size of tensor"):
        steps.forward_with(model, EXAMPLE, 2, torch.zeros(99, 8))
    assert not any(block._forward_hooks for block in hidden.decoder_blocks(model))


@pytest.mark.parametrize("kind", ["opt", "llama"])
def test_hidden_states_under_an_adapter_are_the_adapted_ones(kind):
    base = hidden.answer_hidden(transformer(kind), EXAMPLE, 2)
    adapted = get_peft_model(transformer(kind), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    assert (hidden.answer_hidden(adapted, EXAMPLE, 2) - base).abs().max() > 1e-3
    with adapted.disable_adapter():
        torch.testing.assert_close(hidden.answer_hidden(adapted, EXAMPLE, 2), base)
    vector = steps.gradient(adapted, hidden.rmu(adapted, [EXAMPLE], 2, 5.0, 0))
    assert all("lora_" in name for name in vector)
    assert all((each.abs().max() > 0) == (".2." not in name) for name, each in vector.items())


# --- Steps ---


def test_whole_model_gradient_by_hand():
    weights = Weights(3.0, 4.0)
    torch.testing.assert_close(steps.gradient(weights, weights.a.sum() ** 2), {"a": double([6]), "b": double([[0]])})
    with pytest.raises(ValueError, match="a loss of this model"):
        steps.gradient(weights, Weights(1.0, 1.0).a.sum())
    with pytest.raises(RuntimeError, match="does not require grad"):
        steps.gradient(weights, torch.tensor(1.0))


def test_sam_by_hand_with_the_norm_over_all_weights():
    def half_square(model: Weights) -> torch.Tensor:
        return (model.a**2).sum() / 2 + (model.b**2).sum() / 2

    # g = theta = (3, 4), of length 5: rho 5 doubles theta, and so the gradient.
    weights = Weights(3.0, 4.0)
    expected = {"a": double([6]), "b": double([[8]])}
    torch.testing.assert_close(steps.sam_gradient(weights, half_square, rho=5.0), expected)
    stationary = {"a": double([0]), "b": double([[0]])}
    torch.testing.assert_close(steps.sam_gradient(Weights(0.0, 0.0), half_square, rho=5.0), stationary)


def test_sam_and_smoothing_put_the_weights_back_and_are_the_plain_gradient_without_perturbation(model, reference):
    def loss(model: nn.Module) -> torch.Tensor:
        return naive.npo(model, reference, ROWS, 4.0)

    before = model.table.detach().clone()
    plain = steps.gradient(model, loss(model))
    noise = {"table": torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)}
    for perturbed in (steps.sam_gradient(model, loss, 0.3), steps.smoothed_gradient(model, loss, [noise])):
        assert (perturbed["table"] - plain["table"]).abs().max() > 0.01
    torch.testing.assert_close(steps.sam_gradient(model, loss, 0.0), plain, rtol=0, atol=0)
    nothing = {"table": torch.zeros(3, 3, dtype=torch.float64)}
    torch.testing.assert_close(steps.smoothed_gradient(model, loss, [nothing] * 2), plain, rtol=0, atol=0)
    assert torch.equal(model.table, before)
    assert model.table.grad is None


def test_weights_are_put_back_when_the_loss_fails():
    weights = Weights(0.1, 0.3)
    with pytest.raises(ZeroDivisionError), steps.moved(weights, {"a": double([1e16]), "b": double([[1]])}):
        assert weights.a.item() > 1e15
        raise ZeroDivisionError
    assert (weights.a.item(), weights.b.item(), weights.frozen.item()) == (0.1, 0.3, 1.0)


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


def test_projection_leaves_no_conflict_and_touches_nothing_where_there_is_none():
    generator = torch.Generator().manual_seed(0)
    met = set()
    for _ in range(20):
        forget, retain = (
            {name: torch.randn(3, generator=generator, dtype=torch.float64) for name in "ab"} for _ in range(2)
        )
        after, conflict = steps.projected(forget, retain), steps.inner(forget, retain) < 0
        met.add(conflict)
        assert steps.inner(after, retain) > -1e-12
        assert all(torch.equal(after[name], forget[name]) for name in "ab") != conflict
        assert steps.inner(after, after) <= steps.inner(forget, forget)
    assert met == {True, False}


def test_scores_by_hand():
    weights, forget, retain = {"a": double([3, 1])}, {"a": double([-2, 5])}, {"a": double([4, 2])}
    torch.testing.assert_close(steps.salun_scores(forget), {"a": double([2, 5])})
    # |(3 - 4/2) (-2)| and |(1 - 2/2) 5|.
    torch.testing.assert_close(steps.wagle_scores(weights, forget, retain, mu=2.0), {"a": double([2, 0])})


def test_mask_ranks_all_weights_together():
    scores = {"a": double([1, 2, 9]), "b": double([[5, 6], [7, 0]])}
    mask = steps.top_share_mask(scores, keep=3 / 7)
    assert {name: each.tolist() for name, each in mask.items()} == {
        "a": [False, False, True],
        "b": [[False, True], [True, False]],
    }
    ties = steps.top_share_mask({"a": double([1, 1]), "b": double([2, 1])}, keep=0.5)
    assert {name: each.tolist() for name, each in ties.items()} == {"a": [True, False], "b": [True, False]}


@pytest.mark.parametrize(("keep", "count"), [(0.05, 10), (0.07, 14), (0.5, 100), (1.0, 200)])
def test_mask_keeps_its_share(keep, count):
    generator = torch.Generator().manual_seed(0)
    scores = {"a": torch.rand(10, 10, generator=generator), "b": 1 + torch.rand(100, generator=generator)}
    mask = steps.top_share_mask(scores, keep)
    assert sum(each.sum().item() for each in mask.values()) == count
    assert mask["b"].sum() == min(count, 100)  # no share a tensor: b has all the high ones


def test_average_by_hand():
    trajectory = [{"a": double([value])} for value in (1, 2, 6)]
    torch.testing.assert_close(steps.averaged(trajectory), {"a": double([3])})


def test_sophia_by_hand():
    weights, zeros = {"a": double([1, 1, 1])}, {"a": double([0, 0, 0])}
    settings = dict(lr=0.1, beta1=0.9, beta2=0.95, rho=0.04, eps=1e-3, weight_decay=0.5)
    # g = 100: m 10, rho h 0.04 500 = 20, so 1/2. g = -2: m -0.2, rho h 0.008, clipped to -1.
    # g = 0.002: m 2e-4, rho h below eps, so 2e-4 / 1e-3. Decay first: 1 - 0.1 0.5.
    gradients = {"a": double([100, -2, 0.002])}
    stepped, state = steps.sophia_step(weights, gradients, {"m": zeros, "h": zeros}, **settings)
    torch.testing.assert_close(stepped, {"a": 0.95 - 0.1 * double([1 / 2, -1, 0.2])})
    assert weights["a"].tolist() == [1, 1, 1]
    # Without a gradient m falls to 9 and h to 475: the ratio 9 / 19, up to the clip.
    again, state = steps.sophia_step(weights, zeros, state, **settings)
    torch.testing.assert_close(
        state, {"m": {"a": double([9, -0.18, 1.8e-4])}, "h": {"a": double([475, 0.19, 1.9e-7])}}
    )
    torch.testing.assert_close(again, {"a": 0.95 - 0.1 * double([9 / 19, -1, 0.18])})


def test_primal_dual_by_hand():
    # eta 1/2, eps 2: +1/2, -1/2, -1, -1 stopped at zero, and up from there again: no debt is kept.
    assert steps.primal_dual(1.0, [3, 1, 0, 0, 4], eta=0.5, eps=2.0) == [1.5, 1.0, 0.0, 0.0, 1.0]


# --- The latent attack ---


def test_latent_attack_by_hand():
    # SHORT after block 1: h = (2, 0), logits (6, 0, 0), slope 3 (p0 - 1, p1) along (-2, 1). One step of 5/2 eps is
    # cut to eps; the second position predicts nothing.
    delta = steps.latent_attack(Tower(), SHORT, 1, eps=0.1, steps=1)
    torch.testing.assert_close(delta, 0.1 / sqrt(5) * double([[2, -1], [0, 0]]))


@pytest.mark.parametrize(("count", "end"), [(1, 1), (5, 1 / 2), (9, 5 / 6), (10, 1 / 2)])
def test_latent_attack_steps_by_hand(count, end):
    # eps 1, the best delta 0.7, steps of 2.5 / count: cut to 1; then 1/2 1 1/2 1 1/2; 5/18 5/9 5/6 5/9 ... 5/6;
    # 1/4 1/2 3/4 1/2 ... 1/2.
    delta = steps.latent_attack(Valley(), SHORT, 1, eps=1.0, steps=count)
    torch.testing.assert_close(delta, double([[end], [0]]))


@pytest.mark.parametrize("kind", ["opt", "llama"])
@pytest.mark.parametrize("block", [1, 3])
def test_latent_attack_lowers_the_nll_within_its_ball(kind, block):
    model = transformer(kind)
    eps = 0.3
    delta = steps.latent_attack(model, EXAMPLE, block, eps, steps=4)
    length = len(EXAMPLE["input_ids"])
    lengths = delta.norm(dim=-1)
    assert delta.shape == (length, 8)
    assert lengths.max().item() == pytest.approx(eps)
    # The prompt is attacked too where later blocks read it; the last position predicts nothing.
    assert lengths[-1] == 0
    assert (lengths[:2] > eps / 2).all() == (block < 3)
    plain = naive.answer_logits(model, EXAMPLE)
    nothing = steps.forward_with(model, EXAMPLE, block, torch.zeros_like(delta))
    torch.testing.assert_close(nothing, plain, rtol=0, atol=0)
    attacked = steps.forward_with(model, EXAMPLE, block, delta)
    assert steps.mean_nll(plain, EXAMPLE).item() == pytest.approx(-naive.token_logps(model, EXAMPLE).mean().item())
    assert steps.mean_nll(attacked, EXAMPLE) < steps.mean_nll(plain, EXAMPLE) - 0.1
    assert all(weight.grad is None for weight in model.parameters())
