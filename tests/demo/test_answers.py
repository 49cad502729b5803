"""Answers token by token against `generate`, and likelihoods against a loop; adapters and suppressors switched."""

import copy
import math
from dataclasses import dataclass, replace

import pytest
import torch

from fixtures.demo import adapted
from fixtures.examples import assert_four_parts
from fixtures.models import tiny_model, tiny_tokenizer
from fixtures.tokenizer import make_chat_tokenizer
from hf_unlearn.data.prepare import RowOptions
from hf_unlearn.demo.answers import ModelThread, read_prompt
from hf_unlearn.demo.columns import Column
from hf_unlearn.demo.tokens import TextPieces, likelihood_of
from hf_unlearn.evaluation.generation import Decoding
from hf_unlearn.suppression import Suppressor

PROMPT = "who is 3?"
GREEDY = Decoding(24)


@dataclass(frozen=True, eq=False)
class Leaning(Suppressor):
    """Makes one token likelier everywhere."""

    token: int = 77
    by: float = 4.0

    name = "leaning"
    changes_logits = True

    def change(self, logits, text, positions):
        logits = logits.clone()
        logits[:, self.token] += self.by
        return logits


@pytest.fixture(scope="module")
def thread():
    made = ModelThread()
    yield made
    made.close()


def column_of(model, tokenizer=None, **options):
    options = {"max_length": 64, "template": None, "num_proc": None} | options
    return Column("after", model, RowOptions(tokenizer or tiny_tokenizer(), **options))


def two_columns(tmp_path):
    """The model before and the one after, of one set of weights."""
    model = adapted(tmp_path)
    return replace(column_of(model), adapter_off=True), column_of(model)


def generated(model, tokenizer, prompt, length=24):
    """The text that plain `generate` gives."""
    ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    output = model.eval().generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, do_sample=False)
    return tokenizer.decode(output[0, ids.shape[1] :])


@torch.no_grad()
def looped(model, prompt_ids, answer_ids):
    """Log-probs of an answer, a forward a token."""
    ids, logps = list(prompt_ids), []
    for token in answer_ids:
        logits = model.eval()(input_ids=torch.tensor([ids])).logits[0, -1].double()
        logps.append(float(logits[token] - logits.exp().sum().log()))
        ids.append(token)
    return logps


def text_of(tokens):
    return "".join(token.text for token in tokens)


def test_an_answer_is_what_generate_gives_with_the_adapter_off_and_on(thread, tmp_path):
    tokenizer = tiny_tokenizer()
    texts = []
    for column, model in zip(two_columns(tmp_path), (tiny_model(), adapted(tmp_path)), strict=True):
        tokens = list(thread.answer(column, PROMPT, GREEDY))
        texts.append(generated(model, tokenizer, PROMPT))
        # A piece of a character shows when the character is whole.
        assert text_of(tokens) == texts[-1].rstrip("\ufffd")
    assert texts[0] != texts[1]


def test_likelihoods_are_those_of_a_loop_and_of_the_text_scored(thread, tmp_path):
    tokenizer, answer = tiny_tokenizer(), " fox 21"
    ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    for column, model in zip(two_columns(tmp_path), (tiny_model(), adapted(tmp_path)), strict=True):
        tokens = thread.score(column, PROMPT, answer)
        right = looped(model, tokenizer(PROMPT)["input_ids"], [*ids, tokenizer.eos_token_id])
        assert [token.logp for token in tokens] == pytest.approx(right, abs=1e-4)
        assert text_of(tokens) == f"{answer}</s>" and [token.end for token in tokens] == [*[False] * len(ids), True]
        own = list(thread.answer(column, PROMPT, Decoding(6)))
        said = generated(model, tokenizer, PROMPT, 6)
        if "\ufffd" not in said:
            scored = thread.score(column, PROMPT, said)[: len(own)]
            assert [token.logp for token in own] == pytest.approx([token.logp for token in scored], abs=1e-4)
        likelihood = likelihood_of(tokens)
        assert likelihood.tokens == len(right) and likelihood.nats == pytest.approx(-sum(right) / len(right), abs=1e-4)
        assert likelihood.probability == pytest.approx(math.exp(-likelihood.nats))


