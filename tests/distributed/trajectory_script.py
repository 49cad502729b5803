"""Runs whose trajectory no way of distributing them may change, started on each rank by a launcher. Not their tests.

    accelerate launch --config_file MODE.yaml --num_processes 2 --main_process_port 0 \
        trajectory_script.py FOLDER MODE [RUN ...]

MODE is one of MODES. The main process writes FOLDER/MODE/<run>.pt: its logs, its final weights, what was measured and
how it was distributed.
"""

import math
import os
import sys
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import datasets
import torch
import torch.distributed
from accelerate import DeepSpeedPlugin, PartialState
from accelerate.utils import DistributedType, gather_object
from peft import LoraConfig
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from fixtures.models import FORGET, HOLDOUT, RETAIN, make_trainer, step_logs, tiny_model, tiny_tokenizer, train_sets
from hf_unlearn.data.roles import Role
from hf_unlearn.evaluation import UnlearningEvalCallback, custom, evaluate
from hf_unlearn.losses import Loss
from hf_unlearn.model.sharding import is_partitioned

# mode -> ZeRO stage, of the packaged configs of these names
STAGES = {"zero1": 1, "zero2": 2, "zero3": 3}
MODES = ("ddp", *STAGES, "fsdp2")

# Rows of a whole optimizer step; each rank takes its share of them. Twelve rows: the second step of an epoch is half
# full, one micro-batch a rank.
ROWS_A_STEP = 8
MICRO_BATCHES = 2
STEPS = 4

# Seconds that a rank waits for the other in a collective that only one of them has entered.
DDP_TIMEOUT = 60

LORA = dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])

OBJECTIVES: dict[str, dict[str, Any]] = {
    "grad_diff": dict(forget_loss="grad_ascent", retain_loss="nll"),
    "npo_cached": dict(
        forget_loss="npo",
        retain_loss="nll",
        reference="precomputed",
        forget_nll_bound="holdout_quantiles",
        stop_retain_nll_increase=50.0,
    ),
    "npo_frozen": dict(forget_loss="npo", retain_loss="nll", reference="copy"),
    "npo_kl": dict(forget_loss="npo", retain_loss="kl", forget_nll_bound="log_vocab"),
}
# Levels are measured of a split model too, and by one that is split as it is.
PROFILES = {
    "grad_diff_full_checkpointing": "profile",
    "grad_diff_lora_checkpointing": "profile",
    "npo_kl_full_checkpointing": "ngram",
}
RUNS: dict[str, dict[str, Any]] = {
    f"{objective}_{'lora' if lora else 'full'}{'_checkpointing' * checkpointing}": OBJECTIVES[objective]
    | dict(lora=lora, activation_checkpointing=checkpointing)
    for objective, lora, checkpointing in product(OBJECTIVES, (False, True), (False, True))
} | {
    # A holdout row comes with every fourth forget row: the first of two ranks has none, and calls the reference too.
    f"anchored_{'lora' if lora else 'full'}": dict(
        forget_loss="simnpo", retain_loss="nll", anchor_loss="kl", anchor_ratio=0.25, lora=lora
    )
    for lora in (False, True)
}
# Micro-batches cut by tokens, of which one rank has another number than the other.
IN_PARTS = {
    "in_parts_full": dict(forget_loss="npo", retain_loss="kl", lora=False, max_tokens_per_batch=48),
    "in_parts_experts": dict(OBJECTIVES["grad_diff"], lora=False, model="mixtral", max_tokens_per_batch=48),
    # A part of forget rows alone reaches no weight above the layer.
    "in_parts_layers": dict(
        forget_loss={"name": "rmu", "layer": 1}, retain_loss="nll", lora=False, max_tokens_per_batch=48
    ),
}
RUNS |= IN_PARTS
PARTS_OF = {"ddp": "layers", "zero1": "experts", "zero2": "full", "zero3": "layers", "fsdp2": "experts"}
ANCHORED = {"ddp": ("anchored_full",), "zero3": ("anchored_lora",), "fsdp2": ("anchored_full",)}
for _names in set(ANCHORED.values()):
    # Levels that are estimated again on the model as it is, split or whole.
    RUNS[_names[0]] |= dict(levels="holdout", forget_nll_bound="levels", recalibrate_steps=2)
for _name, _source in PROFILES.items():
    # From both sides, over a ramp, with a rule that reads how near to the levels the rows are, and never fires.
    both = dict(forget_nll_bound="levels", forget_bound_sides="both", stop_at_level=1e-6)
    RUNS[_name] |= dict(levels=_source, forget_loss=[RUNS[_name]["forget_loss"], "unseen_level"], **both)
