"""One pass over a suite's rows: every figure against a naive loop, each row scored once, nothing disturbed, errors."""

import contextlib
import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from fixtures.models import FORGET, HOLDOUT, RETAIN, tiny_model, tiny_tokenizer
from hf_unlearn.evaluation import custom, evaluate
from hf_unlearn.evaluation.generation_trial import prompt_batches
from hf_unlearn.evaluation.suite import Suite, SuiteOutput
from hf_unlearn.lab import load_lab
from hf_unlearn.model.probe import probe_model
from oracles import naive

PARTS = ("Expected ", "\nGot: ", "\nWhy it matters: ", "\nWhat to do: ")
WORDS = 30  # tokens of a generated answer


@pytest.fixture(scope="module")
def lab():
    return load_lab()


@pytest.fixture(scope="module")
def model(lab):
    """The lab's oracle: it has the retain rows by heart, and of the others some tokens right."""
    return lab.load_oracle()


@pytest.fixture(scope="module")
def sets(lab) -> dict[str, list[dict[str, str]]]:
    """Rows of all sets; no row twice."""
    counts = {"forget": ("forget", 0, 7), "retain": ("retain", 0, 5), "in_scope": ("paraphrase", 0, 4)}
    counts |= {"out_of_scope": ("retain", 5, 8), "holdout": ("holdout", 0, 6)}
    columns = ("prompt", "completion")
    return {
        name: [{column: row[column] for column in columns} for row in list(lab.datasets[of])[start:stop]]
        for name, (of, start, stop) in counts.items()
    }


def recorded(suite: Suite) -> tuple[Suite, list[Any]]:
    """A suite that keeps its evidence instead of measuring it."""
    kept: list[Any] = []
    return replace(suite, measure=lambda evidence: kept.append(evidence) or SuiteOutput({})), kept


def evidence_of(model, tokenizer, sets, *, answered: bool = True, attacks=("min_k_plus_plus",), **options):
    suite = custom(**sets, attacks=attacks, max_new_tokens=WORDS)
    suite, kept = recorded(suite if answered else replace(suite, answered=(), fluent=()))
    evaluate(model, tokenizer, suite, accelerator=Accelerator(cpu=True), **options)
    return kept[0]


def as_row(tokenizer, prompt: str, completion: str) -> naive.Row:
    """Token ids without the package: prompt and answer tokenised each on its own, and an end of text."""
    prompt_ids = tokenizer(prompt)["input_ids"]
    answer_ids = [*tokenizer(completion)["input_ids"][1:], tokenizer.eos_token_id]
    return {"input_ids": prompt_ids + answer_ids, "labels": [naive.PROMPT] * len(prompt_ids) + answer_ids}


def naive_figures(model, row: naive.Row) -> np.ndarray:
    """log p(y), right, mean and deviation of log p(v) of each answer token, a token at a time: [4, n]."""
    found = []
    with torch.no_grad():
        targets = [target for _, target in naive.shift_check(row)]
        for logits, target in zip(naive.answer_logits(model, row), targets, strict=True):
            logps = (logits - torch.logsumexp(logits, 0)).tolist()
            mean = math.fsum(math.exp(lp) * lp for lp in logps)
            variance = math.fsum(math.exp(lp) * (lp - mean) ** 2 for lp in logps)
            best = max(range(len(logps)), key=logps.__getitem__)
            found.append([logps[target], float(best == target), mean, math.sqrt(variance)])
    return np.array(found).T


