"""The router loss of mixtures of experts: plain Trainer's on a step in one batch, and the same however it is split."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    JetMoeConfig,
    JetMoeForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    Trainer,
    TrainingArguments,
)

from fixtures.models import INITIALIZER_RANGE, make_trainer, step_logs, weights
from fixtures.tokenizer import BOS, EOS, PAD

COEFFICIENT = 3.0
SHARED: dict[str, Any] = dict(
    vocab_size=261,
    pad_token_id=PAD,
    bos_token_id=BOS,
    eos_token_id=EOS,
    hidden_size=32,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=128,
    initializer_range=INITIALIZER_RANGE,
    num_experts_per_tok=2,
    output_router_logits=True,
)
# What the coefficient and the number of experts are called differs: neither is read by name.
KINDS: dict[str, Any] = {
    "mixtral": lambda: MixtralForCausalLM(
        MixtralConfig(**SHARED, num_local_experts=4, router_aux_loss_coef=COEFFICIENT)
    ),
    "qwen3_moe": lambda: Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**SHARED, num_experts=5, moe_intermediate_size=16, router_aux_loss_coef=COEFFICIENT)
    ),
    "jetmoe": lambda: JetMoeForCausalLM(
        JetMoeConfig(**SHARED, kv_channels=8, num_local_experts=4, aux_loss_coef=COEFFICIENT)
    ),
    "gpt_oss": lambda: GptOssForCausalLM(
        GptOssConfig(**SHARED, num_local_experts=6, router_aux_loss_coef=COEFFICIENT, sliding_window=8)
    ),
}


def model_of(kind: str) -> Any:
    torch.manual_seed(0)
    return KINDS[kind]()


def trained(folder: Any, model: Any, batch: int = 8, accumulation: int = 1, **options: Any) -> Any:
    trainer = make_trainer(
        folder,
        model,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        **dict(forget_loss="grad_ascent", retain_loss="nll") | options,
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_retain_nll_is_plain_trainers(tmp_path, kind):
    model = model_of(kind)
    plain, without = copy.deepcopy(model), copy.deepcopy(model)
    trainer = trained(tmp_path, model, forget_weight=0.0)
    batch = next(iter(trainer.get_train_dataloader()))
    labels = batch["labels"].masked_fill((batch["role"] == 0)[:, None], -100)
    rows = [
        {"input_ids": ids, "attention_mask": mask, "labels": kept}
        for ids, mask, kept in zip(batch["input_ids"], batch["attention_mask"], labels, strict=True)
    ]
    args = TrainingArguments(
        str(tmp_path / "plain"),
        per_device_train_batch_size=len(rows),
        max_steps=1,
        learning_rate=0.05,
        optim="sgd",
        lr_scheduler_type="constant",
        max_grad_norm=1e9,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    Trainer(plain, args, train_dataset=rows).train()
    for name, weight in plain.named_parameters():
        torch.testing.assert_close(dict(model.named_parameters())[name], weight, rtol=1e-6, atol=1e-8)
    (log,) = step_logs(trainer)
    assert log["loss"] == pytest.approx(log["retain/nll"] + COEFFICIENT * log["router_loss"], rel=1e-5)
    without.config.output_router_logits = False
    plainer = trained(tmp_path, without, forget_weight=0.0)
    assert "router_loss" not in step_logs(plainer)[0]
    moved = max(float((weights(model)[name] - end).abs().max()) for name, end in weights(without).items())
    assert moved > 1e-3, "the router loss moves nothing here"


SPLITS: dict[str, dict[str, Any]] = {
    "npo + nll + anchor": dict(forget_loss="npo", anchor_loss="kl", anchor_ratio=0.25),
    "lora": dict(peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)),
    "surgery, by side": dict(step_wrappers="surgery"),
    "without padding": dict(padding_free=True),
    "hidden states": dict(
        forget_loss={"name": "rmu", "layer": 1}, retain_loss={"name": "hidden", "layer": 1}, forget_nll_bound=None
    ),
}


@pytest.mark.parametrize("name", SPLITS)
def test_micro_batches_of_any_size_make_the_same_step(tmp_path, name):
    ends, logs = [], []
    for batch, accumulation in ((8, 1), (4, 2), (2, 4)):
        trainer = trained(tmp_path, model_of("mixtral"), batch, accumulation, max_steps=2, **SPLITS[name])
        ends.append(weights(trainer.model))
        logs.append([(log["loss"], log["router_loss"]) for log in step_logs(trainer)])
    for other, log in zip(ends[1:], logs[1:], strict=True):
        assert log == [pytest.approx(step, rel=1e-5, abs=1e-6) for step in logs[0]]
        for weight, value in ends[0].items():
            torch.testing.assert_close(other[weight], value, rtol=1e-5, atol=1e-7)
    assert logs[0][0] != logs[0][1]


def test_a_part_of_the_models_own_loss_that_is_not_known_is_refused(tmp_path):
    class Odd(MixtralForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = super().forward(*args, **kwargs)
            if output.loss is not None:
                output.loss = output.loss + 0.1 * output.logits.logsumexp(-1).square().mean()
            return output

    with pytest.raises(ValueError, match="whose own loss has another part"):
        trained(tmp_path, Odd(model_of("mixtral").config))
    with pytest.raises(ValueError, match="without use_reentrant"):
        checkpointing = dict(activation_checkpointing=True, activation_checkpointing_kwargs={"use_reentrant": True})
        trained(tmp_path, model_of("mixtral"), **checkpointing)
