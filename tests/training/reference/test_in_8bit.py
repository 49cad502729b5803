"""A frozen copy in 8 bits: near the exact one where bitsandbytes is, and refused where there is no copy to load."""

from typing import Any

import pytest
from peft import LoraConfig

from fixtures.models import make_trainer, perturbed, step_logs, tiny_model

OBJECTIVE = dict(forget_loss="npo", retain_loss="kl", reference="copy", reference_load_in_8bit=True)


def test_it_is_near_the_exact_one(tmp_path):
    pytest.importorskip("bitsandbytes")
    tiny_model().save_pretrained(tmp_path / "model")
    logs = []
    for in_8bit in (False, True):
        options = OBJECTIVE | {"reference_load_in_8bit": in_8bit, "max_steps": 3}
        trainer = make_trainer(tmp_path, str(tmp_path / "model"), **options)
        layer = trainer.reference._frozen.model.layers[0].mlp.up_proj
        assert (type(layer).__name__ == "Linear8bitLt") == in_8bit
        trainer.train()
        logs.append(step_logs(trainer))
    for exact, near in zip(*logs, strict=True):
        assert near["loss"] == pytest.approx(exact["loss"], rel=0.05)
        assert near["retain/kl"] == pytest.approx(exact["retain/kl"], rel=0.05, abs=1e-2)
        assert near["retain/kl"] != exact["retain/kl"]


@pytest.mark.parametrize(
    ("options", "by_name"),
    [
        ({}, False),  # a loaded model
        (dict(forget_loss="grad_ascent", retain_loss="nll", reference="auto"), True),  # no reference
        (dict(reference="auto", peft_config=LoraConfig(r=2, target_modules=["q_proj"])), True),  # the adapter off
        (dict(ref_model=perturbed(tiny_model())), True),
    ],
)
def test_where_there_is_no_copy_to_load_it_is_refused(tmp_path, options: dict[str, Any], by_name: bool):
    model: Any = tiny_model()
    if by_name:
        model.save_pretrained(tmp_path / "model")
        model = str(tmp_path / "model")
    with pytest.raises(ValueError, match="reference_load_in_8bit"):
        make_trainer(tmp_path, model, **OBJECTIVE | options)
