"""Answers, greedy or drawn: batches against one prompt at a time, unpadded and uncached. Not what the answers say."""

from collections import Counter

import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from scipy.stats import chisquare

from fixtures.models import tiny_model, tiny_tokenizer
from fixtures.tokenizer import BOS, EOS
from hf_unlearn.data.turns import AnswerEnds
from hf_unlearn.evaluation import generate_answers
from hf_unlearn.evaluation.generation import Decoding, SeededSampling, _calls_in_step, answer_batches
from hf_unlearn.evaluation.stop_rule import StopRule

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


def drawn(
    model, decoding: Decoding, prompts=PROMPTS, *, order: list[int] | None = None, batch_size: int = 4
) -> list[list[int]]:
    """Answers by prompt, with the end of text where the model set one; the prompts are handed over in `order`."""
    order = order or list(range(len(prompts)))
    given = [prompts[i] for i in order]
    found: dict[int, list[int]] = {}
    accelerator = Accelerator(cpu=True)
    for indices, ids in answer_batches(
        model,
        StopRule.of(model, tiny_tokenizer(), AnswerEnds()),
        given,
        range(len(given)),
        accelerator,
        decoding,
        batch_size,
        "answers",
    ):
        found |= zip((order[i] for i in indices), ids, strict=True)
    return [found[i] for i in range(len(prompts))]


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


def test_several_tokens_may_end_an_answer(model):
    """Chat models list an end of turn beside the end of text; the one that ended an answer stays what it is."""
    whole = [greedy(model, prompt, 8) for prompt in PROMPTS]
    ends = [whole[1][2], whole[3][5], EOS]
    model.generation_config.eos_token_id = ends
    places = [next((i for i, token in enumerate(ids) if token in ends), None) for ids in whole]
    assert len({ids[place] for ids, place in zip(whole, places, strict=True) if place is not None}) == 2
    expected = [ids if place is None else ids[: place + 1] for ids, place in zip(whole, places, strict=True)]
    assert drawn(model, Decoding(8)) == expected
    assert answers(model) == [ids if place is None else ids[:place] for ids, place in zip(whole, places, strict=True)]
    assert model.generation_config.eos_token_id == ends


def test_an_answer_that_its_length_ends_has_no_end_of_text(model):
    whole = [greedy(model, prompt, 8) for prompt in PROMPTS]
    model.generation_config.eos_token_id = whole[0][3]
    found = drawn(model, Decoding(8))
    assert found[0][-1] == whole[0][3] and len(found[0]) <= 4
    assert any(len(ids) == 8 and not {EOS, whole[0][3]} & set(ids) for ids in found)


WARM = Decoding(8, temperature=1.3, seed=11)


@pytest.mark.parametrize("batch_size", [1, 4, 6])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [4, 1, 5, 0, 3, 2]])
def test_a_draw_depends_on_its_prompt_and_the_seed_alone(model, batch_size, order):
    torch.manual_seed(batch_size)
    expected = drawn(model, WARM, batch_size=6)
    assert drawn(model, WARM, batch_size=batch_size, order=order) == expected != drawn(model, Decoding(8))
    assert len(set(map(tuple, expected))) == len(PROMPTS)


def test_some_of_the_prompts_are_answered_as_all_of_them_are(model):
    assert drawn(model, WARM, PROMPTS[2:4]) == drawn(model, WARM)[2:4]


def test_another_seed_draws_other_answers(model):
    first, second = (drawn(model, Decoding(8, 1.3, seed)) for seed in (11, 12))
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_a_temperature_near_zero_is_greedy(model):
    expected = [greedy(model, prompt, 8) for prompt in PROMPTS]
    assert drawn(model, Decoding(8, temperature=1e-5)) == expected == drawn(model, Decoding(8))
    assert drawn(model, WARM) != expected


def test_drawing_leaves_torchs_random_state_alone(model):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    drawn(model, WARM)
    assert torch.equal(torch.get_rng_state(), before)


def p_value(tokens: list[int], probabilities: torch.Tensor) -> float:
    """Of the chi-square test that tokens were drawn with these probabilities; rare tokens are counted together."""
    counts = Counter(tokens)
    common = [token for token, p in enumerate(probabilities.tolist()) if p * len(tokens) >= 5]
    observed = [counts[token] for token in common]
    expected = [float(probabilities[token]) * len(tokens) for token in common]
    rest = len(tokens) - sum(observed), len(tokens) - sum(expected)
    assert len(common) >= 4 and rest[1] > 5
    return chisquare([*observed, rest[0]], [*expected, rest[1]]).pvalue


@pytest.mark.parametrize("vary", ["seed", "prompt"])
def test_draws_have_the_softmaxs_frequencies(model, vary):
    """3000 draws from the logits after one prompt, each with noise of its own."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([PROMPTS[1]])).logits[0, -1]
    many = range(3000)
    if vary == "seed":
        samplers = [SeededSampling([PROMPTS[1]], Decoding(1, 0.4, seed)) for seed in many]
        tokens = [int(sampler(None, logits[None]).argmax()) for sampler in samplers]
    else:
        noisy = SeededSampling([[BOS, i] for i in many], Decoding(1, 0.4, 5))(None, logits.expand(len(many), -1))
        tokens = noisy.argmax(-1).tolist()
    assert p_value(tokens, (logits / 0.4).softmax(-1)) > 0.01
    # The test would notice another temperature.
    assert all(p_value(tokens, (logits / other).softmax(-1)) < 1e-4 for other in (0.33, 0.5))


def test_first_tokens_of_whole_answers_have_the_softmaxs_frequencies():
    model = tiny_model("opt", seed=3).eval()
    with torch.no_grad():
        logits = [model(input_ids=torch.tensor([prompt])).logits[0, -1] for prompt in PROMPTS]
    found = [drawn(model, Decoding(1, 0.4, seed), batch_size=6) for seed in range(300)]
    p_values = [
        p_value([answers[i][0] for answers in found], (each / 0.4).softmax(-1)) for i, each in enumerate(logits)
    ]
    assert min(p_values) > 0.01 / len(PROMPTS)


def test_draws_of_later_tokens_are_new_draws():
    """One prompt's noise is not the same at each step: else the likeliest noise would repeat one token."""
    sampler = SeededSampling([PROMPTS[0]], Decoding(8, 1.0, 2))
    logits = torch.zeros(1, 500)
    assert len({int(sampler(None, logits).argmax()) for _ in range(20)}) > 15


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_that_generate_in_step_share_the_prompts_and_their_room(ranks):
    room = [5, 5, 5, 5, 5, 9, 9, 9, 9, 9, 9, 9, 3]
    order = list(range(13))
    calls = [_calls_in_step(order, room, 2, rank, ranks) for rank in range(ranks)]
    assert len({len(each) for each in calls}) == 1
    own = [i for each in calls for prompts, mine in each if mine for i in prompts]
    assert sorted(own) == order
    for call in zip(*calls, strict=True):
        assert len({room[i] for prompts, _ in call for i in prompts}) == 1
        assert all(1 <= len(prompts) <= 2 for prompts, _ in call)
    assert any(not mine for each in calls for _, mine in each) == (ranks > 1)
