"""Builds an UnlearningConfig as under several configs of accelerate, in processes started once. Not its tests.

    torchrun --nproc_per_node 2 engaged_script.py FOLDER CASE [CASE ...]

Every rank writes FOLDER/<case>-<rank>.txt: the error, or what is engaged.
"""

import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch.distributed

from distributed.launcher import told_by_accelerate
from hf_unlearn import UnlearningConfig
from hf_unlearn.training.launch.start import find_config

CPU: dict[str, Any] = {"use_cpu": True}
NO_BACKEND: dict[str, Any] = {"use_cpu": False}
GLOO: dict[str, Any] = {"use_cpu": False, "ddp_backend": "gloo"}
# case -> config of accelerate, arguments of the run, variables of the user
CASES: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "ddp": ("ddp", CPU, {}),
    "zero2": ("zero2", CPU, {}),
    "ddp_no_backend": ("ddp", NO_BACKEND, {}),
    "ddp_gloo": ("ddp", GLOO, {}),
    "zero2_no_backend": ("zero2", NO_BACKEND, {}),
    "zero2_use_cpu_variable": ("zero2", CPU, {"ACCELERATE_USE_CPU": "true"}),
    "zero3_other_stage": ("zero3", {**CPU, "deepspeed": {"zero_optimization": {"stage": 2}}}, {}),
    "fsdp2_cpu": ("fsdp2", CPU, {}),
    "fsdp2_gloo": ("fsdp2", GLOO, {}),
}


def build(words: list[str], folder: Path, arguments: dict[str, Any], own: dict[str, str]) -> str:
    """The error of an UnlearningConfig in such a process, or what is engaged."""
    with mock.patch.dict(os.environ, told_by_accelerate(words) | own):
        try:
            args = UnlearningConfig(output_dir=str(folder / "out"), report_to="none", **arguments)
        except ValueError as error:
            return str(error)
    return f"{args.distributed_state.distributed_type.value} {args.world_size}"


def main(folder: Path, names: list[str]) -> None:
    for name in names:
        config, arguments, own = CASES[name]
        # The launcher's own address stays: these processes have met already.
        meeting = {key: os.environ[key] for key in ("MASTER_ADDR", "MASTER_PORT")}
        words = ["--config_file", str(find_config(config)), "--num_processes", "2", "--main_process_port", "0"]
        text = build(words, folder, arguments, own | meeting)
        (folder / f"{name}-{os.environ['RANK']}.txt").write_text(text)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
