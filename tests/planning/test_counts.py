"""Counts of parameters, and known shapes: against published totals, sums by hand, and models that are really made."""

import json
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, OPTConfig

from fixtures.examples import assert_four_parts
from hf_unlearn.planning.counts import count_parameters
from hf_unlearn.planning.shapes import KNOWN_SHAPES, load_config

ALL_LINEAR = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")


def small_llama(**values) -> LlamaConfig:
    sizes = dict(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4)
    return LlamaConfig(**sizes | dict(num_key_value_heads=2) | values)


def small_opt() -> OPTConfig:
    return OPTConfig(
        vocab_size=50, hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_hidden_layers=3, num_attention_heads=4
    )


# By hand: Llama: V h, twice unless tied, + layers (h (2 q + 2 kv) + 3 h i + 2 h) + h.
# OPT, tied: V h + (positions + 2) h + layers (4 (h^2 + h) + 2 h f + f + h + 4 h) + 2 h.
@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("opt-1.3b", 1_315_758_080),
        ("opt-2.7b", 2_651_596_800),
        ("llama-1b", 1_235_814_400),
        ("llama-8b", 8_030_261_248),
        ("llama-70b", 70_553_706_496),
    ],
)
def test_known_shapes_have_the_published_size(name, total):
    assert count_parameters(load_config(name)).total == total


def test_every_known_shape_is_one(tmp_path):
    for name in KNOWN_SHAPES:
        assert load_config(name).num_hidden_layers > 0
    assert load_config("facebook/opt-1.3b").hidden_size == load_config("opt-1.3b").hidden_size == 2048


def test_lora_on_all_linear_layers_of_8b():
    """r (in + out) of q, k, v, o, gate, up and down in 32 blocks."""
    counts = count_parameters(load_config("llama-8b"), ALL_LINEAR)
    shapes = [(4096, 4096), (4096, 1024), (4096, 1024), (4096, 4096), (4096, 14336), (4096, 14336), (14336, 4096)]
    assert counts.trained == counts.adapters == 32 * 16 * sum(map(sum, shapes)) == 41_943_040
    assert counts.frozen == 8_030_261_248
    assert counts.linear == 32 * sum(a * b for a, b in shapes)
    assert not counts.trains_head and not counts.trains_embedding


@pytest.mark.parametrize("config", [small_llama(), small_llama(tie_word_embeddings=True), small_opt()])
@pytest.mark.parametrize("peft_config", [None, ALL_LINEAR], ids=["full", "lora"])
def test_counts_are_those_of_a_model_that_is_made(config, peft_config):
    model = AutoModelForCausalLM.from_config(config)
    model = model if peft_config is None else get_peft_model(model, peft_config)
    counts = count_parameters(config, peft_config)
    assert counts.trained == sum(p.numel() for p in model.parameters() if p.requires_grad) > 0
    assert counts.frozen == sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert counts.tied == config.tie_word_embeddings
    assert counts.embedding == 50 * 32 and counts.head == (0 if config.tie_word_embeddings else 50 * 32)


def test_a_config_file_and_its_folder_are_read(tmp_path):
    small_llama().save_pretrained(tmp_path)
    for path in (tmp_path, tmp_path / "config.json"):
        assert load_config(str(path)).intermediate_size == 48


@pytest.mark.parametrize("name", ["nobody/nothing", "llama-8c", "./missing.json"])
def test_what_is_nowhere_is_refused_with_what_works_offline(name):
    with pytest.raises(ValueError, match="known shape") as error:
        load_config(name)
    assert_four_parts(str(error.value))
    assert "config.json" in str(error.value) and "llama-8b" in str(error.value)


def test_a_config_of_no_known_kind_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no_such_model"}))
    with pytest.raises(ValueError, match="no_such_model"):
        load_config(str(tmp_path))
