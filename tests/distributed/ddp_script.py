"""Short runs that must not depend on the number of processes, started on each rank by a launcher. Not their tests.

    torchrun --nproc_per_node 2 ddp_script.py FOLDER RUN [RUN ...]

Every rank writes FOLDER/<run>-<world size>-<rank>.pt: its logs, final weights, the rows it saw and its evaluation.
"""

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from accelerate import PartialState
from peft import LoraConfig

from fixtures.models import make_trainer, perturbed, step_logs, tiny_model, train_sets, weights
from hf_unlearn import UnlearningTrainer, cli
from hf_unlearn.data import Role
from hf_unlearn.model.score_rows import RowScorer
from hf_unlearn.training.checkpoints import lock

LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])

# Rows of a whole optimizer step; each rank takes its share of them. The second step of an epoch of twelve rows is half
# full: one micro-batch a rank. Were it less, accelerate would fill it with the first rows again, and two processes
# would differ from one.
ROWS_A_STEP = 8

# Seconds that a rank waits for the other in a collective that only one of them has entered.
DDP_TIMEOUT = 15

RUNS: dict[str, dict[str, Any]] = {
    "npo_kl_lora": dict(forget_loss="npo", retain_loss="kl", peft_config=LORA, forget_nll_bound="holdout"),
    "grad_ascent_nll_full": dict(forget_loss="grad_ascent", retain_loss="nll", kind="opt", retain_ratio=2),
    "npo_kl_copy": dict(forget_loss="npo", retain_loss="kl", given_reference=True),
    "npo_kl_checkpointing": dict(
        forget_loss="npo",
        retain_loss="kl",
        peft_config=LORA,
        activation_checkpointing=True,
    ),
    "npo_kl_reentrant": dict(
        forget_loss="npo",
        retain_loss="kl",
        peft_config=LORA,
        activation_checkpointing=True,
        activation_checkpointing_kwargs={"use_reentrant": True},
    ),
    # One row a micro-batch: half of them hold no retain row, on one rank while the other has one.
    "no_retain_row_on_a_rank": dict(
        forget_loss="npo", retain_loss="kl", peft_config=LORA, retain_ratio=0.5, accumulation=4
    ),
    "dpo_two_epochs": dict(forget_loss="dpo", retain_loss="nll", max_steps=4),
    # A model of its own on every rank, until that of the first is everyone's, as DDP has it.
    "npo_kl_other_weights": dict(
        forget_loss="npo", retain_loss="kl", reference="copy", forget_nll_bound="holdout", other_weights=True
    ),
}

# A run on the command line of one step, of a model that does not know the rows.
ARGUMENTS = ["--task", "custom", "--max_steps", "1", "--per_device_train_batch_size", "2", "--report_to", "none"]
ARGUMENTS += ["--use_cpu", "--disable_tqdm", "true", "--max_new_tokens", "4", "--logging_steps", "1"]


