"""Answers that end leave the batch and others come in: the answers are those of prompts asked one by one."""

import contextlib
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from fixtures.models import tiny_model, tiny_tokenizer
from fixtures.tokenizer import BOS
from hf_unlearn.data.turns import AnswerEnds
from hf_unlearn.evaluation import generation_rounds
from hf_unlearn.evaluation.decoding import Decoding, SeededSampling
from hf_unlearn.evaluation.generation import answer_batches
from hf_unlearn.evaluation.generation_rounds import Answer, EnoughEnded, Rounds
from hf_unlearn.evaluation.generation_trial import prompt_batches
from hf_unlearn.evaluation.stop_rule import StopRule

PROMPTS = [[BOS, *((7 * i + 11 * k) % 250 + 5 for k in range(3 + i % 5))] for i in range(9)]
ROOM = 14
NEVER = 10**6  # no token of any answer


def going(model: Any, stop: StopRule, decoding: Decoding, batch_size: int) -> tuple[list[list[int]], Any]:
    """Answers to the prompts in their order; rows, tokens read and steps of each call."""
    prompt_batches(model, contextlib.nullcontext, contextlib.nullcontext)  # tried once for a model
    calls, generate, found = [], model.generate, {}

    def counted(**inputs: Any) -> Any:
        output = generate(**inputs)
        rows, length = inputs["input_ids"].shape
        calls.append((rows, length, output.shape[1] - length))
        return output

    model.generate = counted
    try:
        for places, said in answer_batches(
            model, stop, PROMPTS, range(len(PROMPTS)), Accelerator(cpu=True), decoding, batch_size, ""
        ):
            assert not found.keys() & set(places)
            found |= zip(places, said, strict=True)
    finally:
        del model.generate
    return [found[i] for i in range(len(PROMPTS))], calls


@pytest.mark.parametrize(("kind", "temperature"), [("llama", 0.0), ("opt", 1.3)])
def test_answers_that_are_read_again_are_those_of_one_by_one(kind, temperature, monkeypatch):
    monkeypatch.setattr(generation_rounds, "_FIRST_TOKENS", 4)
    model = tiny_model(kind, seed=3).eval()
    decoding, tokenizer = Decoding(ROOM, temperature, seeds=range(len(PROMPTS))), tiny_tokenizer()
    endless, _ = going(model, StopRule(tokenizer, AnswerEnds((NEVER,))), decoding, 1)
    stop = StopRule(tokenizer, AnswerEnds((endless[1][3], endless[4][8], endless[7][11])))
    expected = [stop.until(ids) for ids in endless]
    assert len(set(map(len, expected))) > 2
    answers, calls = going(model, stop, decoding, 2)
    assert answers == expected
    longest = max(map(len, PROMPTS))
    assert max(length for _, length, _ in calls) > longest  # some were read again
    assert max(rows for rows, *_ in calls) > 2
    assert all(rows * (length + steps) <= 2 * (longest + ROOM) for rows, length, steps in calls)


def test_an_end_in_text_may_begin_in_an_earlier_call_and_not_in_the_prompt():
    tokenizer = tiny_tokenizer()
    a, b, c = tokenizer.convert_tokens_to_ids(["a", "b", "c"])
    stop = StopRule(tokenizer, AnswerEnds((NEVER,), ("abc",)))
    answers = [Answer(0, [BOS], [a, b], 8), Answer(1, [BOS, a, b], [], 8), Answer(2, [BOS, a], [b], 8)]
    enough = EnoughEnded(stop, answers, 3, 3, "cpu")
    ids = torch.tensor([[*answer.ids, c] for answer in answers])
    assert tokenizer.decode(ids[0, 1:]) == "abc"
    assert enough(ids, None).tolist() == [True, False, False]


def test_calls_hold_no_more_tokens_than_whole_answers_and_come_to_all():
    for seed in range(20):
        draw = torch.Generator().manual_seed(seed)
        size = lambda low, high: int(torch.randint(low, high, (), generator=draw))  # noqa: E731, B023
        batch_size, room, early = size(1, 6), size(1, 90), bool(size(0, 2))
        answers = [Answer(i, [5] * size(1, 30), [], room) for i in range(40)]
        ends_after = [size(1, 2 * room) for _ in answers]
        longest = max(answer.length for answer in answers) + room
        rounds = Rounds(answers, lambda answer: answer.room, batch_size, longest, early)
        for call in rounds:
            rows, length = len(call.answers), max(answer.length for answer in call.answers)
            assert rows * (length + call.tokens) <= batch_size * longest and call.tokens >= 1
            assert rows <= 4 * batch_size and 1 <= call.enough <= rows
            assert early or call.tokens == room
            for answer in call.answers:
                answer.said = [*answer.said, *[5] * call.tokens][: min(room, ends_after[answer.place])]
            unended = [a for a in call.answers if a.left and len(a.said) < ends_after[a.place]]
            rounds.back(call, unended)
        assert all(len(a.said) == min(room, end) for a, end in zip(answers, ends_after, strict=True))


def test_what_a_step_too_many_brings_is_not_part_of_the_answers():
    """`generate` goes a step further on some devices before it stops, and takes it back."""
    stop = StopRule(tiny_tokenizer(), AnswerEnds((9,)))
    answers = [Answer(0, [5], [], 8), Answer(1, [6, 7], [], 8), Answer(2, [5], [4] * 6, 8)]
    enough = EnoughEnded(stop, answers, 7, 2, "cpu")
    ids = torch.full((3, 7), 5)
    told = []
    for tokens in ([5, 9, 5], [5, 0, 5], [9, 0, 0]):
        ids = torch.cat([ids, torch.tensor(tokens)[:, None]], dim=1)
        told.append(enough(ids, None).tolist())
    # The third answer has no room left after two tokens: enough have ended.
    assert told == [[False, True, False], [True] * 3, [True] * 3]
    assert enough.ended(2) == [False, True, True] and enough.ended(3) == [True] * 3

    def sampler(state: Any = None) -> SeededSampling:
        return SeededSampling([[5, 6]], Decoding(4, 1.0, 2), [state])

    scores, whole, begun = torch.zeros(1, 50), sampler(), sampler()
    noise = [whole(None, scores) for _ in range(4)]
    for steps in range(3):
        begun(None, scores)
        for kept in (steps, steps + 1):
            assert torch.equal(sampler(begun.state(0, kept))(None, scores), noise[kept])
