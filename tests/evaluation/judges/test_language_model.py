"""A local language model as judge: label likelihoods against one forward at a time, errors, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evaluation.judges.test_judge import WORDS
from hf_unlearn.evaluation import language_model_judge
from hf_unlearn.evaluation.judges.prompts import PROMPTS, JudgePrompt

OWN = "w1 {reference} w2 {answer}"
CHAT = "{% for m in messages %}w3 {{ m.content }} {% endfor %}{% if add_generation_prompt %}w4 {% endif %}"
ANSWERS = ["w5 w6", "w7 w8 w9 w10 w11", "", "w12", "w5 w6"]
REFERENCES = ["w20", "w21 w22", "w23", "w24 w25 w26", "w20"]


def word_model(*, positions: int = 64):
    """A random Llama over words, and its tokenizer; "yes" is one word, "oh no" two."""
    pieces = ["[UNK]", "yes", "no", "oh", *WORDS]
    backend = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(pieces),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=positions,
        initializer_range=0.6,
    )
    return LlamaForCausalLM(config), tokenizer


def loop_share(model, tokenizer, text: str, labels) -> float:
    """exp(l_1) / (exp(l_1) + exp(l_2)), a forward for each label, a token at a time."""
    totals = []
    for label in labels:
        ids, total = tokenizer(text)["input_ids"], 0.0
        for token in tokenizer(label)["input_ids"]:
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0, -1].double()
            total += float(logits[token] - logits.exp().sum().log())
            ids = [*ids, token]
        totals.append(np.exp(total))
    return totals[0] / sum(totals)


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("labels", [("yes", "no"), ("yes", "oh no")])
def test_shares_are_those_of_a_loop_over_single_forwards(labels, chat):
    model, tokenizer = word_model()
    model.eval()
    tokenizer.chat_template = CHAT if chat else None
    judge = language_model_judge(model, tokenizer=tokenizer, prompt=OWN, labels=labels, batch_size=2)
    texts = [JudgePrompt("own", OWN).filled(a, r, None) for a, r in zip(ANSWERS, REFERENCES, strict=True)]
    found, run = judge.source.replies(texts, judge.prompt.labels)
    whole = [f"w3 {text} w4" if chat else f"{text}\nVerdict:" for text in texts]
    expected = [loop_share(model, tokenizer, text, labels) for text in whole]
    assert [reply.share for reply in found] == pytest.approx(expected, rel=1e-5)
    assert np.ptp(expected) > 0.05 and run == {}


def test_flags_follow_the_threshold_and_empty_answers_are_not_asked():
    model, tokenizer = word_model()
    judge = language_model_judge(model, tokenizer=tokenizer, prompt=OWN)
    asked = [judge.prompt.filled(a, r, None) for a, r in zip(ANSWERS, REFERENCES, strict=True)]
    shares = [reply.share for reply in judge.source.replies(asked, judge.prompt.labels)[0]]
    middle = float(np.median([shares[0], shares[1], shares[3]]))
    judge.threshold = middle
    flags = judge.judgement(ANSWERS, REFERENCES).flags
    assert flags == tuple(share > middle and answer != "" for share, answer in zip(shares, ANSWERS, strict=True))
    assert list(flags) == judge(ANSWERS, REFERENCES) and True in flags


def test_a_question_without_room_is_an_error_and_never_a_flag():
    model, tokenizer = word_model(positions=9)
    judge = language_model_judge(model, tokenizer=tokenizer, prompt=OWN)
    found = judge.judgement(ANSWERS[:2], REFERENCES[:2])
    assert found.flags[1] is None and found.flags[0] is not None
    assert found.errors == {"longer than the judge can read": 1} and found.unjudged == 1
    assert np.isnan(found.values[1])
    with pytest.raises(ValueError, match="1 that it could not judge"):
        judge(ANSWERS[:2], REFERENCES[:2])


def test_logits_that_are_no_numbers_are_errors():
    model, tokenizer = word_model()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    found = language_model_judge(model, tokenizer=tokenizer, prompt=OWN).judgement(["w5"], ["w6"])
    assert found.flags == (None,) and found.errors == {"not a number": 1}


def test_a_filled_prompt_fills_no_braces_of_an_answer_and_drops_the_line_of_a_missing_question():
    prompt = JudgePrompt("fact", PROMPTS["fact"])
    filled = prompt.filled("{reference} and {x}", "SECRET", None)
    assert filled.count("SECRET") == 1 and "{reference} and {x}" in filled and "Question:" not in filled
    assert "Question: <<<who?>>>" in prompt.filled("a", "b", "who?")
    assert prompt.sha256 != JudgePrompt("fact", PROMPTS["fact"], ("no", "yes")).sha256


def test_name_and_record_say_model_version_and_prompt(tmp_path: Path):
    model, tokenizer = word_model()
    judge = language_model_judge(model, tokenizer=tokenizer, purpose="behaviour", threshold=0.6)
    assert judge.prompt.sha256[:12] in judge.name and judge.source.version in judge.name and "0.6" in judge.name
    record = judge.record()
    assert record["place"] == "local" and record["prompt_sha256"] == judge.prompt.sha256
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    assert language_model_judge(model, tokenizer=tokenizer).source.version != judge.source.version
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    saved = language_model_judge(str(tmp_path / "saved"), prompt=OWN)
    assert saved.name.startswith("saved@") and str(tmp_path) not in saved.name
    assert saved(ANSWERS, REFERENCES) == language_model_judge(model, tokenizer=tokenizer, prompt=OWN)(
        ANSWERS, REFERENCES
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"purpose": "facts"}, "did you mean 'fact'"),
        ({"prompt": "no place"}, "{answer}"),
        ({"prompt": Path("nowhere.txt")}, "cannot be read"),
        ({"labels": ("yes", "Yes ")}, "two different words"),
        ({"threshold": 1.0}, "threshold must be"),
        ({"tokenizer": None}, "tokenizer=..."),
        ({"batch_size": 0}, "batch_size must be"),
    ],
)
def test_what_cannot_judge_is_refused(arguments, words):
    model, tokenizer = word_model()
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        language_model_judge(model, **({"tokenizer": tokenizer} | arguments))


def test_flags_of_refusals_are_not_taken_for_leaks():
    model, tokenizer = word_model()
    judge = language_model_judge(model, tokenizer=tokenizer, purpose="refusal", prompt=OWN)
    assert len(judge.judgement(ANSWERS, REFERENCES).flags) == 5
    with pytest.raises(ValueError, match="flags are leaks"):
        judge(ANSWERS, REFERENCES)


def test_a_model_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="'no/such-model'"):
        language_model_judge("no/such-model")
