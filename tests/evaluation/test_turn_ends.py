"""A model that knows its rows is right about all of them, whatever ends a turn in their template."""

import pytest
import torch
from accelerate import Accelerator

from fixtures.chat_templates import templated_tokenizer
from fixtures.models import tiny_model
from hf_unlearn.data.collator import DataCollatorForUnlearning
from hf_unlearn.data.prepare import RowOptions
from hf_unlearn.data.tokenized_row import prompt_ids
from hf_unlearn.evaluation import custom, evaluate, generate_answers
from hf_unlearn.evaluation.stop_rule import StopRule

# The end of text is `</s>` in all of them, and a turn ends at another token, at ordinary text, or nowhere.
NAMES = ("chatml", "gemma", "text end", "no end")
ROWS = [{"prompt": f"city {i}?", "completion": f"town {i}"} for i in range(3)]
TEXTS = [{"text": "a b c d"}]


def tokenised(name: str) -> list[dict]:
    return list(RowOptions(templated_tokenizer(name), None, None, None).tokenize(ROWS, "eval"))


@pytest.fixture(scope="module")
def model():
    tokenizer = templated_tokenizer("chatml")
    model = tiny_model(vocabulary=len(tokenizer))
    batch = DataCollatorForUnlearning(tokenizer.pad_token_id)([row for name in NAMES for row in tokenised(name)])
    batch = {name: batch[name] for name in ("input_ids", "labels", "attention_mask")}
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(400):
        loss = model(**batch).loss
        if loss < 2e-3:
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 2e-3
    return model.eval()


@pytest.mark.parametrize("name", NAMES)
def test_rows_known_by_heart_are_answered_right(model, name):
    tokenizer, accelerator = templated_tokenizer(name), Accelerator(cpu=True)
    for rows in (ROWS, tokenised(name)):  # as text, and as the token ids that it becomes
        if rows is not ROWS and name == "text end":
            continue  # ids that end in ordinary tokens do not say so
        suite = custom(forget=ROWS[:1] if rows is ROWS else rows[:1], retain=rows, max_new_tokens=20)
        result = evaluate(model, tokenizer, suite, accelerator=accelerator)
        assert result["retain_accuracy"].value == result["retain_exact_memorization"].value == 1.0
    prompts = [prompt_ids(row) for row in tokenised(name)]
    answers = generate_answers(
        model, tokenizer, prompts, accelerator, max_new_tokens=20, batch_size=2, description="answers"
    )
    assert [tokenizer.decode(ids).strip() for ids in answers] == [row["completion"] for row in ROWS]


def test_an_end_of_several_tokens_is_found_and_taken_off(model):
    tokenizer = templated_tokenizer("text end")
    options = RowOptions(tokenizer, None, None, None)
    stop = StopRule.of(model, tokenizer, options.answer_ends(ROWS, tokenised("text end")))
    ids = tokenizer("town 1\n### Ending here", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(stop.until(ids)) == "town 1\n### End"
    assert tokenizer.decode(stop.strip(stop.until(ids))) == "town 1\n"
    assert stop.until(ids[:9]) == stop.strip(ids[:9]) == ids[:9], "half an end is none"
    # A set of several formats: what ends any of them.
    plain = options.answer_ends(TEXTS, list(options.tokenize(TEXTS, "eval")))
    assert plain.tokens == (tokenizer.eos_token_id,) and not plain.texts
