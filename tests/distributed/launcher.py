"""Starts a script on two processes of this machine. Not a test."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
LAUNCH_SECONDS = 180


def launch(script: Path, folder: Path, *names: str, seconds: float = LAUNCH_SECONDS) -> None:
    """Run a script on two processes, which find a free port for themselves."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    # accelerate's own switches would turn two ranks into two unrelated runs.
    environment = {name: value for name, value in environment.items() if not name.startswith("ACCELERATE_")}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    rendezvous = ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]
    command = [*launcher, *rendezvous, str(script), str(folder), *names]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()  # the launcher ends its ranks, which would wait for each other for ever
        process.communicate()
        raise
    assert process.returncode == 0, errors[-6000:]
