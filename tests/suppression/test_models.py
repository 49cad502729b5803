"""Suppression on models of other kinds: learned positions, tied and capped heads, Conv1D, and a whole evaluation."""

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel

from fixtures.inference import logits_of, model_with, suppressed
from fixtures.models import VOCABULARY, tiny_model, tiny_tokenizer
from fixtures.planted import planted_model, planted_rows
from fixtures.tokenizer import BOS, EOS, PAD
from hf_unlearn.data.tokenized_row import prompt_ids
from hf_unlearn.evaluation import evaluate
from hf_unlearn.evaluation.questioner import Questioner
from hf_unlearn.evaluation.suites.custom import custom

IDS = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
ASK = Questioner(tiny_tokenizer(), batch_size=4)


def gpt2():
    return GPT2LMHeadModel(GPT2Config(**IDS, n_embd=32, n_layer=2, n_head=2, n_positions=128))


def gemma():
    """Scaled embeddings, a sliding window in every other layer, and a cap on the logits."""
    config = Gemma2Config(
        **IDS,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=8,
        final_logit_softcapping=2.0,
        max_position_embeddings=128,
    )
    return Gemma2ForCausalLM(config)


@pytest.mark.parametrize("kind", [lambda: tiny_model("opt"), gpt2, gemma], ids=["opt", "gpt2", "gemma"])
@pytest.mark.parametrize(
    "spec",
    [
        {"name": "divergence_decoding", "small": "layers", "steps": 2, "alpha": 5.0},
        {"name": "in_context", "forget": 1, "retain": 1, "share": 0.4},
        {"name": "prompt_guard"},
        {"name": "steering", "mode": "add", "layer": 1, "coefficient": 30.0},
    ],
    ids=lambda spec: spec["name"],
)
def test_scored_and_generated_alike(kind, spec):
    torch.manual_seed(0)
    model, rows = kind().eval(), planted_rows()["forget"][:3]
    plain = ASK.logps(model, rows)
    suppressed(spec, model)
    scores = ASK.logps(model, rows)
    for row, logps, before in zip(rows, scores, plain, strict=True):
        start, ids = len(prompt_ids(row)), torch.tensor(row["input_ids"])
        expected = logits_of(model, ids)[start - 1 : -1].log_softmax(-1).gather(1, ids[start:, None])[:, 0]
        assert logps == pytest.approx(expected.numpy(), abs=2e-4) and logps != pytest.approx(before, abs=1e-3)
    prompts = [prompt_ids(rows[0]), prompt_ids(rows[1])[:4]]
    assert ASK.answers(model, prompts, max_new_tokens=3) == [
        ASK.answers(model, [prompt], max_new_tokens=3)[0] for prompt in prompts
    ]


def test_evaluate_sees_the_suppressed_model():
    sets = planted_rows()
    suite = custom(forget=sets["forget"], retain=sets["retain"], holdout=sets["unseen"])
    results = [
        evaluate(model, tiny_tokenizer(), suite, batch_size=12) for model in (planted_model(), model_with("rank"))
    ]
    before, after = ({name: metric.value for name, metric in result.metrics.items()} for result in results)
    assert before["forget_accuracy"] > 0.9 and after["forget_accuracy"] < 0.1
    assert before["retain_accuracy"] > 0.9 and after["retain_accuracy"] > 0.9
    assert before["forget_nll"] < 0.1 and after["forget_nll"] > 4
