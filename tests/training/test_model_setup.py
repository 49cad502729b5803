"""The model before the Trainer gets it: its dtype, its dropout, what is refused, adapters on a 4-bit base."""

import math
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    BitsAndBytesConfig,
    GPT2Config,
    GPT2LMHeadModel,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from fixtures.models import make_trainer, step_logs, tiny_model, tiny_tokenizer
from hf_unlearn import UnlearningConfig
from hf_unlearn.lab import load_lab
from hf_unlearn.training.model_setup import check_fit, disable_dropout, load_model, log_vocabulary, prepare_model

TOKENS = dict(vocab_size=50, pad_token_id=0, bos_token_id=1, eos_token_id=2)


def config(**arguments) -> UnlearningConfig:
    return UnlearningConfig(output_dir="out", use_cpu=True, report_to="none", **arguments)


def lora(**arguments) -> LoraConfig:
    return LoraConfig(r=4, target_modules=["q_proj", "v_proj"], **arguments)


def refused(call, *words: str) -> None:
    with pytest.raises(ValueError) as error:
        call()
    text = str(error.value)
    for part in ("Expected ", "Got: ", "Why it matters: ", "What to do: ", *words):
        assert part in text


# Loading


@pytest.fixture
def saved_in_bf16(tmp_path) -> str:
    tiny_model().to(torch.bfloat16).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_a_model_is_loaded_in_fp32_whatever_it_was_saved_in(saved_in_bf16):
    model = load_model(saved_in_bf16, config())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.dtype == torch.float32


@pytest.mark.parametrize(
    ("dtype", "loaded"), [("bfloat16", torch.bfloat16), (torch.float16, torch.float16), ("auto", torch.bfloat16)]
)
def test_another_dtype_is_asked_for_by_name(saved_in_bf16, dtype, loaded):
    model = load_model(saved_in_bf16, config(model_init_kwargs={"dtype": dtype}))
    assert {parameter.dtype for parameter in model.parameters()} == {loaded}


def test_other_arguments_reach_from_pretrained(saved_in_bf16):
    model = load_model(saved_in_bf16, config(model_init_kwargs='{"attn_implementation": "eager"}'))
    assert model.config._attn_implementation == "eager"
    assert model.dtype == torch.float32


# What is refused


def test_what_is_no_causal_language_model():
    bert = BertModel(BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    headless = AutoModel.from_config(tiny_model().config)
    for model in (torch.nn.Linear(2, 2), bert, headless):
        refused(lambda model=model: prepare_model(model, config(), None), "output head", type(model).__name__)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_named(value):
    model = tiny_model("opt")
    with torch.no_grad():
        model.model.decoder.layers[1].fc1.bias[2] = value
    refused(lambda: prepare_model(model, config(), lora()), "NaN or infinity in model.decoder.layers.1.fc1.bias")


def test_nothing_to_train():
    refused(lambda: prepare_model(tiny_model().requires_grad_(False), config(), None), "trainable weights")


def test_an_adapter_upon_an_adapter():
    adapted = get_peft_model(tiny_model(), lora())
    refused(lambda: prepare_model(adapted, config(), lora()), "a PeftModel and a peft_config", "merging.merge(model)")
    assert prepare_model(adapted, config(), None) is adapted


def test_what_shifts_the_positions_of_answers():
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    refused(lambda: prepare_model(tiny_model(), config(), prompts), "PromptTuningConfig", "use LoRA")
    lengthened = get_peft_model(tiny_model(), prompts)
    refused(lambda: prepare_model(lengthened, config(), None), "PromptTuningConfig", "use LoRA")
    translator = T5ForConditionalGeneration(
        T5Config(vocab_size=50, d_model=8, d_kv=8, d_ff=8, num_layers=1, num_heads=1, decoder_start_token_id=0)
    )
    refused(lambda: prepare_model(translator, config(), None), "T5ForConditionalGeneration", "AutoModelForCausalLM")


def test_a_prefix_of_keys_and_values_shifts_nothing():
    prefix = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    assert isinstance(prepare_model(tiny_model(), config(), prefix), PeftModel)


def test_an_adapter_is_added_and_trains_alone():
    model = prepare_model(tiny_model(), config(), lora())
    assert isinstance(model, PeftModel)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name for name in trained)


def test_adapters_of_a_16_bit_base_are_in_fp32():
    model = prepare_model(tiny_model().to(torch.bfloat16), config(), lora())
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if "lora_" in name else torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_trainable_weights_in_16_bits_are_warned_of(dtype, monkeypatch):
    said = []
    monkeypatch.setattr("hf_unlearn.training.model_setup.logger.warning", said.append)
    prepare_model(tiny_model().to(dtype), config(), None)
    assert [("Trainable weights are in 16 bits" in text) for text in said] == [True] * (dtype == torch.bfloat16)