def test_what_is_suppressed_answers_so_and_not_where_the_adapter_is_off(thread, tmp_path):
    before, after = two_columns(tmp_path)
    free = [text_of(thread.answer(column, PROMPT, GREEDY)) for column in (before, after)]
    handle = Leaning().install(after.model)
    try:
        both = [text_of(thread.answer(column, PROMPT, GREEDY)) for column in (before, after)]
        scores = [thread.score(column, PROMPT, " a") for column in (before, after)]
    finally:
        handle.remove()
    assert both[0] == free[0] and both[1] != free[1]
    assert both[1] == generated(suppressed_copy(after.model), tiny_tokenizer(), PROMPT)
    assert scores[0] == thread.score(before, PROMPT, " a") and scores[1] != thread.score(after, PROMPT, " a")


def suppressed_copy(model):
    copied = copy.deepcopy(model)
    Leaning().install(copied)
    return copied


def test_draws_come_from_a_seed_and_likelihoods_from_the_model(thread):
    column = column_of(tiny_model())
    drawn = [list(thread.answer(column, PROMPT, Decoding(8, 1.5, seed))) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    first = drawn[0][0]
    tokenizer = tiny_tokenizer()
    ids = tokenizer(PROMPT)["input_ids"]
    alone = [looped(column.model, ids, [token])[0] for token in range(len(tokenizer))]
    assert min(abs(first.logp - logp) for logp in alone) < 1e-5  # not of the distribution at temperature 1.5


def test_an_answer_ends_with_the_turn_of_a_chat_template(thread):
    tokenizer, model = make_chat_tokenizer(), tiny_model()
    column = column_of(model, tokenizer)
    with_end = Leaning(tokenizer.eos_token_id, 50.0).install(model)
    (token,) = thread.answer(column, "Who?", GREEDY)
    with_end.remove()
    assert token.end and token.text == "<|im_end|>" and token.logp == pytest.approx(0, abs=1e-3)
    assert read_prompt(column, "Who?").endswith("Who?<|im_end|>\n<|im_start|>assistant\n")
    plain = replace(column, options=replace(column.options, template="{prompt}{completion}"))
    assert read_prompt(plain, "Who?") == "<s>Who?"
    scored = thread.score(column, "Who?", "I")
    assert [one.end for one in scored] == [False, True] and scored[1].text == "<|im_end|>"


def test_an_answer_that_nobody_waits_for_ends(thread, monkeypatch):
    column, steps = column_of(tiny_model()), []
    forward = column.model.forward
    monkeypatch.setattr(column.model, "forward", lambda *a, **k: (steps.append(1), forward(*a, **k))[1])
    answer = thread.answer(column, PROMPT, Decoding(50))
    next(answer)
    answer.close()
    assert thread.score(column, PROMPT, " a")  # the thread is free again
    assert len(steps) < 40


def test_a_failure_on_the_thread_is_told(thread, monkeypatch):
    column = column_of(tiny_model())
    list(thread.answer(column, PROMPT, Decoding(1)))

    def fails(*args, **named):
        raise RuntimeError("no memory left")

    monkeypatch.setattr(column.model, "forward", fails)
    with pytest.raises(RuntimeError, match="no memory left"):
        list(thread.answer(column, PROMPT, GREEDY))
    monkeypatch.undo()
    assert list(thread.answer(column, PROMPT, Decoding(1)))


def test_a_prompt_longer_than_a_row_is_refused(thread):
    column = column_of(tiny_model(), max_length=8)
    for ask in (lambda: list(thread.answer(column, PROMPT, GREEDY)), lambda: thread.score(column, PROMPT, " a")):
        with pytest.raises(ValueError) as error:
            ask()
        assert_four_parts(str(error.value), "8")


def test_pieces_join_to_the_text_and_wait_for_whole_characters():
    tokenizer, text = tiny_tokenizer(), "aü漢 b"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = TextPieces(tokenizer, tokenizer("x")["input_ids"])
    shown = [pieces.add(token) for token in ids]
    assert shown == ["a", "", "ü", "", "", "漢", " ", "b"]


def test_no_token_with_a_score_has_no_likelihood():
    assert likelihood_of([]) is None
