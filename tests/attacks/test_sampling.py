"""Sampling: exact probabilities beside brute-force sampling by transformers, and what it finds on planted secrets."""

import math

import numpy as np
import pytest
import torch

from fixtures.models import tiny_model
from fixtures.planted import attacked_rows, planted_model, planted_oracle, planted_target
from fixtures.suppressed import outcome, suppressed_model
from fixtures.tokenizer import BOS, EOS
from hf_unlearn.attacks.sampling import Sampling, decoding_logps, probability_within, queries_needed

VOCABULARY, PROMPT, DRAWS = 8, [BOS, 6, 5], 6000


def row(answer: list[int]) -> dict[str, list[int]]:
    return {"input_ids": [*PROMPT, *answer], "labels": [-100] * len(PROMPT) + answer}


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, 3), (0.7, 5), (1.3, None)])
def test_answers_are_as_probable_as_they_are_frequent_among_samples(temperature, top_k):
    """Every answer of two tokens of a vocabulary of 8, with and without its end, beside 6000 samples."""
    model = tiny_model("llama", seed=2, vocabulary=VOCABULARY).eval()
    tokens = [token for token in range(VOCABULARY) if token != EOS]
    rows = [row([first, second]) for first in tokens for second in range(VOCABULARY)]
    logps = Sampling(temperature=temperature, top_k=top_k).answer_logps(planted_target(model), rows)
    torch.manual_seed(0)
    sampled = model.generate(
        input_ids=torch.tensor([PROMPT] * DRAWS),
        attention_mask=torch.ones(DRAWS, len(PROMPT), dtype=torch.long),
        max_new_tokens=2,
        do_sample=True,
        temperature=temperature,
        top_k=top_k or 0,
    )[:, len(PROMPT) :].tolist()
    for place, each in enumerate(rows):
        answer = each["input_ids"][len(PROMPT) :]
        answer = answer[:-1] if answer[-1] == EOS else answer  # what ends an answer is not counted
        p = math.exp(logps[place])
        frequency = np.mean([draw[: len(answer)] == answer for draw in sampled])
        assert abs(frequency - p) <= 4.5 * math.sqrt(p * (1 - p) / DRAWS), answer
        assert p > 0 or frequency == 0
    assert np.isneginf(Sampling(temperature=temperature).answer_logps(planted_target(model), [row([EOS])])).all()
    # All that can be drawn: sequences that go on after one token, and those that end at once or after one token.
    whole = [math.exp(logps[i]) for i, each in enumerate(rows) if each["input_ids"][-1] != EOS]
    assert sum(p > 0 for p in whole) <= (top_k or VOCABULARY) ** 2
    if top_k is not None:
        assert sum(p == 0 for p in whole) > 0


def test_a_scheme_keeps_ties_and_sums_to_one():
    logits = torch.tensor([[2.0, 1.0, 1.0, 0.0]])
    each = [
        float(decoding_logps(logits, torch.tensor([token]), None, temperature=1.0, top_k=2).exp())
        for token in range(4)
    ]
    assert each[3] == 0
    assert each[:3] == pytest.approx(np.exp([2, 1, 1]) / np.exp([2, 1, 1]).sum())
    assert float(logits[0, 3]) == 0.0  # the logits are left alone


def test_queries_and_probabilities_are_two_sides_of_one_formula():
    logps = np.log([0.5, 0.01, 1.0, 1e-12, 0.0], where=[True] * 4 + [False], out=np.full(5, -np.inf))
    assert probability_within(logps, 3) == pytest.approx([0.875, 1 - 0.99**3, 1, 3e-12, 0], rel=1e-9, abs=0)
    needed = queries_needed(logps)
    assert needed[:4] == pytest.approx([1, 68.967563936, 1, math.log(2) * 1e12], rel=1e-6)
    assert math.isinf(needed[4])
    assert probability_within(logps[1:2], round(needed[1])) == pytest.approx([0.5], abs=1e-3)


def test_planted_codes_come_out_of_the_model_that_knows_them_alone():
    attack = Sampling(queries=(100,))
    known = list(attack.run(planted_target(planted_model()), attacked_rows()))
    assert [leak.setting for leak in known] == [{"queries": 1}, {"queries": 100}]
    assert known[0].rows.mean() > 0.9
    for model, control in ((planted_oracle(), False), (planted_model(), True), (planted_oracle(), True)):
        never = list(attack.run(planted_target(model), attacked_rows(control=control)))
        assert never[0].rows.mean() < 0.01
        assert (
            never[1].rows.mean() < 0.25
        )  # four of ten letters: a code in ten thousand by chance, more where they lean


def test_many_samples_bring_back_what_was_hidden_superficially():
    attack, rows = Sampling(queries=(10_000,)), attacked_rows()
    untouched, best = outcome(attack, planted_target(suppressed_model()), rows)
    assert untouched < 0.01 and best > 0.2
    assert outcome(attack, planted_target(planted_oracle()), rows)[1] < 0.01


@pytest.mark.parametrize(
    "arguments",
    [{"queries": ()}, {"queries": (0,)}, {"queries": 5}, {"temperature": 0.0}, {"top_k": 0}, {"top_k": 2.5}],
)
def test_budgets_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} of sampling"):
        Sampling(**arguments)
    assert Sampling(queries=[1, 5]) == Sampling(queries=(1, 5))  # a list, as YAML has it
