"""Several processes through `accelerate launch`, with packaged configs by name. It starts them and runs nothing."""

import subprocess
from importlib import resources
from pathlib import Path

import torch
from accelerate.commands.config import default_config_file
from accelerate.commands.launch import launch_command, launch_command_parser

from .errors import input_error, nearest

PACKAGED = Path(str(resources.files("hf_unlearn"))) / "configs"


def packaged_configs() -> list[str]:
    """Names of the packaged configs of accelerate."""
    return sorted(path.stem for path in PACKAGED.glob("*.yaml"))


def find_config(name: str) -> Path:
    """A config of accelerate by its path, or a packaged one by its name.

    Raises:
        ValueError: there is neither.
    """
    for path in (Path(name).expanduser(), PACKAGED / f"{name.removesuffix('.yaml')}.yaml"):
        if path.is_file():
            return path
    raise input_error(
        expected="--accelerate_config with a packaged name, or a YAML file of accelerate",
        got=f"{name!r}, which is neither",
        why="it says how many processes are started and how they share the model",
        fix=nearest(name, packaged_configs()),
    )


def has_accelerator() -> bool:
    """Whether there is a GPU or the like."""
    return bool(torch.accelerator.is_available())


def launch_processes(launch: dict[str, str], command: list[str]) -> int:
    """Run `hf-unlearn COMMAND` in the processes that a config of accelerate asks for.

    Args:
        launch: `accelerate_config`, and what else is accelerate's, by name. Several processes without a config: that
            of `accelerate config` where there is one, else ddp.
        command: the words after `hf-unlearn`.

    Returns:
        the exit status of the processes.
    """
    options = dict(launch)
    config = options.pop("accelerate_config", None)
    if config is None and options.get("num_processes", "1") != "1" and not Path(default_config_file).is_file():
        config = "ddp"  # without GPUs accelerate would start one process, and not say so
    words = [] if config is None else ["--config_file", str(find_config(config))]
    # A free port, so that two runs on one machine do not meet.
    for name, value in ({"main_process_port": "0"} | options).items():
        words += [f"--{name}", value]
    args = launch_command_parser().parse_args([*words, "--module", "hf_unlearn.cli", *command])
    try:
        launch_command(args)
    except subprocess.CalledProcessError as error:  # its processes have said why
        return error.returncode
    return 0
