"""The plan against real steps on a CPU: total memory, and what is left of it without weights and optimizer states."""

import pytest

from benchmarks.memory_plan.plan_accuracy import CHECKPOINTED, KL, LORA, Case, compare, llama, opt

SMALL = {"max_length": 64, "per_device_train_batch_size": 2}


@pytest.mark.parametrize(
    ("case", "at"),
    [
        (Case(llama(128, 3, 512), {**SMALL, "max_length": 16}), "first block's backward"),
        (Case(opt(32, 2, 16384), SMALL), "head forward"),  # gradients are written over logits
        (Case(opt(64, 4, 512), {**SMALL, **CHECKPOINTED, "max_length": 128, "bf16": True}), "first block's backward"),
        (Case(llama(64, 3, 512), {**SMALL, **LORA, **KL, "dtype": "bfloat16", "bf16": True}), "head forward"),
        (Case(llama(128, 2, 512), {**SMALL, **KL, "max_length": 16}), "head backward"),
    ],
    ids=["weights", "logits", "checkpointing", "lora-kl", "frozen-copy"],
)
def test_within_15_percent_of_what_was_alive(case, at):
    found = compare(case, "cpu")
    assert found["ratio"] == pytest.approx(1, abs=0.15)
    assert found["ratio_of_rest"] == pytest.approx(1, abs=0.15)
    assert found["at"] == at
