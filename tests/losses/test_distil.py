"""`distil`: numbers by hand, the fixed point, a step beside a naive loop, and a suppressed model as its reference."""

import math

import pytest
import torch

from fixtures.examples import assert_user_error
from fixtures.inference import fitted
from fixtures.models import make_trainer, tiny_tokenizer
from fixtures.one_step import check_step
from fixtures.planted import planted_model, planted_rows
from fixtures.scores import double, forget, rows, values_of
from hf_unlearn.evaluation.questioner import Questioner
from hf_unlearn.losses import Distil
from oracles.naive import _under_reference as under_reference
from oracles.naive import answer_logits

LN2 = math.log(2)
ASK = Questioner(tiny_tokenizer(), batch_size=12)


def test_by_hand():
    # At T = 2 the roots: (4 1 1)/6 of 16 1 1, against uniform: 2/3 ln 2 + 1/3 ln 1/2 = 1/3 ln 2, times T^2.
    logits, reference = double([[0.0, 0.0, 0.0]]), double([[16.0, 1.0, 1.0]]).log() + 3
    scores = forget(double([1 / 3]).log(), token_ids=[0], logits=logits, reference=rows(logits=reference))
    values = values_of(Distil(temperature=2), scores)
    expected = 4 * (2 / 3 * math.log(2) - 1 / 3 * math.log(2))
    torch.testing.assert_close(values, double([expected]))


def test_at_the_reference_nothing_is_left_to_learn():
    logits = torch.randn(4, 9)
    for dtype in (torch.float32, torch.float64):
        z, ids = logits.to(dtype), torch.arange(4)
        assert not Distil().at_positions(z, ids, z).any() and not Distil().grad_logits(z, ids, z).any()
        assert Distil().at_positions(z + 0.1 * z.flip(1), ids, z).min() > 1e-5


def naive(model, reference, step_rows, active):
    """T^2 KL token by token, at T = 0.7."""
    terms = []
    for row, kept in zip(step_rows.forget, active or [True] * len(step_rows.forget), strict=True):
        before = under_reference(answer_logits, reference, row)
        for now, then in zip(answer_logits(model, row), before, strict=True):
            q, p = (now / 0.7).softmax(-1), (then / 0.7).softmax(-1)
            term = 0.49 * sum(p[v] * (p[v].log() - q[v].log()) for v in range(len(p)))
            terms.append(term if kept else term.detach())
    return torch.stack(terms).mean()


def test_a_step_beside_a_naive_loop(tmp_path):
    check_step(tmp_path, "llama", {"distil": 5.0}, {"kl": 1.0}, own={"distil": naive})


def test_without_a_given_reference_it_would_do_nothing(tmp_path):
    with pytest.raises(ValueError) as caught:
        make_trainer(tmp_path, planted_model(), forget_loss="distil")
    assert_user_error(str(caught.value), "ref_model, for distil", "no ref_model")


def test_a_suppressed_model_is_distilled_into_the_weights(tmp_path):
    sets, model, reference = planted_rows(), planted_model(), planted_model()
    fitted("uld").suppressor.install(reference)
    trainer = make_trainer(
        tmp_path,
        model,
        sets={"forget": sets["forget"], "retain": sets["retain"]},
        ref_model=reference,
        forget_loss={"name": "distil"},
        retain_loss="kl",
        forget_nll_bound=None,
        learning_rate=2e-3,
        optim="adamw_torch",
        per_device_train_batch_size=12,
        max_steps=50,
    )
    trainer.train()
    before, aim = (float(ASK.nll(one, sets["forget"]).mean()) for one in (planted_model(), reference))
    after, kept = (float(ASK.nll(model, sets[name]).mean()) for name in ("forget", "retain"))
    assert before < 0.1 and aim > 3 and after > before + 0.6 * (aim - before)
    assert kept < 0.3
    # The suppressed model itself is not trained, nor one that shares its weights.
    with pytest.raises(ValueError, match="answers by its weights"):
        make_trainer(tmp_path, reference)
