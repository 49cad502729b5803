"""Live bytes on sums by hand, and activations found on fake tensors against the same passes on real ones."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, OPTConfig, PreTrainedConfig

from hf_unlearn.planning.activations import Compute, measure_activations
from hf_unlearn.planning.live_bytes import LiveBytes

LORA = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
ROWS, LENGTH, BLOCKS = 3, 24, 5


def config_of(kind: str) -> PreTrainedConfig:
    shared = dict(vocab_size=16, hidden_size=32, num_hidden_layers=BLOCKS, num_attention_heads=4)
    shared |= dict(max_position_embeddings=LENGTH, pad_token_id=None, bos_token_id=None, eos_token_id=None)
    if kind == "opt":
        off = dict(dropout=0.0, attention_dropout=0.0, layerdrop=0.0)
        return OPTConfig(**shared, **off, word_embed_proj_dim=32, ffn_dim=64)
    return LlamaConfig(**shared, intermediate_size=48, num_key_value_heads=2)


def test_live_bytes_by_hand():
    before = torch.zeros(100)
    with LiveBytes() as live:
        live.ignore([before])
        first = torch.ones(10)  # 40 bytes
        view = first[2:]  # the same storage
        second = first.double()  # 80 bytes
        assert (live.now, live.peak) == (120, 120)
        before.add_(1)
        del second
        assert (live.now, live.peak) == (40, 120)
        del first
        assert live.now == 40  # the view holds it
        del view
        live.restart_peak()
        assert (live.now, live.peak) == (0, 0)


def real_peaks(config: PreTrainedConfig, compute: Compute, lora: bool) -> tuple[int, int]:
    """Peaks of a forward and a backward pass with real numbers, gradients dropped as they come."""
    model = AutoModelForCausalLM.from_config(config, dtype=compute.dtype, attn_implementation=compute.attention)
    model = get_peft_model(model, LORA) if lora else model
    model.train()
    if compute.checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        model.disable_input_require_grads()
    base = (model.get_base_model() if lora else model).base_model
    for weight in base.parameters():
        if weight.requires_grad:
            weight.register_post_accumulate_grad_hook(lambda weight: setattr(weight, "grad", None))
    ids = torch.zeros((ROWS, LENGTH), dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[0, -2:] = 0
    with LiveBytes() as live:
        live.ignore([*base.parameters(), *base.buffers(), ids, mask])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=compute.autocast is not None):
            hidden = base(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            forward = live.peak
        live.restart_peak()
        hidden.backward(torch.empty_like(hidden))
        return forward, live.peak


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize(
    ("compute", "lora"),
    [
        (Compute(torch.float32), False),
        (Compute(torch.float32, attention="eager"), False),
        (Compute(torch.float32, torch.bfloat16), False),
        (Compute(torch.bfloat16, torch.bfloat16), True),
        (Compute(torch.float32, torch.bfloat16, checkpointing=True), False),
        (Compute(torch.bfloat16, torch.bfloat16, checkpointing=True), True),
    ],
    ids=["fp32", "eager", "mixed", "bf16-lora", "checkpointing", "checkpointing-lora"],
)
def test_five_blocks_from_three_fake_ones(kind, compute, lora):
    """To the bytes of what random numbers and masks are made of, which fake tensors leave out."""
    config = config_of(kind)
    found = measure_activations(
        config, LORA if lora else None, compute, rows=ROWS, length=LENGTH, blocks=BLOCKS, reference_rows=0
    )
    forward, backward = real_peaks(config, compute, lora)
    assert found.forward == pytest.approx(forward, rel=0.02)
    assert found.backward == pytest.approx(backward, rel=0.02)
    assert found.backward_end < found.backward and found.no_grad == 0


def test_a_reference_forward_keeps_no_block():
    config = config_of("llama")
    compute = Compute(torch.float32)
    few, many = (
        measure_activations(config, None, compute, rows=ROWS, length=LENGTH, blocks=blocks, reference_rows=ROWS)
        for blocks in (2, 8)
    )
    assert 0 < few.no_grad == many.no_grad < few.forward
    per_block = (many.forward - few.forward) / 6
    assert many.saved - few.saved == pytest.approx(6 * per_block)


def test_fused_attention_keeps_no_weights_and_flash_attention_no_mask():
    found = {
        name: measure_activations(
            config_of("opt"),
            None,
            Compute(torch.float32, attention=name),
            rows=ROWS,
            length=LENGTH,
            blocks=2,
            reference_rows=0,
        )
        for name in ("eager", "sdpa", "flash_attention_2")
    }
    assert found["flash_attention_2"].forward < found["sdpa"].forward < found["eager"].forward
