"""Training steps of LoRA adapters against naive loops, each reference another model. Not a test of saving or loading.

Two steps each, since at the first a fresh adapter is its reference.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from torch import nn

from fixtures.models import make_trainer, perturbed, step_logs, tiny_model, weights
from fixtures.one_step import (
    ACCUMULATION,
    BATCH,
    LR,
    PULL,
    assert_same_change,
    largest_difference,
    losses,
    oracle_loss,
    rows_of_step,
    run_and_expect,
    stepped,
)
from hf_unlearn import UnlearningTrainer

LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], lora_dropout=0.1)

# (forget, retain): log-probs, distributions and hidden states of the reference, on either side.
PAIRS = [("npo", "kl"), ("undial", "nll"), ("npo", "jsd"), ("rmu", "hidden")]
KINDS_AND_REFERENCES = [("llama", "auto"), ("llama", "adapter"), ("llama", "copy"), ("opt", "auto")]


def adapter_trainer(
    folder: Path, model: nn.Module, pair: tuple[str, str], kind: str = "auto", **options: Any
) -> UnlearningTrainer:
    return make_trainer(
        folder,
        model,
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=ACCUMULATION,
        max_steps=2,
        learning_rate=LR,
        **losses({pair[0]: PULL.get(pair[0], 1.0)}, {pair[1]: 1.0}),
        reference=kind,
        **options,
    )


def check_two_adapter_steps(
    trainer: UnlearningTrainer, reference: nn.Module, pair: tuple[str, str], wrong: nn.Module | None = None
) -> None:
    """Two steps against a reference; `wrong` is one that must not agree."""
    before, start = copy.deepcopy(trainer.model).eval(), weights(trainer.model)
    forget, retain = {pair[0]: PULL.get(pair[0], 1.0)}, {pair[1]: 1.0}
    loss = oracle_loss(forget, retain, reference)
    if wrong is not None:
        rows = rows_of_step(trainer)
        other = oracle_loss(forget, retain, wrong)
        one_step, other_step = (stepped(before, each(before, rows), 1.0) for each in (loss, other))
        assert largest_difference(one_step, other_step) > 1e-3, "the reference is idle"
    expected = run_and_expect(trainer, before, loss)
    # Hidden states of the first block know nothing of the adapters above it.
    reached = {n for n in expected if "lora_" in n and not (pair == ("rmu", "hidden") and "layers.1." in n)}
    assert {name for name, change in expected.items() if change.any()} == reached
    assert_same_change(trainer.model, start, expected, rtol=1e-7)


@pytest.mark.parametrize(("kind", "reference"), KINDS_AND_REFERENCES)
@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_steps_of_a_fresh_adapter(tmp_path, kind, reference, pair):
    base = tiny_model(kind).double()
    trainer = adapter_trainer(tmp_path, copy.deepcopy(base), pair, reference, peft_config=LORA)
    check_two_adapter_steps(trainer, base, pair)


def trained_adapter(kind: str, scale: float = 0.3) -> nn.Module:
    """A PeftModel whose adapter already changes the output."""
    model = get_peft_model(tiny_model(kind).double(), LORA)
    return perturbed(model, scale=scale)


@pytest.mark.parametrize(("kind", "reference"), KINDS_AND_REFERENCES)
@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_a_trained_adapter_is_compared_with_the_model_as_given(tmp_path, kind, reference, pair):
    model = trained_adapter(kind)
    given, base = copy.deepcopy(model), copy.deepcopy(model).unload()
    trainer = adapter_trainer(tmp_path, model, pair, reference)
    check_two_adapter_steps(trainer, given, pair, wrong=base)


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize("pair", [*PAIRS, ("undial", "hidden")], ids="+".join)
def test_a_given_reference_is_used_beside_an_adapter(tmp_path, kind, pair):
    model = trained_adapter(kind)
    reference = perturbed(tiny_model(kind).double(), scale=0.05)
    trainer = adapter_trainer(tmp_path, model, pair, ref_model=copy.deepcopy(reference))
    check_two_adapter_steps(trainer, reference, pair, wrong=copy.deepcopy(model))
    assert len(step_logs(trainer)) == 2
