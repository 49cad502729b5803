"""The probe of a model, the refusals that follow from it, and the table in the docs that says so."""

import contextlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from transformers import (
    BartConfig,
    BartForCausalLM,
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    CpmAntConfig,
    CpmAntForCausalLM,
    Gemma3nForCausalLM,
    Gemma3nTextConfig,
    GemmaConfig,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaForSequenceClassification,
    MambaConfig,
    MambaForCausalLM,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    RobertaConfig,
    RobertaForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
    SiglipVisionConfig,
    T5Config,
    T5ForConditionalGeneration,
    XLMConfig,
    XLMWithLMHeadModel,
)

from fixtures.models import FORGET, VOCABULARY, make_trainer, step_logs, tiny_model, tiny_tokenizer
from fixtures.tokenizer import BOS, EOS, PAD
from hf_unlearn.data import DataCollatorForUnlearning
from hf_unlearn.evaluation import custom, evaluate
from hf_unlearn.evaluation.generation import generate_answers
from hf_unlearn.evaluation.generation_trial import PromptBatches, prompt_batches
from hf_unlearn.model.probe import probe_model
from hf_unlearn.model.probe_checks import require_causal_lm, require_scorable

DOCS = Path(__file__).resolve().parents[2] / "docs" / "models.md"
TOKENS: dict[str, Any] = dict(vocab_size=VOCABULARY, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS)
BERT: dict[str, Any] = dict(**TOKENS, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)


def paligemma() -> Any:
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, head_dim=8)
    text = GemmaConfig(**TOKENS, **sizes, num_key_value_heads=2, initializer_range=0.15)
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8,
        projection_dim=32,
    )  # fmt: skip
    config = PaliGemmaConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=32)
    return PaliGemmaForConditionalGeneration(config)


MODELS: dict[str, Any] = {
    "LlamaForCausalLM": tiny_model,
    "OPTForCausalLM": lambda: tiny_model("opt"),
    "MambaForCausalLM": lambda: MambaForCausalLM(
        MambaConfig(**TOKENS, hidden_size=32, num_hidden_layers=2, state_size=8, time_step_rank=4)
    ),
    "RwkvForCausalLM": lambda: RwkvForCausalLM(
        RwkvConfig(vocab_size=VOCABULARY, hidden_size=32, attention_hidden_size=32, num_hidden_layers=2)
    ),
    "BartForCausalLM": lambda: BartForCausalLM(
        BartConfig(**TOKENS, d_model=32, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=48)
    ),
    "RobertaForCausalLM (is_decoder=True)": lambda: RobertaForCausalLM(RobertaConfig(**BERT, is_decoder=True)),
    "XLMWithLMHeadModel (causal=True)": lambda: XLMWithLMHeadModel(
        XLMConfig(**TOKENS, emb_dim=32, n_layers=2, n_heads=4, causal=True, n_langs=1)
    ),
    "BertLMHeadModel (is_decoder=False)": lambda: BertLMHeadModel(BertConfig(**BERT)),
    "BertForMaskedLM": lambda: BertForMaskedLM(BertConfig(**BERT)),
    "PaliGemmaForConditionalGeneration": paligemma,
    "CpmAntForCausalLM": lambda: CpmAntForCausalLM(
        CpmAntConfig(vocab_size=VOCABULARY, hidden_size=32, num_attention_heads=4, dim_head=8, dim_ff=48,
                     num_hidden_layers=2, prompt_types=2, prompt_length=4, segment_types=2)
    ),
    "T5ForConditionalGeneration": lambda: T5ForConditionalGeneration(
        T5Config(vocab_size=VOCABULARY, d_model=8, d_kv=8, d_ff=8, num_layers=1, num_heads=1)
    ),
    "LlamaForSequenceClassification": lambda: LlamaForSequenceClassification(tiny_model().config),
}  # fmt: skip


def model_of(name: str) -> Any:
    torch.manual_seed(0)
    return MODELS[name]().eval()


def table() -> dict[str, list[str]]:
    """The rows of the docs' table of models."""
    lines = [line.strip("| ") for line in DOCS.read_text(encoding="utf-8").split("## Some of them")[1].splitlines()]
    rows = [[cell.strip() for cell in line.split(" | ")] for line in lines if " | " in line and "---" not in line]
    return {name: cells for name, *cells in rows[1:]}


def answered(model: Any) -> str:
    try:
        batches = prompt_batches(model, contextlib.nullcontext, contextlib.nullcontext)
    except ValueError as error:
        assert "whose generate() fails or gives others" in str(error)
        return "refused"
    return {"any": "in batches"}.get(batches.value, batches.value)


