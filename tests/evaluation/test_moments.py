"""Mean and deviation of log p over the vocabulary: against a loop over tokens, and where the softmax is extreme."""

import math

import pytest
import torch

from hf_unlearn.data import Role
from hf_unlearn.evaluation.one_pass import statistical_figures
from hf_unlearn.model import chunk_sizes
from hf_unlearn.model.chunked_logits import log_prob_moments, read_positions
from hf_unlearn.model.head_query import HeadQuery, TokenReadout
from hf_unlearn.model.logit_provider import DenseLogits, softmax_dtype


def moments(logits: list[float]) -> tuple[float, float]:
    """E log p(v) and its standard deviation, v ~ p, a token at a time; one of no probability counts for nothing."""
    top = max(logits)
    normaliser = top + math.log(math.fsum(math.exp(z - top) for z in logits))
    logps = [z - normaliser for z in logits if z > -math.inf]
    mean = math.fsum(math.exp(lp) * lp for lp in logps)
    return mean, math.sqrt(math.fsum(math.exp(lp) * (lp - mean) ** 2 for lp in logps))


def random_logits(tokens: int = 7, vocabulary: int = 50, scale: float = 3.0, dtype=torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(tokens, vocabulary, generator=generator, dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-5)]
)
@pytest.mark.parametrize("scale", [0.1, 3.0, 20.0])
def test_moments_are_those_of_a_naive_loop(dtype, tolerance, scale):
    logits = random_logits(scale=scale).to(dtype)
    mean, deviation = log_prob_moments(logits.to(softmax_dtype(dtype)))
    assert mean.dtype == deviation.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = torch.tensor([moments(row) for row in logits.tolist()], dtype=mean.dtype)
    assert (expected.amax(0) > expected.amin(0)).all() and expected[:, 1].max() > 0.01
    torch.testing.assert_close(torch.stack([mean, deviation], dim=1), expected, rtol=tolerance, atol=tolerance)


def test_two_tokens_by_hand():
    """p = (3/4, 1/4): mean log p = ln(3/4) 3/4 + ln(1/4) 1/4, deviation = ln 3 sqrt(3/4 1/4)."""
    mean, deviation = log_prob_moments(torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64))
    assert mean.item() == pytest.approx(0.75 * math.log(0.75) + 0.25 * math.log(0.25), rel=1e-12)
    assert deviation.item() == pytest.approx(math.log(3) * math.sqrt(3 / 16), rel=1e-12)


def test_a_shift_of_all_logits_changes_nothing():
    logits = random_logits()
    for one, other in zip(log_prob_moments(logits), log_prob_moments(logits + 100), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_chunks_change_nothing(monkeypatch):
    logits = random_logits()
    tokens, vocabulary = logits.shape
    monkeypatch.setattr(chunk_sizes, "CPU_CHUNK_BYTES", 4 * 2 * vocabulary)
    targets = logits.argmax(-1)
    readout = TokenReadout("figures", Role.FORGET, statistical_figures, width=3)
    query = HeadQuery(targets, targets, {Role.FORGET: slice(0, tokens)}, [readout])
    figures = query.split(read_positions(logits, query, DenseLogits(), (), vocabulary))[1]["figures"]
    right, *found = figures.unbind(1)
    assert right.all() and all(map(torch.equal, found, log_prob_moments(logits)))


def test_tokens_that_are_ruled_out_count_for_nothing():
    logits = random_logits()
    padded = torch.cat([logits, torch.full((len(logits), 3), -math.inf, dtype=logits.dtype)], dim=1)
    for one, other in zip(log_prob_moments(padded), log_prob_moments(logits), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        assert (one.abs() > 1e-3).all()


@pytest.mark.parametrize("gap", [math.inf, 500.0])
def test_one_certain_token_has_neither_spread_nor_surprise(gap):
    logits = torch.full((1, 9), -gap)
    logits[0, 4] = 0.0
    mean, deviation = log_prob_moments(logits)
    assert (mean.item(), deviation.item()) == (0.0, 0.0)


def test_an_all_but_certain_token_keeps_its_small_spread():
    """E[x^2] - E[x]^2 in fp32 would round this to nothing."""
    logits = torch.zeros(1, 2)
    logits[0, 0] = 12.0
    expected = moments([12.0, 0.0])
    assert 0 < expected[1] < 0.05
    assert [each.item() for each in log_prob_moments(logits)] == pytest.approx(list(expected), rel=1e-3)


@pytest.mark.parametrize("vocabulary", [2, 1000])
def test_a_uniform_softmax(vocabulary):
    mean, deviation = log_prob_moments(torch.full((3, vocabulary), 7.0))
    assert mean.tolist() == pytest.approx([-math.log(vocabulary)] * 3, rel=1e-6)
    assert deviation.tolist() == pytest.approx([0.0] * 3, abs=1e-5)


def test_nan_is_shown():
    logits = random_logits()
    logits[2, 5] = math.nan
    for found in log_prob_moments(logits):
        assert found.isnan().tolist() == [False, False, True, False, False, False, False]


def test_no_tokens_have_no_moments():
    assert [each.shape for each in log_prob_moments(torch.zeros(0, 9))] == [(0,), (0,)]
