"""A merged adapter is the model that was measured: tied embeddings, resized vocabularies, a wrong merge refused."""

import copy
from pathlib import Path

import pytest
import torch
from peft import CPTConfig, LoraConfig, PrefixTuningConfig, TrainableTokensConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from fixtures.models import make_trainer, tiny_model, tiny_tokenizer, train_sets
from hf_unlearn.model import merging
from hf_unlearn.model.adapters import load_adapter
from hf_unlearn.model.merging import merge
from hf_unlearn.results.hub.merge_adapter import merge_adapter
from hf_unlearn.results.record import load_record

CAUSAL = {"task_type": "CAUSAL_LM"}
ROWS = torch.randint(5, 200, (3, 12), generator=torch.Generator().manual_seed(0))


def tied_llama():
    config = copy.deepcopy(tiny_model().config)
    config.tie_word_embeddings = True
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


def logits(model):
    with torch.no_grad():
        return model.eval()(ROWS).logits.float()


def trained(model, config):
    """The model with an adapter that changes its logits."""
    model = get_peft_model(model, copy.deepcopy(config))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += (0.1 * torch.randn(weight.shape, generator=generator)).to(weight.dtype)
    return model


def of_lora(*targets, **more):
    return LoraConfig(r=2, target_modules=list(targets), **more, **CAUSAL)


# The adapter, and whether the embeddings are still tied once it is merged.
ADAPTERS = {
    "lm_head": (of_lora("q_proj", "lm_head"), False),
    "embed_tokens": (of_lora("embed_tokens"), False),
    "both, each its own": (of_lora("embed_tokens", "lm_head"), False),
    "DoRA": (of_lora("lm_head", use_dora=True), False),
    "PiSSA": (of_lora("lm_head", init_lora_weights="pissa"), False),
    "a head trained whole": (of_lora("q_proj", modules_to_save=["lm_head"]), False),
    "tokens": (TrainableTokensConfig(token_indices=[7, 100], **CAUSAL), True),
    "attention alone": (of_lora("q_proj"), True),
}


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("make", [tied_llama, lambda: tiny_model("opt")], ids=["llama", "opt"])
def test_merged_saved_and_loaded_is_the_adapter(tmp_path, make, name):
    config, tied = ADAPTERS[name]
    model = trained(make(), config)
    adapted = logits(model)
    merge(model).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert (logits(loaded) - adapted).abs().max() <= 2e-5
    assert loaded.config.tie_word_embeddings is tied


def test_what_peft_merges_alone_is_another_model(tmp_path):
    model = trained(tied_llama(), ADAPTERS["lm_head"][0])
    adapted = logits(model)
    model.merge_and_unload().save_pretrained(tmp_path)
    assert (logits(AutoModelForCausalLM.from_pretrained(tmp_path)) - adapted).abs().max() > 0.1


def test_in_16_bits_the_merge_is_rounded_once():
    model = trained(tied_llama().to(torch.bfloat16), ADAPTERS["lm_head"][0])
    whole = merge(copy.deepcopy(model).float())
    merged = merge(model)
    assert {weight.dtype for weight in merged.parameters()} == {torch.bfloat16}
    for name, weight in merged.named_parameters():
        assert torch.equal(weight, whole.get_parameter(name).to(torch.bfloat16)), name


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens", "PiSSA"])
def test_a_wrong_merge_is_refused_and_nothing_is_written(tmp_path, monkeypatch, name):
    folder = saved_run(tmp_path, tied_llama(), tiny_tokenizer(), ADAPTERS[name][0])
    monkeypatch.setattr(merging, "_untie_adapted", lambda model: None)
    with pytest.raises(ValueError, match="the logits of base model and adapter"):
        merge_adapter(folder, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    "config",
    [
        PrefixTuningConfig(num_virtual_tokens=3, **CAUSAL),
        CPTConfig(cpt_token_ids=[5, 6], cpt_mask=[1, 1], cpt_tokens_type_mask=[1, 1], **CAUSAL),
    ],
)
def test_prompts_cannot_be_merged(config):
    with pytest.raises(ValueError, match="an adapter of weights"):
        merge(get_peft_model(tiny_model(), config))