def greedy(model, prompt: list[int], end: int) -> list[int]:
    """The most likely next token, again and again, until the end of text."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(WORDS):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == end:
                break
    return ids[len(prompt) :]


def assert_same_evidence(one, other, places: dict[str, list[int]] | None = None) -> None:
    """Scores to 1e-5 and answers exactly; `places`: where rows of `one` stand in `other`."""
    for name, rows in one.scored.items():
        at = places[name] if places else range(len(rows))
        for row, place in zip(rows.tokens, at, strict=True):
            np.testing.assert_allclose(other.scored[name].tokens[place], row, rtol=1e-5, atol=1e-5)
    for name, rows in one.answered.items():
        at = places[name] if places else range(len(rows.answers))
        assert [other.answered[name].answers[place] for place in at] == rows.answers


@pytest.fixture(scope="module")
def evidence(lab, model, sets):
    return evidence_of(model, lab.load_tokenizer(), sets, batch_size=4, fluency_model=lab.load_model())


def test_scores_are_those_of_a_naive_loop(lab, model, sets, evidence):
    tokenizer = lab.load_tokenizer()
    assert list(evidence.scored) == list(sets)
    for name, rows in sets.items():
        expected = [naive_figures(model, as_row(tokenizer, **row)) for row in rows]
        scored = evidence.scored[name]
        for found, figures in zip(scored.tokens, expected, strict=True):
            np.testing.assert_allclose(found, figures, rtol=1e-5, atol=2e-5)
        nlls = [-figures[0].mean() for figures in expected]
        np.testing.assert_allclose(scored.nll_per_token, nlls, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(scored.nll_sum, [-figures[0].sum() for figures in expected], rtol=1e-4, atol=1e-5)
        assert scored.lengths.tolist() == [figures.shape[1] for figures in expected]
        assert evidence.texts[name] == [row["completion"].strip() for row in rows]
    right = np.concatenate(evidence.scored["forget"].right)
    assert right.any() and not right.all() and evidence.scored["forget"].nll_per_token.std() > 0.1


def test_scores_of_a_model_in_double_precision_are_in_double_precision():
    model, tokenizer = tiny_model("llama").double(), tiny_tokenizer()
    found = evidence_of(model, tokenizer, {"forget": FORGET, "retain": RETAIN, "holdout": HOLDOUT}, answered=False)
    for row, figures in zip(FORGET, found.scored["forget"].tokens, strict=True):
        assert figures.dtype == np.float64
        expected = naive_figures(model, as_row(tokenizer, row["prompt"], row["completion"]))
        np.testing.assert_allclose(figures, expected, rtol=1e-10, atol=1e-10)


def test_answers_are_those_of_a_naive_loop(lab, model, sets, evidence):
    tokenizer = lab.load_tokenizer()
    assert list(evidence.answered) == [name for name in sets if name != "holdout"]
    for name, answered in evidence.answered.items():
        ids = [greedy(model, tokenizer(row["prompt"])["input_ids"], tokenizer.eos_token_id) for row in sets[name]]
        assert answered.answers == [tokenizer.decode(each, skip_special_tokens=True).strip() for each in ids]
        assert answered.expected == [row["completion"].strip() for row in sets[name]]
    assert evidence.answered["retain"].answers == evidence.answered["retain"].expected
    assert evidence.answered["forget"].answers != evidence.answered["forget"].expected


def test_answers_are_scored_under_the_fluency_model(lab, model, sets, evidence):
    tokenizer, fluency_model = lab.load_tokenizer(), lab.load_model()
    assert [name for name, rows in evidence.answered.items() if rows.fluency is not None] == ["forget"]
    rows = [as_row(tokenizer, row["prompt"], "") for row in sets["forget"]]
    for row, found in zip(rows, evidence.answered["forget"].fluency.tokens, strict=True):
        prompt = row["input_ids"][:-1]
        answer = greedy(model, prompt, tokenizer.eos_token_id)
        said = {"input_ids": prompt + answer, "labels": [naive.PROMPT] * len(prompt) + answer}
        np.testing.assert_allclose(found, naive_figures(fluency_model, said)[:2], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_no_batch_size_changes_a_score_or_an_answer(lab, model, sets, evidence, batch_size):
    found = evidence_of(model, lab.load_tokenizer(), sets, batch_size=batch_size, generation_batch_size=batch_size)
    assert_same_evidence(evidence, found)


def test_reversed_sets_have_reversed_scores_and_the_same_metrics(lab, model, sets, evidence):
    turned = {name: rows[::-1] for name, rows in sets.items()}
    tokenizer = lab.load_tokenizer()
    places = {name: list(range(len(rows)))[::-1] for name, rows in sets.items()}
    assert_same_evidence(evidence, evidence_of(model, tokenizer, turned, batch_size=4), places)
    results = [evaluate(model, tokenizer, custom(**each, max_new_tokens=WORDS)) for each in (sets, turned)]
    assert results[0].metrics.keys() == results[1].metrics.keys() and len(results[0].metrics) > 30
    assert results[1].values() == pytest.approx(results[0].values(), rel=1e-5, abs=1e-7)
    for name, scores in results[0].row_scores.items():
        assert scores != scores[::-1] and results[1].row_scores[name][::-1] == pytest.approx(scores, rel=1e-5)
    assert all(results[0].rows[name]["sha256"] != results[1].rows[name]["sha256"] for name in sets)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_tokenizers_padding_side_is_without_effect_and_left_alone(lab, model, sets, evidence, side):
    tokenizer = lab.load_tokenizer()
    tokenizer.padding_side = side
    assert_same_evidence(evidence, evidence_of(model, tokenizer, sets, batch_size=4))
    assert tokenizer.padding_side == side


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_each_distinct_row_is_scored_once(batch_size):
    sets = {"forget": [*FORGET, FORGET[3]], "retain": [*RETAIN[:5], *FORGET[:4], RETAIN[2]], "holdout": HOLDOUT}
    distinct = len(FORGET) + 5 + len(HOLDOUT)
    model, tokenizer = tiny_model(), tiny_tokenizer()
    rows_scored: list[int] = []

    def count(module, inputs, output):
        if output[0].shape[1] > 2:  # the output head is looked at once, in a forward of two tokens
            rows_scored.append(len(output[0]))

    probe_model(model, model)  # once for a model: evaluate asks no more
    model.model.register_forward_hook(count)
    suite, kept = recorded(replace(custom(**sets), answered=(), fluent=()))
    result = evaluate(model, tokenizer, suite, batch_size=batch_size)
    assert len(rows_scored) == math.ceil(distinct / batch_size) and sum(rows_scored) == distinct
    assert (result.cost["forwards"], result.cost["rows_scored"]) == (len(rows_scored), distinct)
    assert result.cost["rows"] == sum(map(len, sets.values())) > distinct
    assert {name: each["count"] for name, each in result.rows.items()} == {n: len(rows) for n, rows in sets.items()}
    forget, retain = kept[0].scored["forget"].tokens, kept[0].scored["retain"].tokens
    assert len(forget) == 13 and (forget[12] == forget[3]).all() and (retain[5] == forget[0]).all()
    assert (retain[9] == retain[2]).all() and not np.array_equal(retain[9], retain[1])


def test_each_distinct_prompt_is_answered_once(monkeypatch):
    """Rows of one prompt and several answers are one prompt; holdout rows are asked nothing."""
    again = [row | {"completion": " otherwise"} for row in FORGET[:5]]
    sets = {"forget": [*FORGET, *again], "retain": [*RETAIN[:4], FORGET[0]], "holdout": HOLDOUT}
    model, tokenizer = tiny_model(), tiny_tokenizer()
    asked: list[int] = []
    prompt_batches(model, contextlib.nullcontext, contextlib.nullcontext)  # tried once for a model
    generate = model.generate
    monkeypatch.setattr(
        model, "generate", lambda **inputs: asked.append(len(inputs["input_ids"])) or generate(**inputs)
    )
    suite, kept = recorded(custom(**sets, max_new_tokens=4))
    result = evaluate(model, tokenizer, suite, batch_size=64, generation_batch_size=5)
    assert sum(asked) == len(FORGET) + 4 and len(asked) == math.ceil(16 / 5)
    assert result.cost["rows_scored"] == len(FORGET) + 5 + 4 + len(HOLDOUT)
    forget = kept[0].answered["forget"].answers
    assert len(set(forget)) > 1 and forget[12:] == forget[:5] and kept[0].answered["retain"].answers[4] == forget[0]


def test_models_and_random_states_are_left_as_they_were():
    model, fluency_model = (tiny_model("opt", seed=seed, dropout=0.3).train() for seed in (0, 1))
    model.model.decoder.layers[1].eval()  # a part of it in another mode
    fluency_model.eval()
    fluency_model.model.decoder.layers[0].train()
    model.lm_head.weight.requires_grad_(False)
    model.generation_config.update(repetition_penalty=1.5, temperature=0.3, do_sample=True)

    def state(each) -> list[Any]:
        return [
            [module.training for module in each.modules()],
            [(weight.requires_grad, weight.grad, weight.sum().item()) for weight in each.parameters()],
            each.generation_config.to_dict(),
            each.config.to_dict(),
        ]

    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    before = [state(model), state(fluency_model)]
    assert len(set(before[0][0])) == len(set(before[1][0])) == 2
    randomness = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    suite = custom(forget=FORGET, retain=RETAIN[:5], holdout=HOLDOUT, attacks=("loss", "gradient_norm"))
    results = [
        evaluate(model, tiny_tokenizer(), replace(suite, max_new_tokens=4), fluency_model=fluency_model, temperature=t)
        for t in (0.0, 0.9)
    ]
    assert [state(model), state(fluency_model)] == before
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == randomness
    # Dropout of 0.3 would have made two of these.
    assert results[0]["forget_nll"] == results[1]["forget_nll"]


def test_sampled_answers_depend_on_seed_and_prompt_alone(lab, model, sets):
    tokenizer = lab.load_tokenizer()

    def said(batch_size: int, seed: int) -> list[str]:
        settings = dict(batch_size=batch_size, temperature=1.5, seed=seed)
        return evidence_of(model, tokenizer, sets, **settings).answered["forget"].answers

    first = said(1, 3)
    assert said(5, 3) == first != said(5, 4)


LONG = {"prompt": "who?", "completion": " zorvex" * 40}
SETS = {"forget": FORGET, "retain": RETAIN[:5]}


def other_tokenizer():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<more>", "<still>"])
    return tokenizer


# What is passed -> what the error must say. All of it before any forward.
REFUSED = {
    "a tokenizer that is too large": (lambda model: (model, other_tokenizer(), SETS), ["263", "at most 261 tokens"]),
    "a row that is too long": (
        lambda model: (model, tiny_tokenizer(), SETS | {"forget": [*FORGET, LONG]}),
        ["at most 128 tokens", "max_length=128"],
    ),
    "a model that is elsewhere": (lambda model: (model.to("meta"), tiny_tokenizer(), SETS), ["cpu", "meta"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_before_any_work(case):
    make, words = REFUSED[case]
    model, tokenizer, sets = make(tiny_model())
    calls: list[int] = []
    model.model.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(ValueError) as caught:
        evaluate(model, tokenizer, custom(**sets), accelerator=Accelerator(cpu=True))
    message = str(caught.value)
    places = [message.find(part) for part in PARTS]
    assert places == sorted(places) and places[0] == 0 and all(word in message for word in words), message
    assert "zorvex" not in message and not calls


def test_a_row_that_is_too_long_is_cut_by_max_length():
    suite = custom(**SETS | {"forget": [*FORGET, LONG]}, max_length=128, max_new_tokens=2)
    assert evaluate(tiny_model(), tiny_tokenizer(), suite)["forget_nll"].n == 13
