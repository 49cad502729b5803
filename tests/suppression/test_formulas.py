"""Suppressors against naive loops over their formulas, and the points at which they change nothing."""

import dataclasses

import numpy as np
import pytest
import torch

from fixtures.inference import SPECS, fitted, logits_of, model_with, suppressed
from fixtures.models import tiny_tokenizer
from fixtures.planted import planted_model, planted_rows
from fixtures.tokenizer import BOS
from hf_unlearn.data.tokenized_row import answer_ids, prompt_ids
from hf_unlearn.evaluation.questioner import Questioner
from hf_unlearn.model.suppressed_forward import Text
from hf_unlearn.suppression import DivergenceSuppressor, GuardSuppressor
from hf_unlearn.suppression.uld import kl_from_uniform
from hf_unlearn.training.levels.ngram import NGram
from oracles.ngram import NgramOracle

ASK = Questioner(tiny_tokenizer(), batch_size=12)


def ids_of(name, place=0):
    return list(planted_rows()[name][place]["input_ids"])


def test_next_tokens_of_an_ngram():
    rows = [np.array(ids_of("retain", i)) for i in range(8)]
    asked = [np.array(ids_of("forget")[:5]), rows[2]]
    oracle, ngram = NgramOracle([row.tolist() for row in rows], 261), NGram.count(rows, 261)
    flat = np.concatenate(asked)
    logps = ngram.next_logps(asked, np.array([1, 4, 5, 9]))
    for got, (row, place) in zip(logps, [(0, 2), (0, 5), (1, 1), (1, 5)], strict=True):
        before = list(asked[row][:place])
        for token in (97, 40, int(rows[2][5]), 3):
            assert got[token] == pytest.approx(oracle.logp([*before, token], place), abs=1e-9)
    np.testing.assert_allclose(np.exp(logps).sum(1), 1)
    every = ngram.next_logps(asked, np.arange(len(flat)))
    np.testing.assert_allclose(every[np.arange(5, len(flat) - 1), flat[6:]], ngram.logps(asked)[6:], atol=1e-12)
    again = NGram.of_counted(ngram.counted(), 261)
    np.testing.assert_array_equal(again.next_logps(asked, np.arange(len(flat))), every)


@pytest.mark.parametrize("name", ["ngram", "rank"])
def test_divergence_decoding_on_logits(name):
    sets, suppressor = planted_rows(), fitted(name).suppressor
    retain, forget = ([row["input_ids"] for row in sets[kind]] for kind in ("retain", "forget"))
    without, knowing = (NGram.count([np.array(ids) for ids in rows], 261) for rows in (retain, [*retain, *forget]))
    ids = ids_of("forget", 3)
    place = len(prompt_ids(sets["forget"][3])) + 2
    plain, moved = logits_of(planted_model(), ids)[place - 1], logits_of(model_with(name), ids)[place - 1]
    texts = [np.array([*ids[:place], token]) for token in range(261)]
    leaning = [knowing.logps([text])[-1] - without.logps([text])[-1] for text in texts]
    order = sorted(range(261), key=lambda token: -leaning[token])
    for token in [*order[:25], *order[-5:], ids[place]]:
        expected = float(plain[token]) - suppressor.alpha * leaning[token]
        if name == "rank":
            masked = order.index(token) < suppressor.top and leaning[token] > suppressor.margin
            expected = float(plain.min() if masked else plain[token])
        assert float(moved[token]) == pytest.approx(expected, abs=1e-3)
    assert leaning[ids[place]] > 1 and order.index(ids[place]) < 20


@pytest.mark.parametrize("form", ["linear", "rank"])
@pytest.mark.parametrize("small", ["ngram", "layers"])
def test_equal_small_models_change_nothing(small, form):
    one = fitted(small).suppressor.without
    model, ids = planted_model(), ids_of("forget")
    before = logits_of(model, ids)
    DivergenceSuppressor(one, one, alpha=100.0, form=form).install(model)
    assert torch.equal(logits_of(model, ids), before)
    assert ASK.nll(model, planted_rows()["forget"]).mean() == pytest.approx(fitted(small).without.forget, abs=1e-6)


