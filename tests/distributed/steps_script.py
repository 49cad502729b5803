"""Short runs inside step wrappers and of hidden states, started on each rank by a launcher. Not their tests.

    torchrun --nproc_per_node 2 steps_script.py FOLDER RUN [RUN ...]

Every rank writes FOLDER/<run>-<world size>-<rank>.pt: its logs, its final weights and the target of its RMU.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from peft import LoraConfig

from fixtures.models import make_trainer, step_logs, tiny_model, weights
from hf_unlearn.losses import RMU

LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])

# Rows of a whole optimizer step; each rank takes its share of them. Twelve rows: the second step is half full.
ROWS_A_STEP = 8

# Seconds that a rank waits for the other in a collective that only one of them has entered.
DDP_TIMEOUT = 15

SAM = {"name": "sam", "rho": 0.05}
ATTACK = {"name": "latent_adversarial", "epsilon": 0.7, "steps": 2}
WAGLE = {"name": "saliency", "score": "wagle", "keep": 0.3}
SMOOTHING = {"name": "random_smoothing", "sigma": 0.01, "samples": 2}
PRIMAL_DUAL = {"name": "primal_dual", "eta": 0.2, "epsilon": 1.0}
# Nothing reads log-probs, so what lies above the layer gets no gradient; with a bound they are read all the same.
HIDDEN: dict[str, Any] = dict(forget_loss={"name": "rmu", "c": 3.0}, retain_loss="hidden", learning_rate=0.5)

RUNS: dict[str, dict[str, Any]] = {
    "sam": dict(step_wrappers=SAM),
    "surgery": dict(step_wrappers="surgery"),
    "saliency": dict(step_wrappers=WAGLE),
    "smoothing": dict(step_wrappers=SMOOTHING),
    "attack": dict(step_wrappers=ATTACK),
    "primal_dual": dict(weighting=PRIMAL_DUAL),
    # One row a micro-batch: half of them hold no retain row, on one rank while the other has one.
    "all": dict(
        step_wrappers=[SAM, "surgery", WAGLE, ATTACK, "weight_averaging"],
        weighting=PRIMAL_DUAL,
        peft_config=LORA,
        retain_ratio=0.5,
        accumulation=4,
        learning_rate=0.1,
    ),
    "sam_reentrant": dict(
        step_wrappers=SAM,
        peft_config=LORA,
        activation_checkpointing=True,
        activation_checkpointing_kwargs={"use_reentrant": True},
        learning_rate=0.1,
    ),
    # A rank sees half of the rows, and the distance to the levels is that of all of them.
    "levels": dict(
        forget_loss=[{"name": "unseen_level", "token_weight": 0.3}, "grad_ascent"],
        levels="ngram",
        forget_nll_bound="levels",
        forget_bound_sides="both",
        stop_at_level=1e-6,
        step_wrappers=[SAM, "surgery"],
    ),
    "rmu": HIDDEN,
    "rmu_bound": HIDDEN | dict(forget_nll_bound=5.85),
    "rmu_lora": HIDDEN | dict(peft_config=LORA),
    "rmu_sam": HIDDEN | dict(step_wrappers=[SAM, "surgery"]),
    "rmu_checkpointing": HIDDEN | dict(activation_checkpointing=True),
    "rmu_lora_checkpointing": HIDDEN | dict(activation_checkpointing=True, peft_config=LORA),
}


def run(name: str, folder: Path, world_size: int) -> dict[str, Any]:
    """Train one of the RUNS; what it gives must be the same for every world size."""
    options = dict(RUNS[name])
    accumulation = options.pop("accumulation", 2)
    trainer = make_trainer(
        folder / f"{name}-{world_size}",
        # In fp64 sums over ranks agree to many digits, and OPT's norms are in fp64 too.
        tiny_model("opt").double(),
        per_device_train_batch_size=ROWS_A_STEP // accumulation // world_size,
        gradient_accumulation_steps=accumulation,
        ddp_timeout=DDP_TIMEOUT,
        **{"max_steps": 3, "forget_loss": "grad_ascent", "learning_rate": 0.01} | options,
    )
    assert trainer.accelerator.num_processes == trainer.args.world_size == world_size
    start = weights(trainer.model)
    trainer.train()
    targets = [term.target(32) for term in trainer.unlearning_objective.forget if isinstance(term, RMU)]
    return {
        "num_processes": trainer.accelerator.num_processes,
        "wrapped": type(trainer.model_wrapped).__name__,
        "logs": step_logs(trainer),
        "start": start,
        "weights": weights(trainer.model),
        "targets": targets,
    }


def main(folder: Path, names: list[str]) -> None:
    # The world size is the launcher's: ranks that know nothing of each other fail the check in `run`.
    world_size, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    for name in names:
        torch.save(run(name, folder, world_size), folder / f"{name}-{world_size}-{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
