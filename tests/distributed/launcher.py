"""Starts a script on two processes of this machine, forked or by a launcher. Not a test."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import (
    prepare_deepspeed_cmd_env,
    prepare_multi_gpu_env,
    prepare_simple_launcher_cmd_env,
)

from fixtures.forked import run_together
from hf_unlearn.training.launch.start import find_config

TESTS = Path(__file__).resolve().parent.parent
LAUNCH_SECONDS = 300  # a launch takes 20 on two idle cores, and eight times that beside other work


def fork(
    script: Path,
    folder: Path,
    *names: str,
    config: str | None = None,
    seconds: float = LAUNCH_SECONDS,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a script on two processes as `launch` does, without a launcher and with their libraries imported.

    What a launcher would tell them is what it tells them: accelerate's variables come from its own functions.
    """
    variables = _variables(environment)
    if config is not None:
        variables |= told_by_accelerate(["--config_file", str(find_config(config)), "--num_processes", "2"])
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    meeting = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    ranks = [variables | meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    errors = run_together([str(script), str(folder), *names], ranks, folder=folder, seconds=seconds)
    assert errors is None, errors[-12000:]


def launch(
    script: Path,
    folder: Path,
    *names: str,
    config: str | None = None,
    seconds: float = LAUNCH_SECONDS,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a script on two processes, which find a free port for themselves.

    Args:
        script: what each process runs.
        folder: its first argument.
        names: its other arguments.
        config: of accelerate, a packaged one by name; None starts the processes with torchrun.
        seconds: after which it has failed.
        environment: variables beside those of this process.
    """
    launcher = ["torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    launcher += ["--rdzv_endpoint", "localhost:0"]
    if config is not None:
        launcher = ["accelerate.commands.launch", "--config_file", str(find_config(config)), "--num_processes", "2"]
        launcher += ["--main_process_port", "0"]
    command = [sys.executable, "-m", *launcher, str(script), str(folder), *names]
    process = subprocess.Popen(
        command, env=_variables(environment), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()  # the launcher ends its ranks, which would wait for each other for ever
        process.communicate()
        raise
    assert process.returncode == 0, errors[-12000:]


def _variables(environment: Mapping[str, str] | None) -> dict[str, str]:
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    # accelerate's own switches would turn two ranks into two unrelated runs.
    variables = {name: value for name, value in variables.items() if not name.startswith("ACCELERATE_")}
    return variables | dict(environment or {})


def told_by_accelerate(words: list[str]) -> dict[str, str]:
    """What `accelerate launch` tells the processes that it starts with these words, by its own functions."""
    args = _validate_launch_command(launch_command_parser().parse_args([*words, "script.py"]))[0]
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ""
        environment = prepare_deepspeed_cmd_env(args)[1]
    elif args.multi_gpu or args.use_fsdp:
        environment = prepare_multi_gpu_env(args)
    else:
        environment = prepare_simple_launcher_cmd_env(args)[1]
    told = ("ACCELERATE_", "FSDP_", "MASTER_")
    return {name: value for name, value in environment.items() if name.startswith(told)}
