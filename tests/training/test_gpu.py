"""What only a GPU can show: the numbers of a CPU, no wait for the device in a step, kernels that are not elsewhere."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import is_liger_kernel_available

from fixtures.models import make_trainer, perturbed, step_logs, tiny_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
OBJECTIVES: dict[str, dict[str, Any]] = {
    "grad_ascent + nll": dict(forget_loss="grad_ascent", retain_loss="nll"),
    "npo + nll": dict(forget_loss="npo", retain_loss="nll"),
    "npo + kl, copy": dict(forget_loss="npo", retain_loss="kl", forget_nll_bound="holdout"),
    "npo + kl, adapter": dict(forget_loss="npo", retain_loss="kl", peft_config=LORA),
    "undial + jsd, top-k": dict(forget_loss="undial", retain_loss="jsd", reference="topk", reference_top_k=9),
    "ceu + hidden": dict(forget_loss="ceu", retain_loss={"name": "hidden", "layer": 1}),
    "ihl + answer_preservation": dict(forget_loss="ihl", retain_loss="answer_preservation"),
    "max_entropy + nll": dict(forget_loss="max_entropy", retain_loss="nll"),
}


def wide_model() -> Any:
    """Heads of 32 dimensions: flex attention takes none below 16."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=128, intermediate_size=128, num_attention_heads=4, num_key_value_heads=4)
    return LlamaForCausalLM(LlamaConfig(vocab_size=261, num_hidden_layers=2, initializer_range=0.05, **sizes))


def run(folder: Any, **options: Any) -> Any:
    kind = options.pop("kind", "llama")
    model = perturbed(wide_model() if kind == "wide" else tiny_model(kind))
    attention = options.pop("attention", None)
    if attention is not None:
        model.set_attn_implementation(attention)
    options = {"use_cpu": False, "max_steps": 3, "tf32": False} | copy.deepcopy(options)
    trainer = make_trainer(folder, model, **options)
    trainer.train()
    return trainer


def assert_same(one: Any, other: Any, tolerance: float) -> None:
    for a, b in zip(step_logs(one), step_logs(other), strict=True):
        for name in ("loss", "grad_norm"):
            assert b[name] == pytest.approx(a[name], rel=tolerance, abs=tolerance), name


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_steps_are_those_of_a_cpu(tmp_path, name, kind):
    on_cpu, on_gpu = (
        run(tmp_path, use_cpu=use_cpu, kind=kind, **OBJECTIVES[name] | ({} if not use_cpu else {"tf32": None}))
        for use_cpu in (True, False)
    )
    assert next(on_gpu.model.parameters()).is_cuda
    assert_same(on_cpu, on_gpu, 1e-4)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_never_waits_for_the_device(tmp_path, name):
    # Logs are all that waits, and there is one at the end. Attention of another kind than eager asks, in transformers,
    # whether a mask is needed.
    trainer = run(tmp_path, logging_steps=100, max_steps=2, attention="eager", **OBJECTIVES[name])
    batches = iter(trainer.get_train_dataloader())
    torch.cuda.synchronize()
    for _ in range(2):
        (inputs,), count = trainer.get_batch_samples(batches, 1, trainer.args.device)
        torch.cuda.set_sync_debug_mode("error")
        try:
            trainer.training_step(trainer.model_wrapped, inputs, count)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert trainer._step_log.finite(trainer.accelerator)
        trainer.model.zero_grad()


@pytest.mark.parametrize("name", ["npo + kl, copy", "npo + kl, adapter"])
def test_mixed_precision_is_near_full_precision(tmp_path, name):
    full, mixed = (run(tmp_path, bf16=bf16, **OBJECTIVES[name]) for bf16 in (False, True))
    assert_same(full, mixed, 0.05)


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flex_attention"])
def test_without_padding(tmp_path, attention):
    padded, packed = (
        run(tmp_path, padding_free=padding_free, attention=attention, kind="wide", **OBJECTIVES["npo + kl, copy"])
        for padding_free in (False, True)
    )
    assert_same(padded, packed, 1e-3 if attention == "flex_attention" else 1e-4)


@pytest.mark.parametrize("name", ["npo + kl, copy", "npo + kl, adapter"])
def test_compiled(tmp_path, name):
    plain, compiled = (run(tmp_path, torch_compile=each, **OBJECTIVES[name]) for each in (False, True))
    assert_same(plain, compiled, 1e-3)


@pytest.mark.skipif(not is_liger_kernel_available(), reason="needs liger-kernel")
@pytest.mark.parametrize("name", ["npo + kl, copy", "npo + kl, adapter"])
def test_liger_kernels(tmp_path, name):
    plain, liger = (run(tmp_path, use_liger_kernel=each, **OBJECTIVES[name]) for each in (False, True))
    assert "Liger" in str(liger.model) and "Liger" not in str(plain.model)
    assert_same(plain, liger, 1e-3)


def test_activations_on_the_host(tmp_path):
    plain, offloaded = (
        run(
            tmp_path,
            activation_checkpointing=True,
            activation_checkpointing_kwargs=each,
            **OBJECTIVES["npo + kl, adapter"],
        )
        for each in (None, {"offload": True})
    )
    assert_same(plain, offloaded, 1e-5)
