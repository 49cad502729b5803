"""Trainer's use_liger_kernel, with a stand-in for Liger: which kernels are asked for, and what is refused."""

import sys
import types
from typing import Any

import pytest

from fixtures.examples import assert_four_parts
from fixtures.models import make_trainer, step_logs, tiny_model

NO_CROSS_ENTROPY = {"cross_entropy": False, "fused_linear_cross_entropy": False}


@pytest.fixture
def liger(monkeypatch) -> list[dict[str, Any]]:
    """What Trainer asked of Liger, which changes nothing here. Its names are those of liger-kernel 0.8.5."""
    asked: list[dict[str, Any]] = []

    def for_llama(
        rope=True, cross_entropy=False, fused_linear_cross_entropy=True, rms_norm=True, swiglu=True, model=None
    ):
        raise AssertionError("only its signature is read")

    package, transformers, patch = (types.ModuleType(name) for name in ("liger_kernel", "transformers", "patch"))
    transformers._apply_liger_kernel_to_instance = lambda model, **kernels: asked.append({"model": model} | kernels)
    patch.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": for_llama}
    monkeypatch.setitem(sys.modules, "liger_kernel", package)
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", transformers)
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers.monkey_patch", patch)
    for module in ("hf_unlearn.training.model_setup", "transformers.integrations.liger"):
        monkeypatch.setattr(f"{module}.is_liger_kernel_available", lambda: True)
    return asked


def refused(tmp_path, kind: str = "llama", **arguments: Any) -> str:
    with pytest.raises(ValueError) as error:
        make_trainer(tmp_path, tiny_model(kind), use_liger_kernel=True, **arguments)
    return str(error.value)


@pytest.mark.parametrize("given", [None, {"swiglu": False}])
def test_kernels_are_on_but_for_the_cross_entropies(tmp_path, liger, given):
    trainer = make_trainer(tmp_path, tiny_model(), use_liger_kernel=True, liger_kernel_config=given)
    assert liger == [], "Trainer patches the model when it trains"
    trainer.train()
    assert liger == [{"model": trainer.model} | NO_CROSS_ENTROPY | (given or {})]
    assert step_logs(trainer)[0]["forget_nll"] > 0


def test_without_it_nothing_is_asked_for(tmp_path, liger):
    trainer = make_trainer(tmp_path, tiny_model())
    trainer.train()
    assert liger == [] and trainer.args.liger_kernel_config is None


@pytest.mark.parametrize("name", ["cross_entropy", "fused_linear_cross_entropy"])
def test_its_cross_entropies_are_refused(tmp_path, liger, name):
    assert_four_parts(refused(tmp_path, liger_kernel_config={name: True}), f"Got: {name}=True", f"leave {name} out")


def test_a_model_without_kernels_is_refused(tmp_path, liger):
    """Liger would log it and go on."""
    assert_four_parts(refused(tmp_path, "opt"), "not opt", "Got: use_liger_kernel with OPTForCausalLM")


def test_a_kernel_that_the_model_has_not_is_refused(tmp_path, liger):
    assert_four_parts(refused(tmp_path, liger_kernel_config={"rmsnorm": True}), "'rmsnorm'", "did you mean 'rms_norm'")


def test_it_is_refused_where_it_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_unlearn.training.model_setup.is_liger_kernel_available", lambda: False)
    assert_four_parts(refused(tmp_path), "pip install liger-kernel")