def saved_run(folder: Path, base, tokenizer, adapter, **resize):
    """The output folder of a run on a base model that lies beside it, perhaps with another vocabulary."""
    base.save_pretrained(folder / "base")
    model = AutoModelForCausalLM.from_pretrained(folder / "base")
    if resize:
        model.resize_token_embeddings(len(tokenizer), **resize)
    trainer = make_trainer(
        folder, model, tokenizer=tokenizer, peft_config=copy.deepcopy(adapter), max_steps=2, learning_rate=0.5
    )
    trainer.train()
    trainer.save_model()
    torch.save(logits(trainer.model), folder / "logits.pt")
    return folder / "out"


def run_card_code(folder: Path, section: str, **names):
    """What the first code of a section of a card defines, once it has run; `names` are those that it leaves open."""
    card = (folder / "out" / "README.md").read_text(encoding="utf-8")
    code = card.partition(section)[2].partition("```python\n")[2].partition("```")[0]
    paths = {"path/to/this/folder": "out", "path/to/the/base/model": "base", "unlearned": "again"}
    for placeholder, place in paths.items():
        code = code.replace(f'"{placeholder}"', f'"{folder / place}"')
    exec(code, names)
    return names


def with_a_pad_token():
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<newpad>"})
    return tokenizer


@pytest.mark.parametrize(
    ("kind", "multiple", "adapter"),
    [
        ("llama", None, of_lora("q_proj")),
        ("llama", 64, of_lora("q_proj", modules_to_save=["embed_tokens"])),
        ("opt", 64, of_lora("q_proj", trainable_token_indices=[261])),
        ("opt", 64, of_lora("q_proj", "lm_head")),
    ],
)
def test_a_resized_vocabulary_is_loaded_merged_and_read_from_the_card(tmp_path, kind, multiple, adapter):
    folder = saved_run(tmp_path, tiny_model(kind), with_a_pad_token(), adapter, pad_to_multiple_of=multiple)
    adapted = torch.load(tmp_path / "logits.pt")
    loaded = load_adapter(folder)
    rows = 262 if multiple is None else 320
    assert loaded.get_base_model().get_input_embeddings().weight.shape[0] == rows
    assert torch.equal(logits(loaded), adapted)
    merged = AutoModelForCausalLM.from_pretrained(merge_adapter(folder, tmp_path / "merged"))
    assert (logits(merged) - adapted).square().mean().sqrt() <= 1e-4 * adapted.square().mean().sqrt()
    assert len(AutoTokenizer.from_pretrained(tmp_path / "merged")) == 262
    assert torch.equal(logits(run_card_code(tmp_path, "## How to use")["model"]), adapted)


@pytest.mark.parametrize(
    ("multiple", "adapter", "rows"),
    [(64, None, 320), (None, of_lora("q_proj"), 262), (None, of_lora("embed_tokens", "lm_head"), 261)],
    ids=["whole", "LoRA", "not resized"],
)
def test_the_cards_code_repeats_a_run_on_a_resized_vocabulary(tmp_path, multiple, adapter, rows):
    tokenizer, resize = (tiny_tokenizer(), {}) if rows == 261 else (with_a_pad_token(), {"mean_resizing": False})
    saved_run(
        tmp_path, tiny_model(), tokenizer, adapter, **resize | ({"pad_to_multiple_of": multiple} if resize else {})
    )
    if not resize:
        tokenizer.save_pretrained(tmp_path / "base")
    names = run_card_code(tmp_path, "<b>How to reproduce", **train_sets())
    repeated, first = names["trainer"], load_record(tmp_path / "out")
    assert repeated.model.get_input_embeddings().weight.shape[0] == rows
    assert len(repeated.processing_class) == len(tokenizer)
    assert repeated.state.global_step == first.steps == 2
    assert first.model.resized == (rows if resize else None)
