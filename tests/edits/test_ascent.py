"""Steps uphill: their gradient and length, and the three edits made of them on models of other kinds."""

import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from fixtures.edited import edited, planted_data
from fixtures.models import VOCABULARY, tiny_model, tiny_tokenizer
from fixtures.planted import planted_model, planted_rows
from hf_unlearn.edits import EditData, Influence, NullSpace, RepSelect
from hf_unlearn.edits.ascent import Ascent, ascend, forget_gradient
from hf_unlearn.edits.matrices import chosen_matrices
from hf_unlearn.evaluation.questioner import Questioner
from hf_unlearn.model.fingerprints import hash_weights
from oracles.naive import token_logps

SETS = planted_rows()
DATA = EditData(Questioner(tiny_tokenizer(), batch_size=5), SETS["forget"], SETS["retain"])


def test_gradient_is_that_of_the_mean_over_rows_below_the_bound():
    model = planted_model().double()
    matrices = chosen_matrices(model, "o_proj")
    assert list(matrices) == ["model.layers.0.self_attn.o_proj", "model.layers.1.self_attn.o_proj"]
    nlls = torch.stack([-token_logps(model, row).mean() for row in SETS["forget"]])
    bound = float(nlls.detach().median()) + 1e-9
    for limit, pushing in ((math.inf, nlls), (bound, nlls[nlls <= bound])):
        weights = [matrix.layer.weight for matrix in matrices.values()]
        naive = torch.autograd.grad(pushing.sum() / len(nlls), weights, retain_graph=True)
        gradient = forget_gradient(model, DATA, matrices, limit)
        for part, expected in zip(gradient.values(), naive, strict=True):
            torch.testing.assert_close(part, expected)
    assert all(not part.any() for part in forget_gradient(model, DATA, matrices, 1e-6).values())


def test_a_given_rate_is_shortened_at_the_goal_alone():
    model = planted_model()
    matrices = chosen_matrices(model, None)
    start = {name: matrix.read() for name, matrix in matrices.items()}
    gradient = forget_gradient(model, DATA, matrices, 2.0)
    tried = ascend(model, DATA, matrices, Ascent(goal=2.0, steps=3, rate=0.02), lambda slope: slope)
    assert [one.setting["rate"] for one in tried[1:3]] == [0.02, 0.02]
    assert [one.chosen for one in tried] == [False] * (len(tried) - 1) + [True]
    model = planted_model()
    tried = ascend(model, DATA, chosen_matrices(model, None), Ascent(2.0, 3, rate=100.0), lambda slope: slope)
    assert len(tried) == 2 and tried[1].setting["rate"] < 100 and tried[1].forget_nll == pytest.approx(2, abs=0.05)
    for name, matrix in chosen_matrices(model, None).items():
        torch.testing.assert_close(matrix.read(), start[name] + tried[1].setting["rate"] * gradient[name])


def test_steps_share_the_way():
    model = planted_model()
    tried = ascend(model, DATA, chosen_matrices(model, None), Ascent(goal=3.0, steps=3), lambda slope: slope)
    way = [(one.forget_nll - tried[0].forget_nll) / (3.0 - tried[0].forget_nll) for one in tried]
    assert way == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=0.03)
    # At the goal nothing moves, and a direction that leads nowhere is not followed.
    before = hash_weights(model)
    for goal, direction in ((1.0, lambda slope: slope), (9.0, lambda slope: {n: 0 * g for n, g in slope.items()})):
        tried = ascend(model, DATA, chosen_matrices(model, None), Ascent(goal, 3), direction)
        assert len(tried) == 1 and tried[0].chosen and hash_weights(model) == before


def _model(kind):
    if kind != "gpt2":
        return tiny_model(kind)
    torch.manual_seed(0)
    shape = dict(n_embd=32, n_head=2, n_layer=2, n_positions=64, vocab_size=VOCABULARY, initializer_range=0.15)
    return GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=1, eos_token_id=2, pad_token_id=0))


@pytest.mark.parametrize(
    ("kind", "dtype"), [("gpt2", torch.float32), ("opt", torch.bfloat16), ("mixtral", torch.float32)]
)
@pytest.mark.parametrize("edit", [Influence(steps=1, share_of_level=1.0), RepSelect(passes=1), NullSpace(steps=1)])
def test_any_architecture_is_brought_to_the_level(kind, dtype, edit):
    """Conv1D; biases, tied embeddings and positions laid flat, in 16 bits; a router and experts."""
    data = {name: rows[:8] for name, rows in planted_data().items()}
    start = edited(edit, _model(kind).to(dtype), data, level=0.1).before.forget  # a level that they have passed
    models = [_model(kind).to(dtype) for _ in range(2)]
    reports = [edited(edit, model, data, level=start + 0.5) for model in models]
    assert reports[0].after.forget == pytest.approx(start + 0.5, abs=0.05)
    assert reports[0].weights_after == reports[1].weights_after != reports[0].weights_before
    kept = [weight for name, weight in models[0].named_parameters() if "embed" in name or "wte" in name]
    untouched = [
        weight for name, weight in _model(kind).to(dtype).named_parameters() if "embed" in name or "wte" in name
    ]
    assert kept and all(torch.equal(*pair) for pair in zip(kept, untouched, strict=True))


@pytest.mark.parametrize("edit", [Influence, RepSelect, NullSpace])
def test_refuses_what_cannot_be_done(edit):
    with pytest.raises(ValueError, match=r"layers of .* must be a regular expression"):
        edit(layers="(")
    with pytest.raises(ValueError, match="share_of_level of"):
        edit(share_of_level=0.0)
    with pytest.raises(ValueError, match=r"has no linear layer whose name matches 'w_proj'"):
        edited(edit(layers="w_proj"))
    forget = planted_data()["forget"]
    if edit is RepSelect:
        with pytest.raises(ValueError, match="holdout rows, or level=NATS"):
            edited(edit(), data={"forget": forget})
    else:
        with pytest.raises(ValueError, match=r"data\['retain'\]"):
            edited(edit(), data={"forget": forget}, level=3.0)