# Experts, whose router loss is that of all tokens of a step.
ROUTER = "router_full"
RUNS[ROUTER] = OBJECTIVES["grad_diff"] | dict(lora=False, model="mixtral")

# Under the random model they are spread wider than the forget rows, so that their quantiles bound some of those and
# not others. Seventeen in batches of four: the first of two ranks has one batch more than the other.
UNSEEN = [{"prompt": f"where is dog {i}?", "completion": f" {each * 4}"} for i, each in enumerate("abcdefghijklmnopq")]

# 25 distinct rows and 19 distinct prompts in batches of three: here too one rank is left with nothing to do.
EVALUATED_SETS = {"forget": FORGET[:11], "retain": [*RETAIN[:8], FORGET[0]], "holdout": HOLDOUT[:6]}

# A model and an adapter that are saved, resumed and evaluated.
SAVED = ("grad_diff_full", "grad_diff_lora")
RESUMED = {"resumed_full": "npo_cached_full", "resumed_lora": "npo_cached_lora"}
SHARDS = {"resumed_shards": "npo_cached_lora"}  # with checkpoints of shards, under FSDP2 alone
EVALUATED = {"evaluated_full": "grad_diff_full", "evaluated_lora": "grad_diff_lora"}


@dataclass(frozen=True)
class InfiniteOnOneRank(Loss):
    """Gradient ascent that is infinite on the second rank in the second step; its gradient stays as it is."""

    name, unit, on, formula = "infinite_on_one_rank", "token", Role.FORGET, "mean_t lp_t"

    def __post_init__(self) -> None:
        object.__setattr__(self, "calls", [])

    def __call__(self, scores: Any) -> torch.Tensor:
        self.calls.append(None)
        return scores.forget.logps + (math.inf if self.breaks else 0.0)

    @property
    def breaks(self) -> bool:
        """Whether it is the first micro-batch of the second step, on the second rank."""
        return len(self.calls) == MICRO_BATCHES + 1 and os.environ["RANK"] == "1"


@dataclass(frozen=True)
class BrokenGradientOnOneRank(InfiniteOnOneRank):
    """Gradient ascent whose gradient is not a number there, while its value stays as it is."""

    name = "broken_gradient_on_one_rank"

    def __call__(self, scores: Any) -> torch.Tensor:
        self.calls.append(None)
        logps = scores.forget.logps
        if self.breaks:
            logps.register_hook(lambda gradient: gradient * math.nan)
        return logps


BROKEN = {"broken_loss": InfiniteOnOneRank, "broken_gradient": BrokenGradientOnOneRank}
# A model without finite logits. It comes last: nothing is trained after a refusal.
REFUSED = ("refused",)


def chosen(mode: str) -> list[str]:
    """The RUNS of a mode: what is saved, and of the others a half in which every two choices meet.

    The two modes that shard the weights, ZeRO-3 and FSDP2, have one half each, as have those that do not.
    """
    half = MODES.index(mode) % 2
    crossed = [name for name in RUNS if name not in (ROUTER, *IN_PARTS) and not name.startswith("anchored")]
    factors = product(range(len(OBJECTIVES)), (0, 1), (0, 1))  # in the order of RUNS
    names = [name for name, each in zip(crossed, factors, strict=True) if name in SAVED or sum(each) % 2 == half]
    return [*names, *ANCHORED.get(mode, ()), f"in_parts_{PARTS_OF[mode]}", ROUTER]


def runs_of(mode: str) -> list[str]:
    """What a mode is launched for; other tests evaluate and resume under DDP, and ZeRO-1 differs from it by little."""
    if mode in ("ddp", "zero1"):
        return chosen(mode)
    shards = SHARDS if mode == "fsdp2" else ()
    return [*chosen(mode), *RESUMED, *EVALUATED, *shards, *BROKEN, *REFUSED]