def test_the_table_of_models_has_every_one():
    assert list(table()) == list(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_what_the_table_says(name):
    model, cells = model_of(name), table()[name]
    try:
        require_causal_lm(model)
        probe = probe_model(model, model, rows_apart=True)
        require_scorable(probe, model)
    except ValueError as error:
        assert all(part in str(error) for part in ("Expected ", "Got: ", "Why it matters: ", "What to do: "))
        assert cells == ["refused"] * 4
        # The trainer's own refusal is that of evaluate.
        with pytest.raises(ValueError) as second:
            evaluate(
                model, tiny_tokenizer(), custom(forget=FORGET, retain=FORGET[:2]), accelerator=Accelerator(cpu=True)
            )
        assert str(second.value) == str(error)
        return
    words = {True: "yes", False: "refused"}
    assert cells == ["yes", answered(model), words[probe.left_padding], words[bool(probe.rows_apart)]]


@pytest.mark.parametrize("name", ["RwkvForCausalLM", "BartForCausalLM"])
def test_answers_are_those_of_the_logits_where_left_padding_is_seen(name):
    check_answers(model_of(name))


def test_answers_of_a_model_that_counts_from_another_position_are_those_of_its_logits():
    model = model_of("RobertaForCausalLM (is_decoder=True)")
    assert probe_model(model, model).first_position == PAD + 1
    check_answers(model)


def check_answers(model: Any) -> None:
    """Batches of any size give what one forward a token gives."""
    prompts = [list(range(60, 80)), list(range(80, 86)), list(range(90, 97)), list(range(100, 106))]
    model.generation_config.eos_token_id = None
    expected = []
    for prompt in prompts:
        ids = list(prompt)
        while len(ids) < len(prompt) + 4 and EOS not in ids:
            batch = torch.tensor([ids])
            with torch.no_grad():
                ids.append(int(model(input_ids=batch, attention_mask=torch.ones_like(batch)).logits[0, -1].argmax()))
        expected.append([token for token in ids[len(prompt) :] if token != EOS])
    options: dict[str, Any] = dict(max_new_tokens=4, batch_size=4, description="")
    assert generate_answers(model, tiny_tokenizer(), prompts, Accelerator(cpu=True), **options) == expected


@pytest.mark.parametrize("name", ["RwkvForCausalLM", "RobertaForCausalLM (is_decoder=True)"])
def test_a_collator_that_pads_on_the_left_is_refused_where_it_is_seen(tmp_path, name):
    collator = DataCollatorForUnlearning(PAD, padding_side="left")
    trainer = make_trainer(tmp_path, model_of(name), data_collator=collator)
    with pytest.raises(ValueError, match="DataCollatorForUnlearning, which pads on the left"):
        trainer.train()
    assert trainer.state.global_step == 0
    make_trainer(tmp_path / "llama", tiny_model(), data_collator=collator).train()


@pytest.mark.parametrize("name", ["BertForMaskedLM", "PaliGemmaForConditionalGeneration"])
def test_what_is_not_causal_is_not_trained(tmp_path, name):
    with pytest.raises(ValueError, match="whose logits at a token change with later tokens"):
        make_trainer(tmp_path, model_of(name)).train()


def test_a_model_is_asked_once_and_left_as_it_was():
    model = get_peft_model(tiny_model("opt", dropout=0.3), LoraConfig(r=2, target_modules=["q_proj"]))
    model.train()
    state, calls = torch.get_rng_state(), []
    model.register_forward_hook(lambda *_: calls.append(1))
    probe = probe_model(model, model)
    asked = len(calls)
    assert probe_model(model, model) is probe and len(calls) == asked <= 5
    assert torch.equal(torch.get_rng_state(), state) and model.training
    assert probe.router_loss is None and probe.other_loss == 0.0
    joined = probe_model(model, model, rows_apart=True)
    assert joined.rows_apart is False and probe_model(model, model) is joined
    assert prompt_batches(model, contextlib.nullcontext, contextlib.nullcontext) is PromptBatches.ANY


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_in_16_bits_is_no_fault(dtype):
    for kind in ("llama", "opt"):
        model = tiny_model(kind).to(dtype)
        probe = probe_model(model, model)
        assert probe.causal and probe.right_padding and probe.left_padding and probe.first_position == 0
        assert math.isfinite(probe.other_loss)


def gemma3n() -> Any:
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, head_dim=8)
    sizes |= dict(num_key_value_heads=2, vocab_size_per_layer_input=VOCABULARY, hidden_size_per_layer_input=8)
    torch.manual_seed(0)
    config = Gemma3nTextConfig(
        **TOKENS, **sizes, laurel_rank=4, num_kv_shared_layers=0, initializer_range=0.15, final_logit_softcapping=2.0
    )
    return Gemma3nForCausalLM(config)


def test_a_configuration_that_checks_types_is_no_hindrance(tmp_path):
    model = gemma3n()
    trainer = make_trainer(tmp_path, model, forget_weight=0.0, forget_loss="grad_ascent", retain_loss="nll")
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    labels = batch["labels"].masked_fill((batch["role"] == 0)[:, None], -100)[:, 1:]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    trainer.train()
    assert step_logs(trainer)[0]["loss"] == pytest.approx(float(expected), rel=1e-5)
    assert model.config.final_logit_softcapping == 2.0


def test_blocks_that_put_out_more_than_hidden_states_are_refused(tmp_path):
    for options in (dict(forget_loss={"name": "rmu", "layer": 1}), dict(retain_loss={"name": "hidden", "layer": 1})):
        with pytest.raises(ValueError, match=r"whose blocks put out shape \(4, 2, 10, 32\)"):
            make_trainer(tmp_path, gemma3n(), **options).train()


def test_a_line_longer_than_the_mask_that_a_model_holds_is_refused(tmp_path):
    def model(positions: int) -> Any:
        torch.manual_seed(0)
        sizes = dict(hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]])
        return GPTNeoForCausalLM(GPTNeoConfig(**TOKENS, **sizes, max_position_embeddings=positions, window_size=64))

    with pytest.raises(ValueError, match="batches of at most 128 tokens, for padding_free with GPTNeoForCausalLM"):
        make_trainer(tmp_path, model(128), padding_free=True)
    losses = []
    for padding_free in (False, True):
        trainer = make_trainer(tmp_path / str(padding_free), model(512), padding_free=padding_free, forget_loss="npo")
        trainer.train()
        losses.append(step_logs(trainer)[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