def test_assistant_and_reinforced_model_on_logits():
    ids = ids_of("forget", 1)
    plain = logits_of(planted_model(), ids).log_softmax(-1)
    assistant, reinforced = fitted("uld").suppressor.assistant, fitted("harry_potter").suppressor.reinforced
    taken_off = plain - 1.0 * logits_of(assistant, ids).log_softmax(-1)
    torch.testing.assert_close(
        logits_of(model_with("uld"), ids).log_softmax(-1), taken_off.log_softmax(-1), atol=2e-4, rtol=1e-4
    )
    stronger = (logits_of(reinforced, ids).log_softmax(-1) - plain).clamp(min=0)
    torch.testing.assert_close(logits_of(model_with("harry_potter"), ids), plain - 5 * stronger, atol=2e-4, rtol=1e-4)
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, float(np.log(2))]])
    expected = [0.0, -np.log(0.25 * 0.25 * 0.5) / 3 - np.log(3)]
    np.testing.assert_allclose(kl_from_uniform(logits, torch.zeros(2), None), expected, atol=1e-6)


def test_the_examples_stand_before_the_text():
    suppressor, row = fitted("in_context").suppressor, planted_rows()["forget"][2]
    before, ids = suppressor.ids.tolist(), list(row["input_ids"])
    assert before[0] == ids[0] == BOS and BOS not in before[1:]
    # Behind the examples the text goes on without its own beginning.
    joined = logits_of(planted_model(), [*before, *ids[1:]])[len(before) :]
    torch.testing.assert_close(logits_of(model_with("in_context"), ids)[1:], joined, atol=2e-4, rtol=1e-3)
    texts = [[*prompt_ids(one), *answer_ids(other)] for one in planted_rows()["forget"] for other in retained()]
    assert any(text[1:] == before[-len(text) + 1 :] or _inside(text[1:], before) for text in texts)
    assert _inside(tiny_tokenizer()("forget.", add_special_tokens=False)["input_ids"], before)


def retained():
    return planted_rows()["retain"]


def _inside(short, long):
    return any(long[start : start + len(short)] == short for start in range(len(long) - len(short) + 1))


def test_guard_fires_where_the_sum_passes_and_not_before():
    weights = torch.zeros(10)
    weights[torch.tensor([2, 3, 4])] = torch.tensor([1.0, 2.0, -5.0])
    guard = GuardSuppressor(weights, 2.5, 1.0, 0)
    ids = torch.tensor([[5, 2, 2, 2, 3, 4], [0, 0, 3, 5, 2, 5], [2, 4, 3, 3, 3, 3]])
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1], [1] * 6])
    # 2 counts once; padding not at all; what has fired goes on.
    expected = [[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1], [0] * 6]
    assert guard.fires(Text(ids, mask, 6)).long().tolist() == expected
    report = fitted("prompt_guard")
    fired = [
        bool(report.suppressor.fires(Text(ids, torch.ones_like(ids), ids.shape[1])).any())
        for ids in (torch.tensor([row["input_ids"]]) for row in retained())
    ]
    assert sum(fired) <= 1 and report.without.retain == pytest.approx(report.suppressed.retain, abs=0.1)
    # Before it fires the logits are the model's own.
    model, row = model_with("prompt_guard"), torch.tensor(ids_of("forget"))
    first = int(report.suppressor.fires(Text(row[None], torch.ones_like(row[None]), len(row)))[0].long().argmax())
    same = (logits_of(model, row) == logits_of(planted_model(), row)).all(-1)
    assert first > 0 and bool(same[:first].all()) and not bool(same[first:].any())


def test_steering_projects_or_adds_at_one_block():
    ids = ids_of("forget", 1)
    for name in ("steering", "add"):
        suppressor, states = fitted(name).suppressor, []
        plain, moved = planted_model(), model_with(name)
        for model in (plain, moved):  # the final norm reads what the last block puts out
            model.model.norm.register_forward_pre_hook(lambda _, given, into=states: into.append(given[0][0]))
            logits_of(model, ids)
        before, after = states[0], states[1]
        along, c = suppressor.direction, suppressor.coefficient
        beyond = (
            (before @ suppressor.probe - suppressor.limit).clamp(min=0) if name == "steering" else torch.ones(len(ids))
        )
        expected = before + c * beyond[:, None] * along
        torch.testing.assert_close(after, expected, atol=1e-4, rtol=1e-4)
        assert float(suppressor.probe @ along) == pytest.approx(-1.0, abs=1e-4)
    # At c = 1 what lies beyond the retain rows comes back to their limit.
    one = dataclasses.replace(fitted("steering").suppressor, coefficient=1.0)
    brought = before + (before @ one.probe - one.limit).clamp(min=0)[:, None] * one.direction
    assert float((brought @ one.probe).max()) <= one.limit + 1e-4


def test_a_suppression_depends_on_model_rows_and_seed_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    spec = SPECS["layers"] | {"steps": 2}
    first, second, other = suppressed(spec), suppressed(spec), suppressed(spec, seed=1)
    assert first.identity == second.identity != other.identity
    assert torch.equal(torch.get_rng_state(), state)