def whole_weights(trainer: Any) -> dict[str, torch.Tensor]:
    """Every parameter by name, put together from its shards; the main process alone has them."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return {name: tensor.detach().clone() for name, tensor in (state or {}).items()}


def engaged(trainer: Any) -> dict[str, Any]:
    """How a run was really distributed, read from what ran and not from what was asked for."""
    wrapped = trainer.model_wrapped
    if trainer.is_deepspeed_enabled and wrapped.zero_optimization_stage() == 3:
        wrapped.empty_partition_cache()
        for each in wrapped.parameters():  # nothing is left of it but this rank's share
            assert each.numel() == 0 < each.ds_tensor.numel() < each.ds_numel
    return {
        "num_processes": trainer.accelerator.num_processes,
        "wrapped": type(wrapped).__name__,
        "deepspeed": trainer.is_deepspeed_enabled,
        "stage": wrapped.zero_optimization_stage() if trainer.is_deepspeed_enabled else None,
        "fsdp": trainer.is_fsdp_enabled,
        "sharded": all(isinstance(each, DTensor) for each in wrapped.parameters()),
        "partitioned": all(is_partitioned(each) for each in wrapped.parameters()),
    }


def measured(trainer: Any) -> dict[str, Any]:
    """What the run took from the model as it was before the first step."""
    bound = trainer.baseline.bound
    return {
        "bound": bound.tolist() if isinstance(bound, torch.Tensor) else bound,
        "retain_nll": trainer.baseline.retain_nll,
        "reference": {role.name.lower(): rows.logps.clone() for role, rows in trainer.reference._stored.items()},
    }


def prepared(folder: Path) -> None:
    """The models that runs start from, in folders, as sharded runs have to load them."""
    tiny_model("llama").save_pretrained(folder / "model")
    tiny_model("opt", seed=1).save_pretrained(folder / "profile")
    tiny_tokenizer().save_pretrained(folder / "profile")
    tiny_model("mixtral").save_pretrained(folder / "mixtral")
    overflowing = tiny_model("llama")
    overflowing.model.norm.weight.data.fill_(torch.finfo(torch.float32).max)
    overflowing.save_pretrained(folder / "overflowing")


def trainer_of(folder: Path, mode: str, **options: Any) -> Any:
    """A trainer of one of the RUNS, on a model in `folder`."""
    lora = options.pop("lora", False)
    if "levels" in options:
        options["reference_cache_dir"] = str(folder / mode / "levels")
    if options.get("levels") == "profile":
        options["levels"] = str(folder / "profile")
    processes = int(os.environ.get("WORLD_SIZE", 1))
    return make_trainer(
        folder / mode,
        str(folder / options.pop("model", "model")),
        sets=train_sets() | {"holdout": datasets.Dataset.from_list(UNSEEN)},
        peft_config=LoraConfig(**LORA) if lora else None,
        per_device_train_batch_size=ROWS_A_STEP // MICRO_BATCHES // processes,
        gradient_accumulation_steps=MICRO_BATCHES,
        per_device_eval_batch_size=4,
        use_cpu=mode != "fsdp2",  # accelerate does without FSDP on what it is told is a CPU
        ddp_timeout=DDP_TIMEOUT,
        hub_model_id=f"tester/{mode}-{'lora' if lora else 'full'}",
        **{"max_steps": STEPS} | options,
    )


def run(name: str, folder: Path, mode: str) -> dict[str, Any]:
    """Train one of the RUNS; what it gives must be the same in every mode."""
    own = {"output_dir": str(folder / mode / f"{name}_out")} if name in SAVED else {}
    trainer = trainer_of(folder, mode, **RUNS[name] | own)
    trainer.train()
    if name in SAVED:
        trainer.save_model(str(folder / mode / name))
        if "HF_ENDPOINT" in os.environ:  # a test Hub's
            trainer.push_to_hub()
    return {
        "logs": step_logs(trainer),
        "weights": whole_weights(trainer),
        "engaged": engaged(trainer),
        "measured": measured(trainer),
    }


def run_resumed(name: str, folder: Path, mode: str) -> dict[str, Any]:
    """One of the RESUMED, and the same again from its checkpoint of half the steps, with no cache to read."""
    if name in SHARDS:
        os.environ["FSDP_STATE_DICT_TYPE"] = "SHARDED_STATE_DICT"
    own = dict(optim="adamw_torch", learning_rate=1e-3, output_dir=str(folder / mode / name))
    options = RUNS[(RESUMED | SHARDS)[name]] | own
    whole = trainer_of(folder, mode, save_strategy="steps", save_steps=STEPS // 2, **options)
    whole.train()
    checkpoint = folder / mode / name / f"checkpoint-{STEPS // 2}"
    again = trainer_of(folder, mode, reference_cache_dir=str(folder / mode / f"{name}_reference"), **options)
    again.train(resume_from_checkpoint=str(checkpoint))
    if name in SHARDS:
        again.save_model()
    return {
        "logs": step_logs(whole),
        "resumed": step_logs(again),  # a checkpoint's state has the logs of the steps before it too
        "weights": whole_weights(again),
        "engaged": engaged(again),
        "measured": measured(whole),
        "measured_again": measured(again),
    }


def run_evaluated(name: str, folder: Path, mode: str) -> dict[str, Any]:
    """One of the EVALUATED with a suite at the end of the run and another evaluation after it."""
    suite = custom(**EVALUATED_SETS, max_new_tokens=6)
    kept: list[Any] = []
    keeping = replace(suite, measure=lambda evidence: kept.append(evidence) or suite.measure(evidence))
    trainer = trainer_of(
        folder,
        mode,
        **RUNS[EVALUATED[name]]
        | dict(
            callbacks=[UnlearningEvalCallback(suite)],
            eval_dataset={"forget": FORGET[:5], "retain": RETAIN[:7]},
            eval_strategy="steps",
            eval_steps=STEPS // 2,
        ),
    )
    trainer.train()
    result = evaluate(
        trainer.model,
        trainer.processing_class,
        keeping,
        batch_size=3,
        accelerator=trainer.accelerator,
        temperature=1.0,
        seed=7,
    )
    log = [entry for entry in trainer.state.log_history if any(key.startswith("eval_") for key in entry)]
    return {
        "engaged": engaged(trainer),
        "logs": step_logs(trainer),
        "evaluations": [{k: v for k, v in entry.items() if not _timing(k)} for entry in log],
        "metrics": {key: [each.value, each.n] for key, each in result.metrics.items()},
        "answers": {key: list(each.answers) for key, each in kept[0].answered.items()} if kept else None,
    }


class WeightsOfSteps(TrainerCallback):
    """The weights after each step."""

    def __init__(self) -> None:
        self.trainer: Any = None  # given when it is built
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.weights.append(whole_weights(self.trainer))


def run_broken(name: str, folder: Path, mode: str) -> dict[str, Any]:
    """A run whose second step is not finite on the second rank: the weights after each step, how every rank ends."""
    after = WeightsOfSteps()
    trainer = trainer_of(
        folder,
        mode,
        forget_loss=BROKEN[name](),
        retain_loss="nll",
        output_dir=str(folder / mode / name),
        save_strategy="steps",
        save_steps=100,
        callbacks=[after],
    )
    after.trainer = trainer
    trainer.train()
    trainer.save_model()
    return {
        "engaged": engaged(trainer),
        "weights": after.weights,
        "ranks": gather_object([(trainer.state.global_step, trainer.stop_reason)]),
    }


def run_refused(folder: Path, mode: str) -> dict[str, Any]:
    """What every rank says of a model without finite logits."""
    trainer = trainer_of(folder, mode, **OBJECTIVES["grad_diff"], model="overflowing")
    try:
        trainer.train()
    except ValueError as error:
        return {"ranks": gather_object([str(error)])}  # nothing was wrapped for training
    raise AssertionError("it was trained")


def _timing(name: str) -> bool:
    return "second" in name or "runtime" in name


def result(name: str, folder: Path, mode: str) -> dict[str, Any]:
    """What a run of any kind gives."""
    if name in RESUMED | SHARDS:
        return run_resumed(name, folder, mode)
    if name in EVALUATED:
        return run_evaluated(name, folder, mode)
    if name in BROKEN:
        return run_broken(name, folder, mode)
    return run_refused(folder, mode) if name in REFUSED else run(name, folder, mode)


def fsdp_on_cpu() -> None:
    """Let accelerate have FSDP2 on CPUs over gloo, where it would fall back to DDP; for these tests alone."""
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)


def split_small_parameters() -> None:
    """Let ZeRO-3 split parameters of every size, where it would leave all of a tiny model whole."""
    made = DeepSpeedPlugin.__post_init__

    def post_init(plugin: DeepSpeedPlugin) -> None:
        made(plugin)
        plugin.deepspeed_config["zero_optimization"]["stage3_param_persistence_threshold"] = 0

    DeepSpeedPlugin.__post_init__ = post_init


def without_compiling() -> None:
    """DeepSpeed on CPUs without the kernel that it would compile for them, a minute or two; gloo does the same."""
    import_module("deepspeed.comm.torch").build_shm_op = lambda: None


def main(folder: Path, mode: str, names: list[str]) -> None:
    if mode == "fsdp2":
        fsdp_on_cpu()
    if mode in STAGES:
        without_compiling()
    if mode == "zero3":
        split_small_parameters()
    (folder / mode).mkdir(exist_ok=True)
    for name in names or runs_of(mode):
        found = result(name, folder, mode)
        if int(os.environ["RANK"]) == 0:
            torch.save(found, folder / mode / f"{name}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
