"""Contrast: the model before at w = 0, a naive loop at other weights, and what it finds on planted secrets."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import MambaConfig, MambaForCausalLM, RwkvConfig, RwkvForCausalLM

from fixtures.models import VOCABULARY, perturbed, tiny_model
from fixtures.planted import attacked_rows, planted_model, planted_oracle, planted_target
from fixtures.tokenizer import BOS, EOS, PAD
from hf_unlearn.attacks.contrast import Contrast
from hf_unlearn.attacks.lockstep import common_way
from hf_unlearn.evaluation.generation_trial import PromptBatches
from hf_unlearn.model.score_rows import evaluation_mode

PROMPTS = [[BOS, 70, 71, 72, 73, 74, 75], [BOS, 80], [BOS, 90, 91, 92], [BOS, 93, 94, 95]]
NEW = 6
TOKENS = dict(vocab_size=VOCABULARY, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, hidden_size=32)


def adapted() -> Any:
    model = get_peft_model(
        tiny_model("llama"), LoraConfig(r=2, target_modules=["q_proj", "lm_head"], init_lora_weights=False)
    )
    return model


def rwkv() -> Any:
    torch.manual_seed(0)
    return RwkvForCausalLM(RwkvConfig(**TOKENS, attention_hidden_size=32, num_hidden_layers=2))


def mamba() -> Any:
    torch.manual_seed(0)
    return MambaForCausalLM(MambaConfig(**TOKENS, state_size=4, num_hidden_layers=2))


MODELS = {
    "llama": lambda: tiny_model("llama"),
    "opt": lambda: tiny_model("opt"),
    "adapted": adapted,
    "rwkv": rwkv,
    "mamba": mamba,
}


def naive(before: Any, after: Any, prompt: list[int], weight: float, margin: float) -> list[int]:
    """One prompt, token by token, each from whole forwards of both models."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(NEW):
            old, new = (
                model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1) for model in (before, after)
            )
            scores = {
                token: (1 + weight) * float(old[token]) - weight * float(new[token])
                for token in range(len(old))
                if float(old[token]) >= float(old.max()) - margin
            }
            ids.append(max(scores, key=scores.__getitem__))
            if ids[-1] == EOS:
                return ids[len(prompt) : -1]
    return ids[len(prompt) :]


@pytest.mark.parametrize("kind", MODELS)
def test_answers_are_those_of_a_naive_loop_and_at_0_of_the_model_before(kind):
    before = MODELS[kind]().eval()
    after = perturbed(before, scale=0.08).eval() if kind != "adapted" else perturbed(tiny_model(seed=0), scale=0.08)
    target = planted_target(after, before=before, batch_size=3)
    way = common_way([before, after])
    assert way.batches is PromptBatches.ANY or kind in ("rwkv", "mamba")
    assert way.cached or kind in ("rwkv", "mamba")
    answers = {weight: Contrast(margin=2.0).answers(target, PROMPTS, weight, NEW, way) for weight in (0.0, 1.0, 4.0)}
    assert answers[0.0] == target.answers(PROMPTS, max_new_tokens=NEW, model=before)
    for weight in (1.0, 4.0):
        assert answers[weight] == [naive(before, after, prompt, weight, 2.0) for prompt in PROMPTS]
    assert answers[0.0] != answers[4.0]


def test_nothing_is_changed_and_a_narrow_margin_is_the_model_before():
    before, after = tiny_model("opt").train(), perturbed(tiny_model("opt"), scale=0.1)
    states = [copy.deepcopy(model.state_dict()) for model in (before, after)]
    target = planted_target(after, before=before)
    with evaluation_mode(before):
        way = common_way([before, after])
    narrow = Contrast(margin=1e-6).answers(target, PROMPTS, 4.0, NEW, way)
    assert narrow == target.answers(PROMPTS, max_new_tokens=NEW, model=before)
    assert before.training and not after.training
    for model, state in zip((before, after), states, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_prompts_of_any_length_stay_within_the_positions():
    before, after = tiny_model("opt").eval(), perturbed(tiny_model("opt")).eval()
    long = [BOS, *range(60, 60 + 124)]  # of 128 positions
    target = planted_target(after, before=before)
    found = Contrast().answers(target, [long, PROMPTS[1]], 0.0, NEW, common_way([before, after]))
    assert found == target.answers([long, PROMPTS[1]], max_new_tokens=NEW, model=before)
    assert len(found[0]) <= 2


def test_an_impossible_token_of_the_model_after_is_no_nan():
    old, new = torch.zeros(1, 4), torch.tensor([[-float("inf"), 0.0, 0.0, 0.0]])
    assert Contrast()._chosen(old, new, 1.0).tolist() == [0]
    old[0, 2] = 1.0
    assert Contrast()._chosen(old, new, 0.0).tolist() == [2]
    assert Contrast(margin=0.5)._chosen(old, new, 1.0).tolist() == [2]


def between(share: float) -> Any:
    """A model on the way from the oracle to the one that knows the codes."""
    model = planted_oracle()
    with torch.no_grad():
        for weight, knowing in zip(model.parameters(), planted_model().parameters(), strict=True):
            weight.lerp_(knowing, share)
    return model


def test_it_brings_out_what_the_model_before_does_not_say_by_itself():
    """The model before knows some of the codes half, the one after less: the difference points at them."""
    target = planted_target(between(0.6), before=between(0.7))
    attack = Contrast(weights=(2.0, 4.0))
    leaks = list(attack.run(target, attacked_rows()))
    assert [leak.setting for leak in leaks] == [{"w": 0.0}, {"w": 2.0}, {"w": 4.0}]
    alone, two, four = (leak.rows.mean() for leak in leaks)
    assert alone < 0.5 and two > alone + 0.1 and four > alone + 0.15
    assert max(leak.rows.mean() for leak in attack.run(target, attacked_rows(control=True))) < 0.05


def test_planted_codes_come_out_with_the_model_before_and_no_others():
    attack = Contrast(weights=(1.0,))
    known = list(attack.run(planted_target(planted_oracle()), attacked_rows()))
    assert min(leak.rows.mean() for leak in known) > 0.9
    ignorant = planted_target(planted_model(), before=planted_oracle())
    for target, control in ((ignorant, False), (planted_target(planted_oracle()), True)):
        assert all(leak.rows.mean() < 0.05 for leak in attack.run(target, attacked_rows(control=control)))
    assert attack.unfit(ignorant, attacked_rows()) is None
    assert "before" in attack.unfit(planted_target(planted_oracle(), before=None), attacked_rows())


@pytest.mark.parametrize("arguments", [{"weights": (0.0,)}, {"weights": ()}, {"weights": 1.0}, {"margin": 0.0}])
def test_budgets_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} of contrast"):
        Contrast(**arguments)
