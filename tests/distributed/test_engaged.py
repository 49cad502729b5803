"""Launches under which accelerate falls back in silence: each is refused in every process, before any work."""

from pathlib import Path

import pytest

from distributed import engaged_script
from distributed.engaged_script import CASES, CPU, build
from distributed.launcher import launch
from fixtures.examples import assert_four_parts

pytestmark = pytest.mark.distributed

MULTI_CPU = "{compute_environment: LOCAL_MACHINE, distributed_type: MULTI_CPU, num_processes: 2, use_cpu: true}"
WORDS = {
    "ddp_no_backend": ["2 processes", "know nothing of each other", "--use_cpu"],
    "ddp_gloo": ["2 processes", "would not average their gradients"],
    "zero2_no_backend": ["2 processes", "know nothing of each other"],
    "zero2_use_cpu_variable": ["Expected DeepSpeed", "unset ACCELERATE_USE_CPU"],
    "zero3_other_stage": ["Expected ZeRO-3", "Got: ZeRO-2"],
    "fsdp2_cpu": ["Expected FSDP", "Got: a CPU", "zero2"],
    "fsdp2_gloo": ["2 processes", "would not average their gradients"],
}
ENGAGED = {"ddp": "MULTI_CPU 2", "zero2": "MULTI_CPU 2"}  # DeepSpeed on a CPU shows in the trainer's accelerator alone


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What two processes wrote; one torchrun for all cases, each in the environment that accelerate would make."""
    folder = tmp_path_factory.mktemp("engaged")
    launch(Path(engaged_script.__file__), folder, *CASES)
    return folder


def test_every_case_is_looked_at():
    assert set(CASES) == WORDS.keys() | ENGAGED.keys()


@pytest.mark.parametrize("name", WORDS)
def test_processes_that_would_not_train_as_asked_are_refused(folder, name):
    for rank in range(2):
        assert_four_parts((folder / f"{name}-{rank}.txt").read_text(), *WORDS[name])


@pytest.mark.parametrize("name", ENGAGED)
def test_two_processes_that_train_together_are_not(folder, name):
    assert [(folder / f"{name}-{rank}.txt").read_text() for rank in range(2)] == [ENGAGED[name]] * 2


@pytest.mark.parametrize("words", [["--cpu", "--num_processes", "2"], ["--config_file", "multi_cpu.yaml"]])
def test_one_process_that_was_to_be_two_is_refused(tmp_path, monkeypatch, words):
    """accelerate starts no other; this process stands for the one."""
    (tmp_path / "multi_cpu.yaml").write_text(MULTI_CPU)
    monkeypatch.chdir(tmp_path)
    assert_four_parts(build(words, tmp_path, CPU, {}), "Got: one.", "--accelerate_config ddp", "unset MASTER_ADDR")
    assert build(["--cpu", "--num_processes", "1"], tmp_path, CPU, {}) == "NO 1"
