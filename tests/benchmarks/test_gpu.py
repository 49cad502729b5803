"""The GPU benchmark's cases, its count of FLOPs, and that one failing case leaves the others alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cost import gpu_case
from benchmarks.cost.gpu_cases import SETTINGS, Case, all_cases, unfit
from benchmarks.cost.step_profile import part_of

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_frozen_copy_of_8b_is_left_out_on_a_small_card():
    frozen = [case for case in all_cases("cuda") if unfit(case, 79.2)]
    assert [case.name for case in frozen] == ["llama-8b full: npo + kl (frozen copy)"]
    assert not any(unfit(case, 140.0) for case in all_cases("cuda"))
    # Five trainers a setting, and for each Llama two without padding and a compiled one.
    assert len({case.name for case in all_cases("cuda")}) == 3 + 5 * len(SETTINGS) + 2 * 3


@pytest.mark.parametrize(
    ("name", "part"),
    {
        "nvjet_tst_128x256_64x4_bz_NNT": "matrix products",
        "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n": "matrix products",
        "aten::addmm": "matrix products",
        "void pytorch_flash::flash_fwd_kernel<...>": "attention",
        "aten::_scaled_dot_product_flash_attention_for_cpu": "attention",
        "void at::native::multi_tensor_apply_kernel<..., FusedAdamMathFunctor<float>>": "optimizer",
        "Memcpy HtoD (Pinned -> Device)": "copies",
        "void at::native::vectorized_elementwise_kernel<4, ...>": "all else",
    }.items(),
)
def test_parts_of_a_step_by_the_names_of_kernels(name, part):
    assert part_of(name) == part


@pytest.mark.parametrize(("trainer", "expected"), [("plain Trainer", 1), ("simnpo + nll", 0.5), ("npo + kl", 0.5)])
def test_flops_of_a_step(trainer, expected):
    """A row of 8 tokens (4 of an answer) a side, full parameters: 6 n a token and attention, and the head's share."""
    setting, name = SETTINGS["opt-1.3b full"], "opt-1.3b full"
    model = gpu_case.random_model(setting, "cpu", tiny=True)
    rows = [{"input_ids": [1] * 8, "labels": [-100] * 4 + [1] * 4}] * 2
    found, again = gpu_case.model_flops(model, Case("steps", "", name, trainer, "cpu"), rows)
    hidden, layers, vocabulary = 64, 2, 512
    inner = layers * (4 * hidden**2 + 2 * hidden * 128)
    attention = 6 * layers * hidden * 8**2
    blocks, head = 6 * inner * 16 + 2 * attention, 6 * vocabulary * hidden * 16 * expected
    reference = (2 * inner * 8 + attention / 3 + 2 * vocabulary * hidden * 4) if trainer == "npo + kl" else 0
    assert found == again == pytest.approx(blocks + head + reference)


@pytest.mark.slow
def test_the_script_goes_on_after_a_case_that_fails(tmp_path):
    output = tmp_path / "gpu.json"
    arguments = ["gpu.py", "--device", "cpu", "--tiny", "--output", str(output)]
    arguments += ["--cases", "opt-1.3b lora: TRL", "opt-1.3b lora: simnpo"]
    script = f"""
import runpy, sys
sys.argv = {arguments!r}
sys.path.insert(0, {str(REPOSITORY)!r})
from benchmarks.cost import gpu_case
gpu_case.sft_trainer = lambda *_: 1 / 0
runpy.run_module("benchmarks.cost.gpu", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    results = json.loads(output.read_text())["results"]
    parts = results["opt-1.3b lora: simnpo + nll"]["parts_ms"]
    assert results["opt-1.3b lora: simnpo + nll"]["step_ms"] > 0 and parts["matrix products"] > 0
    assert sum(parts.values()) - parts["step"] <= 1.05 * parts["step"]  # one thread: operators do not overlap
    assert "ZeroDivisionError" in results["opt-1.3b lora: TRL SFTTrainer"]["error"]
    assert "FAILED: ZeroDivisionError" in done.stdout
