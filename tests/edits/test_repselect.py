"""RepSelect against a spectrum turned over by NumPy, against plain ascent, and with a LoRA that elicits the rows."""

import numpy as np
import pytest
import torch

from fixtures.edited import edited
from fixtures.models import tiny_tokenizer
from fixtures.planted import planted_model, planted_rows
from hf_unlearn.edits import EditData, RepSelect
from hf_unlearn.edits.repselect import elicited, without_shared
from hf_unlearn.evaluation.questioner import Questioner
from hf_unlearn.model.fingerprints import hash_weights
from oracles.naive import token_logps


def _naive_pass(model, rate, q=None):
    """One pass of ascent, row by row; with q each gradient's components divided on both sides by NumPy."""
    weights = {n: w for n, w in model.named_parameters() if "proj" in n}
    rows = planted_rows()["forget"]
    nll = torch.stack([-token_logps(model, row).mean() for row in rows]).sum() / len(rows)
    steps = {}
    for (name, weight), gradient in zip(
        weights.items(), torch.autograd.grad(nll, list(weights.values())), strict=True
    ):
        step = gradient.numpy()
        if q is not None:
            left, sizes, right = np.linalg.svd(step)
            for basis, side in ((left[:, :q], 0), (right[:q].T, 1)):
                for k in range(q):  # from the step, what it has along a component but for 1 / (S_k / S_q) of it
                    along = np.outer(basis[:, k], basis[:, k])
                    kept = sizes[q - 1] / sizes[k]
                    step = step - (1 - kept) * (along @ step if side == 0 else step @ along)
        steps[name] = weight.detach() + rate * torch.from_numpy(step)
    return steps


@pytest.mark.parametrize("q", [None, 5])
def test_a_pass_is_the_naive_one(q):
    model = planted_model().double()
    expected = _naive_pass(model, 0.01, q)
    edit = RepSelect(rate=0.01, passes=1, share=1.0, **({"shrink": 0.0} if q is None else {"q": q}))
    edited(edit, model, level=1e6)
    for name, weight in model.named_parameters():
        before = planted_model().double().get_parameter(name)
        if name in expected:
            torch.testing.assert_close(weight, expected[name], rtol=1e-9, atol=1e-10)
            assert not torch.equal(weight, before)
        else:
            assert torch.equal(weight, before)


def test_without_shrinking_it_is_plain_ascent_to_the_last_bit():
    gradient = torch.randn(12, 8)
    for q in (1, 5, 8, 100):
        assert torch.equal(without_shared(gradient, q, 0.0), gradient)
    sizes, shrunk = (torch.linalg.svdvals(part.double()) for part in (gradient, without_shared(gradient, 5)))
    # S_5^2 / S_k of the five largest, which are the smaller the larger they were; the others stay.
    torch.testing.assert_close(
        shrunk.sort().values, torch.cat([sizes[4] ** 2 / sizes[:5], sizes[5:]]).sort().values, rtol=1e-5, atol=1e-5
    )
    assert not without_shared(torch.zeros(3, 4), 2).any()
    rank_one = torch.outer(torch.ones(4), torch.arange(3.0))
    torch.testing.assert_close(without_shared(rank_one, 3), rank_one)  # of rank 1: nothing to be compared with


def test_is_gentler_to_retain_rows_than_plain_ascent():
    report, plain = (edited(RepSelect(shrink=shrink, passes=4), level=2.0) for shrink in (1.0, 0.0))
    assert report.after.forget == pytest.approx(2, abs=0.1) == plain.after.forget
    assert report.before.retain < report.after.retain < 0.8 * plain.after.retain
    assert [one.setting["pass"] for one in report.tried] == [0, 1, 2, 3, 4]


def test_elicits_the_rows_with_an_adapter_that_is_dropped():
    rows = planted_rows()["unseen"]  # which the model does not give
    data = EditData(Questioner(tiny_tokenizer(), batch_size=12), rows)
    model = planted_model()
    before, names = hash_weights(model), [name for name, _ in model.named_modules()]
    start = data.tried(model, {}).forget_nll
    with elicited(model, data, 15):
        assert data.tried(model, {}).forget_nll < start - 0.5
        assert all(weight.requires_grad for name, weight in model.named_parameters() if "base_layer" in name)
    assert hash_weights(model) == before and [name for name, _ in model.named_modules()] == names
    assert all(weight.requires_grad for weight in model.parameters())
    report, other = (
        edited(RepSelect(passes=1, elicit_steps=steps), data={"forget": rows}, level=start + 0.5) for steps in (5, 0)
    )
    assert report.after.forget == pytest.approx(start + 0.5, abs=0.05) == other.after.forget
    assert report.weights_after != other.weights_after and "lora" not in str(list(report.model.state_dict()))


def test_checks_its_arguments():
    for arguments, match in (
        ({"q": 0}, "q of repselect must be 1 or above"),
        ({"share": 0.0}, "share of repselect"),
        ({"share": 1.5}, "share of repselect"),
        ({"shrink": -1.0}, "shrink of repselect"),
        ({"rate": 0.0}, "rate of repselect"),
        ({"passes": 0}, "passes of repselect"),
        ({"elicit_steps": -1}, "elicit_steps of repselect"),
    ):
        with pytest.raises(ValueError, match=match):
            RepSelect(**arguments)
