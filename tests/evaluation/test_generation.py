"""Greedy answers: batches against one prompt at a time without padding or cache. Not what the answers say."""

import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model

from fixtures_models import tiny_model, tiny_tokenizer
from fixtures_tokenizer import BOS
from hf_unlearn.evaluation import generate_answers

POSITIONS = 128  # of the tiny models
# Of lengths in no order, two alike, the shortest a single token.
PROMPTS = [
    [BOS, *((7 * i + 11 * k) % 250 + 5 for k in range(length))] for i, length in enumerate([6, 19, 0, 11, 6, 2])
]


def greedy(model, prompt: list[int], steps: int) -> list[int]:
    """The most likely next token, again and again: no batch, no padding, no cache, no `generate`."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(steps):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def answers(
    model, prompts=PROMPTS, *, tokenizer=None, batch_size: int = 4, max_new_tokens: int = 8
) -> list[list[int]]:
    return generate_answers(
        model,
        tokenizer or tiny_tokenizer(),
        prompts,
        Accelerator(cpu=True),
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        description="answers",
    )


@pytest.fixture(params=["opt", "llama"])
def model(request):
    return tiny_model(request.param, seed=3).eval()


@pytest.mark.parametrize("batch_size", [1, 4, 6])
def test_batches_answer_as_single_prompts_do_and_in_the_order_asked(model, batch_size):
    expected = [greedy(model, prompt, 8) for prompt in PROMPTS]
    assert len(set(map(tuple, expected))) > 2  # or an answer to the wrong prompt would go unnoticed
    assert answers(model, batch_size=batch_size) == expected


def test_answers_are_those_of_the_adapted_model(model):
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    expected = [greedy(adapted.eval(), prompt, 8) for prompt in PROMPTS]
    with adapted.disable_adapter():
        assert expected != [greedy(adapted, prompt, 8) for prompt in PROMPTS]
    assert answers(adapted) == expected


@pytest.mark.parametrize("pad_token", ["<pad>", "</s>"])
def test_an_answer_ends_before_its_end_of_text(model, pad_token):
    whole = [greedy(model, prompt, 8) for prompt in PROMPTS]
    end = whole[1][2]  # made the end of text, it cuts this answer and leaves most of the others
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    if pad_token == "</s>":
        tokenizer.pad_token = tokenizer.eos_token
    expected = [ids[: ids.index(end)] if end in ids else ids for ids in whole]
    assert expected != whole and any(len(ids) == 8 for ids in expected)
    assert answers(model, tokenizer=tokenizer) == expected


def test_an_answer_that_ends_at_once_is_empty(model):
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(greedy(model, PROMPTS[0], 1)[0])
    assert answers(model, [PROMPTS[0]], tokenizer=tokenizer) == [[]]


@pytest.mark.parametrize("length", [120, 126, 127, 128])
def test_answers_stay_within_the_models_positions(model, length):
    prompt = [BOS, *range(10, 10 + length - 1)]
    room = max(1, POSITIONS - length - 1)  # one position is kept for an end of text
    assert answers(model, [prompt], max_new_tokens=40) == [greedy(model, prompt, room)]


def test_a_long_prompt_leaves_the_room_of_others_as_it_was(model):
    prompts = [[BOS, *range(10, 130)], PROMPTS[0], PROMPTS[1]]
    expected = [greedy(model, prompt, steps) for prompt, steps in zip(prompts, [6, 12, 12], strict=True)]
    assert answers(model, prompts, max_new_tokens=12) == expected


@pytest.mark.parametrize("adapted", [False, True])
def test_settings_that_a_model_ships_change_no_answer_and_are_left_alone(model, adapted):
    """Chat models come with a repetition penalty or suppressed tokens: what they are asked for here is greedy."""
    expected = answers(model)
    settings = {"repetition_penalty": 1.9, "no_repeat_ngram_size": 1, "suppress_tokens": [expected[0][0]]}
    model.generation_config.update(**settings)
    asked = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"])) if adapted else model
    assert answers(asked) == expected
    assert {name: getattr(model.generation_config, name) for name in settings} == settings


@pytest.mark.parametrize("training", [True, False])
def test_the_training_mode_is_restored_and_dropout_is_off_meanwhile(training):
    model = tiny_model("opt", seed=3, dropout=0.5)
    model.train(training)
    first = answers(model)
    assert all(module.training is training for module in model.modules())
    assert answers(model) == first
    assert first == [greedy(model.eval(), prompt, 8) for prompt in PROMPTS]


def test_no_prompt_has_no_answer(model):
    assert answers(model, []) == []
