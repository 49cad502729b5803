"""Packaged configs of accelerate as its own loader reads them, and what one and several machines are started with."""

import argparse
import subprocess
from signal import SIGHUP, SIGINT, SIGTERM
from typing import Any, NoReturn

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from fixtures.examples import assert_four_parts
from hf_unlearn.training.launch.start import PACKAGED, launch_processes, packaged_configs

TWO_NODES = [name for name in packaged_configs() if name.endswith("_two_nodes")]
MACHINES = {"machine_rank": "1", "main_process_ip": "10.0.0.1"}


@pytest.fixture
def launched(monkeypatch) -> list[argparse.Namespace]:
    """What accelerate was given, and nothing was started."""
    given: list[argparse.Namespace] = []
    monkeypatch.setattr("hf_unlearn.training.launch.start.launch_command", given.append)
    return given


def engaged(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments once accelerate has laid its config under them."""
    return _validate_launch_command(args)[0]


def refused(options: dict[str, str]) -> str:
    with pytest.raises(ValueError) as error:
        launch_processes(options, ["train"])
    return str(error.value)


@pytest.mark.parametrize("name", packaged_configs())
def test_accelerate_reads_every_packaged_config_and_knows_each_of_its_keys(name):
    """Keys of a section are checked by nobody in accelerate: a misspelt one would be dropped."""
    text = (PACKAGED / f"{name}.yaml").read_text(encoding="utf-8")
    written: dict[str, Any] = yaml.safe_load(text)
    config = load_config_from_file(str(PACKAGED / f"{name}.yaml"))  # refuses unknown keys of the first level
    assert text.startswith("# ") and config.mixed_precision == "no"  # the recipe's decides
    kind = {"ddp": "MULTI_GPU", "fsdp2": "FSDP"}.get(name.split("_")[0], "DEEPSPEED")
    assert config.distributed_type.value == written["distributed_type"] == kind
    known = {action.dest for action in launch_command_parser()._actions}
    for section in ("deepspeed_config", "fsdp_config"):
        assert set(written.get(section, {})) <= known
    # Both are arguments with a default of their own, which wins over the file: written there they do nothing.
    assert not {"rdzv_backend", "same_network"} & set(written)
    if kind == "DEEPSPEED":
        assert config.deepspeed_config["zero_stage"] == int(name.split("_")[0][-1])
    if kind == "FSDP":
        assert config.fsdp_config["fsdp_version"] == 2


def test_zero3_offload_is_zero3_in_the_memory_of_the_cpu():
    plain, offload = (yaml.safe_load((PACKAGED / f"{n}.yaml").read_text()) for n in ("zero3", "zero3_offload"))
    moved = {"offload_optimizer_device": "cpu", "offload_param_device": "cpu"}
    assert offload == plain | {"deepspeed_config": plain["deepspeed_config"] | moved}
    assert plain["deepspeed_config"]["offload_optimizer_device"] == "none"


@pytest.mark.parametrize("name", TWO_NODES)
def test_a_config_of_two_nodes_is_that_of_one_with_more_machines(name):
    one, two = (yaml.safe_load((PACKAGED / f"{n}.yaml").read_text()) for n in (name.split("_")[0], name))
    more = {"num_machines": 2, "num_processes": 16, "main_process_port": 29500}
    if "deepspeed_config" in one:
        one["deepspeed_config"] |= {"deepspeed_multinode_launcher": "standard"}
    assert two == one | more


def test_there_are_examples_of_two_nodes():
    assert TWO_NODES == ["ddp_two_nodes", "fsdp2_two_nodes", "zero3_two_nodes"]


@pytest.mark.parametrize("name", TWO_NODES)
def test_two_machines_get_rank_address_port_and_their_share(launched, name):
    assert launch_processes({"accelerate_config": name, "num_processes": "4", **MACHINES}, ["train"]) == 0
    args = engaged(launched[0])
    assert (args.num_machines, args.machine_rank, args.main_process_ip) == (2, 1, "10.0.0.1")
    assert (args.num_processes, args.main_process_port) == (4, 29500)
    if name.startswith("zero3"):
        assert args.deepspeed_multinode_launcher == "standard" and args.use_deepspeed


def test_any_config_serves_several_machines(launched):
    options = {"num_machines": "4", "num_processes": "8", "main_process_port": "29501", **MACHINES}
    launch_processes({"accelerate_config": "zero2", **options}, ["train"])
    launch_processes(options, ["train"])  # ddp
    first, second = (engaged(args) for args in launched)
    assert first.deepspeed_multinode_launcher == "standard" and first.zero_stage == 2
    assert second.multi_gpu and second.deepspeed_multinode_launcher is None
    for args in (first, second):
        assert (args.num_machines, args.num_processes, args.main_process_port) == (4, 8, 29501)


def test_a_launcher_of_deepspeed_that_a_config_names_is_kept(launched, tmp_path):
    own = yaml.safe_load((PACKAGED / "zero3_two_nodes.yaml").read_text())
    own["deepspeed_config"]["deepspeed_multinode_launcher"] = "nossh"
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own | {"machine_rank": 0, "main_process_ip": "10.0.0.1"}))
    launch_processes({"accelerate_config": str(tmp_path / "own.yaml")}, ["train"])
    args = engaged(launched[0])
    assert args.deepspeed_multinode_launcher == "nossh"
    assert (args.machine_rank, args.main_process_ip, args.num_processes) == (0, "10.0.0.1", 16)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"accelerate_config": "ddp_two_nodes"}, ["2 machines", "no --machine_rank, no --main_process_ip."]),
        ({"accelerate_config": "ddp_two_nodes", "machine_rank": "0"}, ["no --main_process_ip."]),
        ({"num_machines": "3", **MACHINES}, ["3 machines", "no --main_process_port."]),
        ({"accelerate_config": "zero3_two_nodes", "main_process_port": "0", **MACHINES}, ["other than 0"]),
        ({"accelerate_config": "fsdp2_two_nodes", "num_processes": "7", **MACHINES}, ["Got: 7.", "pass 6 or 8"]),
    ],
)
def test_machines_that_would_not_find_each_other_or_lose_a_process_are_refused(launched, options, words):
    assert_four_parts(refused(options), *words)
    assert launched == []


def test_one_machine_takes_a_free_port_or_the_one_that_is_named(launched):
    launch_processes({"accelerate_config": "ddp"}, ["train"])
    launch_processes({"accelerate_config": "ddp", "main_process_port": "29501"}, ["train"])
    launch_processes({"accelerate_config": "ddp_two_nodes", "num_machines": "1"}, ["train"])
    assert [args.main_process_port for args in launched] == [0, 29501, 0]


@pytest.mark.parametrize(("exitcode", "status"), [(2, 2), (1, 1), (-9, 137)])
def test_the_status_of_the_first_process_that_failed_is_handed_on(monkeypatch, exitcode, status):
    """torch's launcher and accelerate's own for one process say it in two ways; a signal is told as by a shell."""
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=exitcode, error_file="")
    for error in (ChildFailedError("python", {0: failure}), subprocess.CalledProcessError(exitcode, "python")):

        def fail(args: argparse.Namespace, error: Exception = error) -> NoReturn:
            raise error

        monkeypatch.setattr("hf_unlearn.training.launch.start.launch_command", fail)
        assert launch_processes({"num_processes": "2"}, ["train"]) == status


@pytest.mark.parametrize(("ended_by", "status"), [(SIGINT, 130), (SIGTERM, 143), (SIGHUP, 129)])
def test_a_signal_to_the_launcher_is_told_as_by_a_shell(monkeypatch, ended_by, status):
    """Ctrl-C, a scheduler, a terminal that is closed: torch's launcher has told its processes."""

    def fail(args: argparse.Namespace) -> NoReturn:
        raise SignalException("a signal", sigval=ended_by)

    monkeypatch.setattr("hf_unlearn.training.launch.start.launch_command", fail)
    assert launch_processes({"num_processes": "2"}, ["train"]) == status