class RecordingTrainer(UnlearningTrainer):
    """Keeps which forget and retain rows each step of this rank was computed on."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        for role, seen in self.seen.items():
            seen += inputs["row"][inputs["role"] == role].tolist()
        return super().compute_loss(model, inputs, *args, **kwargs)


def run(name: str, folder: Path, world_size: int) -> dict[str, Any]:
    """Train and evaluate one of the RUNS; what it gives must be the same for every world size."""
    options = dict(RUNS[name])
    kind, accumulation = options.pop("kind", "llama"), options.pop("accumulation", 2)
    model = tiny_model(kind)
    sets = train_sets()
    if options.pop("other_weights", False) and os.environ.get("RANK") == "1":
        model = perturbed(model, scale=0.2)
    if options.pop("given_reference", False):
        options["ref_model"] = perturbed(model)
    trainer = make_trainer(
        folder / f"{name}-{world_size}",
        model,
        trainer_class=RecordingTrainer,
        per_device_train_batch_size=ROWS_A_STEP // accumulation // world_size,
        gradient_accumulation_steps=accumulation,
        per_device_eval_batch_size=4,  # eleven rows: neither batches nor ranks come out even
        eval_dataset={"forget": sets["forget"].select(range(11)), "retain": sets["retain"].select(range(7))},
        ddp_timeout=DDP_TIMEOUT,
        **{"max_steps": 3} | options,
    )
    assert trainer.accelerator.num_processes == trainer.args.world_size == world_size
    trainer.seen = {Role.FORGET: [], Role.RETAIN: []}
    trainer.train()
    return {
        "num_processes": trainer.accelerator.num_processes,
        "wrapped": type(trainer.model_wrapped).__name__,
        "logs": step_logs(trainer),
        "weights": weights(trainer.model),
        "seen": {role.name.lower(): rows for role, rows in trainer.seen.items()},
        "metrics": {
            key: value for key, value in trainer.evaluate().items() if "second" not in key and "runtime" not in key
        },
    }


def run_cache(folder: Path, world_size: int) -> dict[str, Any]:
    """Two trainers with one cache: how often each had rows scored, and the files that there are after them."""
    scored: list[str] = []
    original = RowScorer.__call__

    def counted(self: RowScorer, model: Any, rows: Any, description: str) -> Any:
        scored.append(description)
        return original(self, model, rows, description)

    RowScorer.__call__ = counted
    calls, logs = [], []
    for _ in range(2):
        trainer = make_trainer(
            folder / "cache", tiny_model(), per_device_train_batch_size=4, forget_loss="dpo", ddp_timeout=DDP_TIMEOUT
        )
        trainer.train()
        calls.append(len(scored))
        logs.append(step_logs(trainer))
        trainer.accelerator.wait_for_everyone()
    RowScorer.__call__ = original
    files = sorted(path.name for path in (folder / "cache" / "reference").iterdir())
    return {"num_processes": trainer.accelerator.num_processes, "calls": calls, "files": files, "logs": logs}


def arguments(folder: Path) -> list[str]:
    """Of a run on the command line, on the model and rows in a folder."""
    sets = [f"--{side}_dataset={folder / side}.jsonl" for side in ("forget", "retain")]
    return [*ARGUMENTS, *sets, "--model_name_or_path", str(folder / "model"), "--output_dir", str(folder / "command")]


def run_command(*words: str) -> dict[str, Any]:
    """What `hf-unlearn` ends with on this rank, and what it says."""
    cli._SECONDS_TO_TELL = 0.0  # no launcher ends this process
    processes = PartialState().num_processes  # a run ends its process group
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = cli.main([*words])
    return {"num_processes": processes, "status": status, "said": said.getvalue()}


def run_locked(folder: Path) -> dict[str, Any]:
    """The refusal of a folder that another process trains into."""
    lock._PATIENCE = 0.1
    trainer = make_trainer(folder / "locked", tiny_model(), per_device_train_batch_size=4, ddp_timeout=DDP_TIMEOUT)
    refusals = []
    for call in (trainer.train, trainer.save_model):
        try:
            call()
        except ValueError as error:
            refusals.append(str(error))
    return {"num_processes": trainer.accelerator.num_processes, "refusals": refusals}


def result(name: str, folder: Path, world_size: int) -> dict[str, Any]:
    """What a run of any kind gives."""
    others = {
        "cache": lambda: run_cache(folder, world_size),
        "locked": lambda: run_locked(folder),
        "stopped": lambda: run_command("train", *arguments(folder)),
        "forced": lambda: run_command("train", *arguments(folder), "--force", "true"),
    }
    return others[name]() if name in others else run(name, folder, world_size)


def main(folder: Path, names: list[str]) -> None:
    # The world size is the launcher's: ranks that know nothing of each other fail the check in `run`.
    world_size, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    for name in names:
        torch.save(result(name, folder, world_size), folder / f"{name}-{world_size}-{rank}.pt")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
