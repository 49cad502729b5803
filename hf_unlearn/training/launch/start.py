"""Starts several processes through `accelerate launch`, with packaged configs by name."""

import subprocess
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate.commands.config import default_config_file
from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from ...errors import input_error, nearest, value_error

PACKAGED = Path(str(resources.files("hf_unlearn.training.launch"))) / "configs"


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
    if config is None and _asks_for_several(options) and not Path(default_config_file).is_file():
        config = "ddp"  # without GPUs accelerate would start one process, and not say so
    path = Path(default_config_file) if config is None else find_config(config)
    for name in ("num_processes", "num_machines"):
        if name in options and not (options[name].isdecimal() and int(options[name])):
            raise value_error(f"--{name}", "a whole number of at least 1", options[name])
    options = _machine_options(options, _read_config(path) if path.is_file() else {})
    words = [] if config is None else ["--config_file", str(path)]
    for name, value in options.items():
        words += [f"--{name}", value]
    args = launch_command_parser().parse_args([*words, "--module", "hf_unlearn.cli", *command])
    try:
        launch_command(args)
    except SignalException as error:  # Ctrl-C, or a scheduler that ends the run: its processes have been told
        return 128 + int(error.sigval)
    except (subprocess.CalledProcessError, ChildFailedError) as error:  # its processes have said why
        status = error.get_first_failure()[1].exitcode if isinstance(error, ChildFailedError) else error.returncode
        return status if status > 0 else 128 - status  # as a shell says that a signal ended it
    return 0


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        config = type(error)
    if isinstance(config, dict):
        return config
    raise input_error(
        expected=f"{path.name} to hold a configuration of accelerate, a line `name: value` each",
        got="YAML of another shape" if not isinstance(config, type) else f"text that is no YAML ({config.__name__})",
        why="it says how many processes are started and how they share the model",
        fix=f"make it with `accelerate config`, or use one of: {', '.join(packaged_configs())}",
    )


def _asks_for_several(options: Mapping[str, str]) -> bool:
    return any(options.get(name, "1") != "1" for name in ("num_processes", "num_machines"))


def _machine_options(options: dict[str, str], config: Mapping[str, Any]) -> dict[str, str]:
    """The options with what several machines need of them, which differs from what one machine does.

    Raises:
        ValueError: several machines without a rank, an address and a port to meet at, or with unlike shares.
    """

    def value(name: str) -> Any:
        return options.get(name, config.get(name))

    machines = int(value("num_machines") or 1)
    if machines == 1:
        # A free port, so that two runs on one machine do not meet.
        return {"main_process_port": "0"} | options
    missing = [f"--{name}" for name in ("machine_rank", "main_process_ip", "main_process_port") if value(name) is None]
    if str(value("main_process_port")) == "0":
        missing.append("a --main_process_port other than 0")
    if missing:
        raise input_error(
            expected=f"{machines} machines that can find each other",
            got=f"no {', no '.join(missing)}".replace("no a ", "no "),
            why="each would wait for the others; a free port that one machine picks is unknown to the rest",
            fix="on every machine: --machine_rank (0 on the first), --main_process_ip (of the first, the same on all) "
            "and --main_process_port (a free one there, such as 29500)",
        )
    processes = int(value("num_processes") or machines)
    if processes % machines:
        raise input_error(
            expected=f"--num_processes of all {machines} machines together, as many on each",
            got=str(processes),
            why="accelerate would round it down and start fewer",
            fix=f"pass {processes // machines * machines} or {(processes // machines + 1) * machines}",
        )
    launcher = {"deepspeed_multinode_launcher": "standard"}
    given = (config.get("deepspeed_config") or {}).get("deepspeed_multinode_launcher")
    # Without it DeepSpeed's own launcher goes to the other machines by ssh, from each of them.
    return options if config.get("distributed_type") != "DEEPSPEED" or given else launcher | options
