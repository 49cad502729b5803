"""A checkpoint is gone on with by the run that wrote it alone: what decides a step must agree, the rest may change."""

import pytest
from datasets import Dataset
from peft import LoraConfig

from fixtures.models import FORGET, make_trainer, tiny_model, tiny_tokenizer, train_sets
from hf_unlearn.training.checkpoints.mark import MARK_FILE

PARTS = r"Expected (.|\n)*Got: (.|\n)*Why it matters: (.|\n)*What to do: "
SAVING = dict(max_steps=2, save_strategy="steps", save_steps=1, forget_nll_bound=9.0)


def lora(**changes) -> LoraConfig:
    return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]} | changes)


def other_template():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    return tokenizer


def refusal(folder, checkpoint, **arguments) -> str:
    model = arguments.pop("model", tiny_model())
    trainer = make_trainer(folder, model, **SAVING | arguments)
    with pytest.raises(ValueError, match=PARTS) as caught:
        trainer.train(resume_from_checkpoint=str(checkpoint))
    assert trainer.baseline is None, "refused only after something was measured"
    return str(caught.value)


def test_what_decides_a_step_is_refused_by_name(tmp_path, caplog):
    make_trainer(tmp_path, tiny_model(), **SAVING).train()
    checkpoint = tmp_path / "out" / "checkpoint-1"
    fewer = {**train_sets(), "forget": Dataset.from_list(FORGET[:-1])}
    swapped = {**train_sets(), "forget": Dataset.from_list([FORGET[1], FORGET[0], *FORGET[2:]])}
    other = {
        "forget rows": dict(sets=fewer),
        "12 rows with hash": dict(sets=swapped),
        "forget_loss": dict(forget_loss={"name": "npo", "beta": 0.2}),
        "retain_loss": dict(retain_loss="kl"),
        "forget_weight": dict(forget_weight=2.0),
        "forget_nll_bound": dict(forget_nll_bound=4.0),
        "seed": dict(seed=1),
        "learning_rate": dict(learning_rate=0.01),
        "optim": dict(optim="adamw_torch"),
        "max_grad_norm": dict(max_grad_norm=1.0),
        "retain_ratio": dict(retain_ratio=2.0),
        "max_length": dict(max_length=16),
        "rows in an optimizer step": dict(per_device_train_batch_size=2),
        "step_wrappers": dict(step_wrappers="surgery"),
        "chat template": dict(tokenizer=other_template()),
        "the number of its parameters": dict(model=tiny_model(vocabulary=300)),
        "the model's class": dict(model=tiny_model("opt")),
        "adapter: some": dict(peft_config=lora()),
    }
    refused = {name: refusal(tmp_path / "other", checkpoint, **arguments) for name, arguments in other.items()}
    assert [name for name, message in refused.items() if name not in message] == []
    assert all(checkpoint.name in message for message in refused.values())
    # What an earlier version wrote has no mark, but a record.
    (checkpoint / MARK_FILE).unlink()
    assert "seed: 42" in refusal(tmp_path / "other", checkpoint, seed=1)
    # The same rows a step in other micro-batches, another length, other logs: the same run, and the length is said.
    caplog.clear()
    changed = dict(per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=3, logging_steps=3)
    trainer = make_trainer(tmp_path / "moved", tiny_model(), **SAVING | changed)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert trainer.record.resumed_from == 1 and "max_steps was 2" in caplog.text


def test_an_adapter_of_other_targets_is_refused(tmp_path):
    make_trainer(tmp_path, tiny_model(), **SAVING, peft_config=lora()).train()
    checkpoint = tmp_path / "out" / "checkpoint-1"
    changes = {
        "target_modules": dict(target_modules=["k_proj", "o_proj"]),
        "lora_alpha": dict(lora_alpha=16),
        "r of the adapter": dict(r=2),
        "layers_to_transform": dict(layers_to_transform=[1]),
    }
    for name, change in changes.items():
        assert name in refusal(tmp_path / "other", checkpoint, peft_config=lora(**change))
    assert "adapter: some" in refusal(tmp_path / "other", checkpoint)
    again = make_trainer(tmp_path, tiny_model(), **SAVING, peft_config=lora(target_modules=["v_proj", "q_proj"]))
    again.train(resume_from_checkpoint=str(checkpoint))
    assert again.record.resumed_from == 1
