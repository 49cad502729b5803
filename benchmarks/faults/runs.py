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

from benchmarks.common.synthetic import Sizes, make_model, make_rows, make_tokenizer
from hf_unlearn import UnlearningConfig, UnlearningTrainer
from hf_unlearn.training.checkpoints.mark import checkpoints_in
from hf_unlearn.training.checkpoints.moves import UNFINISHED

SIZES = Sizes(vocabulary=128, hidden=64, layers=2, shortest=6, longest=12)
STEPS, SAVED_EVERY, KEPT = 9, 2, 2  # the last save is of the last step alone; rotation has work to do
PATIENCE = 120.0  # seconds after which a process that should have ended is a failure

Arm = Callable[[UnlearningTrainer], None]


@dataclass(frozen=True)
class Setup:
    """A run: its method, how many processes, full parameters or LoRA."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    lora: bool = False
    ranks: int = 1

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.name}, {'LoRA' if self.lora else 'full'}, {self.ranks} {'rank' if self.ranks == 1 else 'ranks'}"


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


def train(setup: Setup, folder: Path, resume: bool, arm: Arm | None) -> None:
    """One run of a setup to its end, as a script would have it."""
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
            use_cpu=True,
            **setup.arguments,
        ),
        train_dataset={"forget": make_rows(SIZES, 6, 1), "retain": make_rows(SIZES, 8, 2)},
        processing_class=make_tokenizer(SIZES.vocabulary),
    )
    if arm is not None:
        arm(trainer)
    trainer.train(resume_from_checkpoint=resume or None)
    trainer.save_model()
    trainer.end()


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
