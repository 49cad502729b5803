"""Greedy answers that the scores have told already: the answers of `generate`, with fewer tokens generated."""

import contextlib
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator

from fixtures.models import tiny_model, tiny_tokenizer
from fixtures.tokenizer import BOS, EOS
from hf_unlearn.data.turns import AnswerEnds
from hf_unlearn.evaluation import custom, evaluate
from hf_unlearn.evaluation.evidence import ScoredRows
from hf_unlearn.evaluation.generation import Decoding, answer_batches
from hf_unlearn.evaluation.generation_trial import prompt_batches
from hf_unlearn.evaluation.one_pass import greedy_beginnings
from hf_unlearn.evaluation.stop_rule import StopRule
from hf_unlearn.lab import load_lab

PROMPTS = [[BOS, *((7 * i + 11 * k) % 250 + 5 for k in range(n))] for i, n in enumerate([6, 19, 2, 11, 90])]
STEPS = 40  # more than the last prompt leaves room for


def answers(model: Any, begun: dict[int, list[int]], *, batch_size: int = 5, ends: AnswerEnds | None = None) -> Any:
    """Answers to the prompts in their order, and the tokens that each call of `generate` began with and gave."""
    prompt_batches(model, contextlib.nullcontext, contextlib.nullcontext)  # tried once for a model
    calls: list[tuple[int, int]] = []
    generate = model.generate

    def counted(**inputs: Any) -> Any:
        output = generate(**inputs)
        calls.append((len(output), output.shape[1] - inputs["input_ids"].shape[1]))
        return output

    model.generate, found = counted, {}
    stop = StopRule.of(model, tiny_tokenizer(), ends or AnswerEnds())
    try:
        for places, said in answer_batches(
            model, stop, PROMPTS, range(5), Accelerator(cpu=True), Decoding(STEPS), batch_size, "", begun
        ):
            found |= zip(places, said, strict=True)
    finally:
        del model.generate
    return [found[i] for i in range(5)], calls


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_answers_are_the_same_from_wherever_they_go_on(kind):
    model = tiny_model(kind, seed=3).eval()
    model.generation_config.eos_token_id = None
    expected, _ = answers(model, {})
    assert [len(ids) for ids in expected[:4]] == [STEPS] * 4
    assert len(expected[4]) <= 128 - 91 - 1  # the model has no more positions
    for known in ([0, 3, 40, 7, 5], [40, 40, 39, 0, 36], [0, 0, 1, 0, 20]):
        begun = {i: expected[i][:n] for i, n in enumerate(known)}
        for batch_size in (1, 5):
            assert answers(model, begun, batch_size=batch_size)[0] == expected
    assert answers(model, dict(enumerate(expected))) == (expected, [])  # nothing is left to be generated


def test_an_answer_that_is_known_to_its_end_is_not_generated():
    model = tiny_model(seed=3).eval()
    plain, _ = answers(model, {})
    end = plain[1][4]
    expected, _ = answers(model, {}, ends=AnswerEnds((end,)))
    assert expected[1] == plain[1][: plain[1].index(end) + 1]
    found, calls = answers(model, {1: plain[1][:10], 0: plain[0][:2]}, ends=AnswerEnds((end,)))
    assert found == expected and sum(rows for rows, _ in calls) < 5


def test_a_prompts_answer_begins_with_the_likeliest_tokens_of_any_of_its_rows():
    rows = [_row([1, 2], [3, 4, 5]), _row([1, 2], [3, 9]), _row([6], [7, EOS]), _row([8], [9])]
    right = [[1, 1, 0], [1, 0], [1, 1], [0]]
    scored = {"a": ScoredRows([np.array([[-1.0] * len(r), r]) for r in right[:2]])}
    scored["b"] = ScoredRows([np.array([[-1.0] * len(r), r]) for r in right[2:]])
    assert greedy_beginnings({"a": rows[:2], "b": rows[2:]}, scored) == {(1, 2): [3, 4], (6,): [7, EOS]}
    # The turn of another within an answer is not what the model says.
    rows[0]["labels"][3] = -100
    scored = {"a": ScoredRows([np.array([[-1.0, -1.0], [1, 1]])])}
    assert greedy_beginnings({"a": rows[:1]}, scored) == {}


def test_drawn_answers_are_generated_whole():
    lab = load_lab()
    model, tokenizer = lab.load_model(), lab.load_tokenizer()  # it has these rows by heart
    rows = {
        name: [{column: row[column] for column in ("prompt", "completion")} for row in list(lab.datasets[name])[:4]]
        for name in ("forget", "retain")
    }
    prompt_batches(model, contextlib.nullcontext, contextlib.nullcontext)
    asked: list[int] = []
    generate = model.generate

    def counted(**inputs: Any) -> Any:
        asked.append(len(inputs["input_ids"]))
        return generate(**inputs)

    model.generate = counted
    for temperature, whole in ((0.0, False), (1.0, True)):
        asked.clear()
        evaluate(model, tokenizer, custom(**rows, max_new_tokens=4), temperature=temperature)
        assert (sum(asked) == 8) == whole


def _row(prompt: list[int], answer: list[int]) -> dict[str, Any]:
    return {"input_ids": [*prompt, *answer], "labels": [-100] * len(prompt) + answer, "answer_start": len(prompt)}
