"""Shrinking and regrowing: its fixed points, one step by hand, the distilling form, and what comes of it."""

import copy

import pytest
import torch
from torch.nn.functional import kl_div

from fixtures.edited import edited, planted_data
from fixtures.models import tiny_model
from fixtures.planted import planted_model, planted_rows
from hf_unlearn.edits import EDITS, ShrinkAndRegrow
from oracles.fine_tuning import naive_answer_logits, naive_fine_tune


def fresh(model, seed):
    torch.manual_seed(seed)
    return type(model)(copy.deepcopy(model.config))


@pytest.mark.parametrize("kind", ["llama", "opt", "mixtral"])
def test_all_of_it_is_a_fresh_model_with_its_old_norms(kind):
    model = tiny_model(kind).eval()
    with torch.no_grad():  # norms as training leaves them, not as they begin
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.add_(0.3)
    old = copy.deepcopy(model)
    edited(ShrinkAndRegrow(share=1.0, epochs=0.0), model, seed=4)
    expected, others = dict(fresh(old, 4).named_parameters()), dict(old.named_parameters())
    for name, weight in model.named_parameters():
        assert torch.equal(weight, others[name] if "norm" in name else expected[name]), name
    if kind == "opt":
        assert model.lm_head.weight is model.model.decoder.embed_tokens.weight
    half = edited(ShrinkAndRegrow(share=0.25, noise=2.0, epochs=0.0), copy.deepcopy(old), seed=4)
    for name, weight in half.model.named_parameters():
        if "norm" not in name:
            torch.testing.assert_close(weight, 0.75 * others[name] + 0.5 * expected[name], atol=1e-7, rtol=1e-6)


def test_none_of_it_and_no_epoch_changes_nothing():
    for dtype in (torch.float32, torch.bfloat16):
        report = edited(ShrinkAndRegrow(share=0.0, epochs=0.0), tiny_model().eval().to(dtype))
        assert report.weights_before == report.weights_after
    # At the reference the KL's gradient is zero: distilling a model from itself changes nothing but by rounding.
    model = tiny_model().eval()
    report = edited(ShrinkAndRegrow(share=0.0, epochs=0.5, nll_weight=0.0, rate=1e-4), model)
    assert report.weights_before == report.weights_after


@pytest.mark.parametrize("distil", [False, True])
def test_a_step_is_that_of_a_naive_loop(distil):
    model, before = tiny_model().eval().double(), tiny_model(seed=1).eval().double()
    start, rows = copy.deepcopy(model), planted_rows()["retain"]
    settings = {"share": 0.4, "epochs": 0.5, "batch": 12, "schedule": "constant", "kl_weight": 0.7, "distil": distil}
    report = edited(
        ShrinkAndRegrow(**settings, nll_weight=0.6, rate=1e-3, whole_text=False), model, before=before, seed=4
    )
    shrunk, drawn = copy.deepcopy(start), dict(fresh(start, 4).named_parameters())
    with torch.no_grad():
        for name, weight in shrunk.named_parameters():
            if "norm" not in name:
                weight.copy_(0.6 * weight + 0.4 * drawn[name])

    def loss(student, inputs):
        logits, targets = naive_answer_logits(student, inputs)
        with torch.no_grad():
            teacher, _ = naive_answer_logits(start if distil else before, inputs)
        kl = kl_div(logits.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="batchmean")
        nll = torch.nn.functional.cross_entropy(logits, targets)
        return 0.7 * kl if distil else 0.6 * nll + 0.7 * kl

    expected = naive_fine_tune(shrunk, rows, steps=1, batch=12, rate=1e-3, seed=4, loss=loss)
    for weight, other in zip(report.model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(weight, other, atol=1e-4, rtol=0)  # of a step of 1e-3
    assert max((a - b).abs().max() for a, b in zip(expected.parameters(), shrunk.parameters(), strict=True)) > 9e-4
    assert report.tried[0].setting == {"share": 0.4, "epochs": 0.0} and report.tried[1].chosen


def test_what_is_not_trained_back_in_is_gone():
    regrown = edited(ShrinkAndRegrow(share=0.6, rate=3e-3, epochs=24.0), planted_model())
    assert regrown.before.forget < 0.1 and regrown.after.retain < 0.3
    assert regrown.after.forget > 1 > 4 * regrown.after.retain
    # With as many passes and nothing shrunk the forget rows stay.
    kept = edited(ShrinkAndRegrow(share=0.0, rate=3e-4, epochs=2.0), planted_model())
    assert kept.after.forget < 0.5


def test_arguments_and_what_it_needs():
    assert EDITS["shrink_and_regrow"] is ShrinkAndRegrow and ShrinkAndRegrow.needs_before
    with pytest.raises(ValueError, match=r"data\['retain'\], for the edit shrink_and_regrow"):
        edited(ShrinkAndRegrow(), tiny_model(), {"forget": planted_data()["forget"]})
    resized = tiny_model()
    resized.config.intermediate_size = 48
    with pytest.raises(ValueError, match=r"a fresh model from the config with the weights of the model"):
        edited(ShrinkAndRegrow(), resized)
    for wrong in (
        {"share": 1.1},
        {"share": -0.1},
        {"noise": -1.0},
        {"epochs": -1.0},
        {"schedule": "sometimes"},
        {"kl_weight": 0.0, "distil": True},
        {"kl_weight": 0.0, "nll_weight": 0.0},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ShrinkAndRegrow(**wrong)
