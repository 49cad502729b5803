"""Starts a script on two processes of this machine. Not a test."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from hf_unlearn.training.launch.start import find_config

TESTS = Path(__file__).resolve().parent.parent
LAUNCH_SECONDS = 180


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
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    # accelerate's own switches would turn two ranks into two unrelated runs.
    variables = {name: value for name, value in variables.items() if not name.startswith("ACCELERATE_")}
    variables |= environment or {}
    launcher = ["torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    launcher += ["--rdzv_endpoint", "localhost:0"]
    if config is not None:
        launcher = ["accelerate.commands.launch", "--config_file", str(find_config(config)), "--num_processes", "2"]
        launcher += ["--main_process_port", "0"]
    command = [sys.executable, "-m", *launcher, str(script), str(folder), *names]
    process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()  # the launcher ends its ranks, which would wait for each other for ever
        process.communicate()
        raise
    assert process.returncode == 0, errors[-12000:]
