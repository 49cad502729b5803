"""The Slurm script on two made-up nodes: a stub of srun starts a launcher for each, here. The training is real."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "slurm" / "unlearn.sbatch"

# As srun: its options, all written as --name=value, then the command, once a node.
SRUN = """#!/bin/bash
while [[ $1 == --*=* ]]; do echo "$1" >> "$STUBS/options"; shift; done
processes=()
for ((node = 0; node < SLURM_JOB_NUM_NODES; node++)); do
    SLURM_NODEID=$node "$@" > "$STUBS/node$node" 2>&1 & processes+=($!)
done
for process in "${processes[@]}"; do wait "$process" || exit 1; done
"""
SCONTROL = """#!/bin/bash
[[ $* == "show hostnames nodes[1-2]" ]] && printf 'localhost\\nother\\n'
"""
UNLEARN = """#!/bin/bash
exec "$PYTHON" -m hf_unlearn.cli "$@"
"""
SHOWN = """#!/bin/bash
printf '%s\\n' "$@"
"""


def run_script(
    folder: Path, nodes: int, *arguments: str, command: str, **variables: str
) -> subprocess.CompletedProcess:
    """Run the script's body with stubs on PATH."""
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "hf-unlearn": command}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE_", "SLURM_"))}
    environment = kept | {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(SCRIPT.parents[2]),
        "PYTHON": sys.executable,
        "STUBS": str(folder),
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_JOB_NODELIST": "nodes[1-2]",
        "SLURM_JOB_ID": "4711",
    }
    words = ["bash", str(SCRIPT), *arguments]
    return subprocess.run(words, env=environment | variables, capture_output=True, text=True, timeout=400, check=False)


def free_job_id() -> str:
    """A job whose port, 20000 + id, is free here."""
    for number in range(4711, 4811):
        with socket.socket() as tried:
            if tried.connect_ex(("localhost", 20000 + number)) != 0:
                return str(number)
    raise RuntimeError("no free port")


def options_of(folder: Path, node: int) -> dict[str, str]:
    """The words that a node's launcher got, by name."""
    words = (folder / f"node{node}").read_text().splitlines()
    assert words[0] == "train"
    return dict(zip(words[1::2], words[2::2], strict=True))


def test_bash_reads_the_script():
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


@pytest.mark.parametrize(("nodes", "gpus"), [(1, 8), (3, 4)])
def test_each_node_gets_one_launcher_that_knows_its_place(tmp_path, nodes, gpus):
    done = run_script(
        tmp_path, nodes, "fsdp2", "--config", "harmful_lab", "--output_dir", "a b",
        command=SHOWN, SLURM_GPUS_ON_NODE=str(gpus), SLURM_CPUS_PER_TASK="16",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"--ntasks={nodes}" in (tmp_path / "options").read_text().splitlines()
    for node in range(nodes):
        assert options_of(tmp_path, node) == {
            "--machine_rank": str(node),
            "--accelerate_config": "fsdp2",
            "--num_machines": str(nodes),
            "--num_processes": str(nodes * gpus),
            "--main_process_ip": "localhost",
            "--main_process_port": "24711",
            "--config": "harmful_lab",
            "--output_dir": "a b",
        }


def test_without_a_config_it_says_what_is_missing(tmp_path):
    done = run_script(tmp_path, 1, command=SHOWN)
    assert done.returncode != 0 and "the name of a config of accelerate comes first" in done.stderr


def test_a_node_that_fails_fails_the_job(tmp_path):
    done = run_script(tmp_path, 2, "ddp", command="#!/bin/bash\nexit $((SLURM_NODEID * 3))\n")
    assert done.returncode == 1


@pytest.mark.distributed
def test_two_nodes_train_one_model(tmp_path):
    """Two launchers on this machine, each with one process on the CPU, meet at the port of the job."""
    few = ["--max_steps", "2", "--limit", "24", "--measure", "false", "--report_to", "none", "--use_cpu"]
    done = run_script(
        tmp_path, 2, "ddp_two_nodes", "--config", "harmful_lab", "--output_dir", str(tmp_path / "run"), *few,
        command=UNLEARN, SLURM_JOB_ID=free_job_id(), PROCESSES_PER_NODE="1",
    )  # fmt: skip
    said = "".join((tmp_path / f"node{node}").read_text()[-3000:] for node in range(2))
    assert done.returncode == 0, said
    found = json.loads((tmp_path / "run/results.json").read_text())
    assert (found["hardware"]["processes"], found["hardware"]["strategy"]) == (2, "DDP")
    assert json.loads((tmp_path / "run/trainer_state.json").read_text())["global_step"] == 2
