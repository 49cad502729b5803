"""Small runs in forked processes that are killed, or run out of disk, and what came of them."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common.sharded_on_cpu import fsdp_on_cpu, without_compiling
from benchmarks.common.synthetic import Sizes, make_model, make_rows, make_tokenizer
from hf_unlearn import UnlearningConfig, UnlearningTrainer
from hf_unlearn.training.checkpoints.mark import checkpoints_in
from hf_unlearn.training.checkpoints.moves import UNFINISHED

SIZES = Sizes(vocabulary=128, hidden=64, layers=2, shortest=6, longest=12)
STEPS, SAVED_EVERY, KEPT = 9, 2, 2  # the last save is of the last step alone; rotation has work to do
PATIENCE = 120.0  # seconds after which a process that should have ended is a failure

# Prepares a run's process before it trains; what it returns is called when the run has ended.
Arm = Callable[[UnlearningTrainer], Callable[[], None] | None]


@dataclass(frozen=True)
class Setup:
    """A run: its method, how many processes, full parameters or LoRA, and how they share the model.

    Attributes:
        sharding: a key of SHARDING; None for a whole model on each rank.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    lora: bool = False
    ranks: int = 1
    sharding: str | None = None

    @property
    def title(self) -> str:
        """For people."""
        shared = "" if self.sharding is None else f" of {self.sharding}"
        ranks = f"{self.ranks} {'rank' if self.ranks == 1 else 'ranks'}"
        return f"{self.name}, {'LoRA' if self.lora else 'full'}, {ranks}{shared}"


METHODS: dict[str, dict[str, Any]] = {
    "npo": {},
    "saliency": {"step_wrappers": {"name": "saliency", "keep": 0.3}},
    "weight averaging": {"step_wrappers": "weight_averaging"},
    "primal-dual, SAM": {"weighting": {"name": "primal_dual", "eta": 0.5, "epsilon": 4.0}, "step_wrappers": "sam"},
    "random smoothing": {"step_wrappers": "random_smoothing"},
}
SETUPS = [
    Setup(name, arguments, lora, ranks)
    for ranks in (1, 2)
    for name, arguments in METHODS.items()
    for lora in (False, True)
]


def _zero(stage: int) -> dict[str, Any]:
    zero = {"stage": stage, "stage3_gather_16bit_weights_on_model_save": True}
    zero["stage3_param_persistence_threshold"] = 0  # or all of a small model would stay whole
    batch = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    return {"deepspeed": {"zero_optimization": zero, **dict.fromkeys(batch, "auto")}}


def _fsdp(kind: str) -> dict[str, Any]:
    return {"fsdp": True, "fsdp_config": {"version": 2, "state_dict_type": kind}, "use_cpu": False}


SHARDING = {
    "ZeRO-2": _zero(2),
    "ZeRO-3": _zero(3),
    "FSDP2": _fsdp("FULL_STATE_DICT"),
    "FSDP2 with sharded states": _fsdp("SHARDED_STATE_DICT"),
}
SHARDED_SETUPS = [Setup("npo", {}, lora, 2, sharding) for sharding in SHARDING for lora in (False, True)]


def train(setup: Setup, folder: Path, resume: bool, arm: Arm | None) -> None:
    """One run of a setup to its end, as a script would have it."""
    if setup.sharding is not None:
        fsdp_on_cpu() if setup.sharding.startswith("FSDP") else without_compiling()
    trainer = UnlearningTrainer(
        model=make_model(SIZES, setup.lora),
        args=UnlearningConfig(
            output_dir=str(folder / "out"),
            reference_cache_dir=str(folder / "reference"),
            per_device_train_batch_size=2 // setup.ranks,
            max_steps=STEPS,
            save_strategy="steps",
            save_steps=SAVED_EVERY,
            save_total_limit=KEPT,
            learning_rate=1e-3,
            forget_nll_bound=None,  # a random model gives its rows the level of a uniform guess, the default bound
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            **{"use_cpu": True, **SHARDING.get(setup.sharding or "", {}), **setup.arguments},
        ),
        train_dataset={"forget": make_rows(SIZES, 6, 1), "retain": make_rows(SIZES, 8, 2)},
        processing_class=make_tokenizer(SIZES.vocabulary),
    )
    at_end = None if arm is None else arm(trainer)
    trainer.train(resume_from_checkpoint=resume or None)
    trainer.save_model()
    trainer.end()
    if at_end is not None:
        at_end()


def start(setup: Setup, folder: Path, *, resume: bool = False, arm: Arm | None = None) -> list[int]:
    """Fork the processes of a run; their output goes to a file in its folder. Gives their ids."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [_forked(setup, folder, resume, arm, rank, port) for rank in range(setup.ranks)]


def _forked(setup: Setup, folder: Path, resume: bool, arm: Arm | None, rank: int, port: int) -> int:
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        with (folder / f"rank{rank}.log").open("a", buffering=1, encoding="utf-8") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            if setup.ranks > 1:
                place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": setup.ranks, "LOCAL_WORLD_SIZE": setup.ranks}
                os.environ |= {name: str(value) for name, value in place.items()}
                os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
            train(setup, folder, resume, arm)
            status = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)  # not the parent's own end


def wait(processes: list[int], seconds: float = PATIENCE) -> list[int]:
    """The exit status of each process of a run; as under torchrun, one that fails takes the others with it."""
    ends, statuses = time.monotonic() + seconds, dict[int, int]()
    while len(statuses) < len(processes):
        for process in processes:
            if process not in statuses:
                ended, status = os.waitpid(process, os.WNOHANG)
                statuses |= {process: os.waitstatus_to_exitcode(status)} if ended else {}
        if any(statuses.values()) or time.monotonic() > ends:
            kill([process for process in processes if process not in statuses])
        time.sleep(0.002)
    return [statuses[process] for process in processes]


def kill(processes: list[int]) -> None:
    """SIGKILL, which no process can answer."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def result_of(folder: Path) -> dict[str, Any]:
    """What a finished run has come to: hash of its weights, and its log without times."""
    out = folder / "out"
    weights = next(out.glob("*model.safetensors"))
    log = json.loads((out / "results.json").read_text(encoding="utf-8"))["log"]
    steps = [{name: v for name, v in entry.items() if "second" not in name} for entry in log if "grad_norm" in entry]
    return {"weights": hashlib.sha256(weights.read_bytes()).hexdigest(), "log": steps}


def go_on(setup: Setup, folder: Path) -> str:
    """Go on with a run that was ended, or begin it anew where it has saved nothing yet; say which."""
    resume = bool(checkpoints_in(folder / "out"))
    statuses = wait(start(setup, folder, resume=resume))
    if any(statuses):
        return f"failed with {statuses}"
    left = [path.name for path in (folder / "out").iterdir() if path.name == UNFINISHED or ".json." in path.name]
    return f"left {left} behind" if left else "resumed" if resume else "begun anew"