@pytest.mark.parametrize(("asked", "set_to"), [(None, False), (True, True)])
def test_checkpointing_with_adapters(asked, set_to):
    args = config(activation_checkpointing=True, ddp_find_unused_parameters=asked)
    prepare_model(tiny_model(), args, lora())
    assert args.ddp_find_unused_parameters is set_to


def test_rows_and_tokenizer_fit_the_model():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    check_fit(model, tokenizer, config(), 128)
    check_fit(model, None, config(), 128)
    refused(lambda: check_fit(model, tokenizer, config(), 129), "at most 128 tokens", "max_length=128")
    tokenizer.add_tokens(["one more"])
    refused(lambda: check_fit(model, tokenizer, config(), 10), "at most 261 tokens", "262 tokens", "resize_token")
    assert log_vocabulary(model) == pytest.approx(math.log(261))


# Dropout


def opt() -> PreTrainedModel:
    """Dropout as numbers handed to functions."""
    return OPTForCausalLM(
        OPTConfig(**TOKENS, hidden_size=16, word_embed_proj_dim=16, ffn_dim=16, num_hidden_layers=2,
                  num_attention_heads=2, dropout=0.5, attention_dropout=0.5, layerdrop=0.5)
    )  # fmt: skip


def gpt2() -> PreTrainedModel:
    """Dropout as modules."""
    return GPT2LMHeadModel(
        GPT2Config(**TOKENS, n_embd=16, n_layer=2, n_head=2, resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    )


MODELS = [opt, gpt2]


def difference(model: PreTrainedModel) -> float:
    """How far two forwards in training mode are apart."""
    ids = torch.arange(3, 23)[None]
    model.train()
    with torch.no_grad():
        return float((model(input_ids=ids).logits - model(input_ids=ids).logits).abs().max())


@pytest.mark.parametrize("make", MODELS)
def test_without_dropout_two_forwards_agree(make):
    model = make()
    assert difference(model) > 1e-3
    disable_dropout(model)
    assert difference(model) == 0


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("adapted", [False, True])
def test_a_prepared_model_has_no_dropout_unless_it_is_asked_for(make, adapted):
    peft_config = LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.5) if adapted else None
    assert difference(prepare_model(make(), config(), peft_config)) == 0
    assert difference(prepare_model(make(), config(disable_dropout=False), peft_config)) > 1e-3


# A 4-bit base


@pytest.fixture(scope="module")
def lab():
    return load_lab()


@pytest.fixture(scope="module")
def four_bits() -> dict[str, BitsAndBytesConfig]:
    pytest.importorskip("bitsandbytes")
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    return {"quantization_config": quantization}


def trainer_on_four_bits(folder: Path, lab, four_bits, **arguments):
    return make_trainer(
        folder,
        str(lab.model_path),
        tokenizer=lab.load_tokenizer(),
        sets={name: lab.datasets[name].select(range(16)) for name in ("forget", "retain")},
        forget_loss="npo",
        retain_loss="kl",
        model_init_kwargs=four_bits,
        learning_rate=0.5,
        max_steps=3,
        **arguments,
    )


@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapters_of_a_4_bit_base_train(tmp_path, lab, four_bits, checkpointing):
    trainer = trainer_on_four_bits(
        tmp_path,
        lab,
        four_bits,
        activation_checkpointing=checkpointing,
        peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    parameters = dict(trainer.model.named_parameters())
    assert {parameter.dtype for parameter in parameters.values()} == {torch.uint8, torch.float32}
    base = {name: each.detach().clone() for name, each in parameters.items() if "lora_" not in name}
    trainer.train()
    first, *_, last = step_logs(trainer)
    # The reference is the same base with the adapter off: NPO starts at (2 / beta) log 2, KL at 0.
    assert first["forget/npo"] == pytest.approx(20 * math.log(2), rel=1e-5)
    assert abs(first["retain/kl"]) < 1e-6
    assert last["forget_nll"] > first["forget_nll"]
    moved = {name: float(each.detach().abs().max()) for name, each in parameters.items() if "lora_B" in name}
    assert len(moved) == 12 and min(moved.values()) > 1e-3
    for name, weight in base.items():
        assert torch.equal(parameters[name], weight), name


def test_checkpointing_on_a_4_bit_base_changes_no_number(tmp_path, lab, four_bits):
    logs = []
    for checkpointing in (False, True):
        trainer = trainer_on_four_bits(
            tmp_path, lab, four_bits, activation_checkpointing=checkpointing, peft_config=lora()
        )
        trainer.train()
        logs.append([(each["loss"], each["grad_norm"]) for each in step_logs(trainer)])
    assert logs[0] == [pytest.approx(each, rel=1e-6) for each in logs[1]]


def test_a_4_bit_base_without_adapters_is_refused(tmp_path, lab, four_bits):
    with pytest.raises(ValueError, match="adapters"):
        trainer_on_four_bits(tmp_path, lab, four_bits)
