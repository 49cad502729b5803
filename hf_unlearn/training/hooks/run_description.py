"""What a run is made of, as its record says it: model, sets, objective, hardware, arguments, versions."""

import dataclasses
import functools
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from ...component import Component
from ...data.digests import set_digest
from ...data.pairing import is_stream
from ...data.prepare import TrainSets
from ...evaluation.judges.judge import source_name
from ...losses import Loss
from ...plugins import plugin_source
from ...results.hub.names import is_repository
from ...results.record import (
    RECORD_FILE,
    ComponentRecord,
    ModelRecord,
    ObjectiveRecord,
    RunRecord,
    SetRecord,
    TermRecord,
    load_record,
)
from ...version import __version__
from ..baseline import Baseline
from ..config import UnlearningConfig
from ..distributed_setup import DistributedSetup
from ..methods import Methods
from ..objective import Objective
from .trainer_view import TrainerView

_LIBRARIES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "deepspeed")
# Arguments that say where things lie or who runs them, not what is done.
_PRIVATE = ("hub_model_id", "run_name", "logging_dir", "resume_from_checkpoint", "trackio_space_id", "project")
# Derived by TrainingArguments itself, or shown elsewhere in the record.
_DERIVED = (
    "forget_loss",
    "retain_loss",
    "anchor_loss",
    "step_wrappers",
    "weighting",
    "seed",
    "local_rank",
    "accelerator_config",
)
_OLD_NAMES = ("gradient_checkpointing", "gradient_checkpointing_kwargs")  # copied into activation_checkpointing
_PACKAGE = __name__.partition(".")[0]
_ADAPTER_FACTS = ("r", "lora_alpha", "lora_dropout", "use_dora", "use_rslora", "target_modules", "modules_to_save")


def describe_run(record: RunRecord, trainer: TrainerView, model_name: str | None) -> None:
    """Put into a record what is known before the first step; what was measured since is the observer's.

    Args:
        record: of the run.
        trainer: as it is now.
        model_name: what the model was loaded by, None for a model in memory.
    """
    args, baseline = trainer.args, trainer.baseline
    record.name = record.name or Path(args.output_dir).absolute().name
    record.model = describe_model(trainer.model, model_name, args.init_kwargs.get("revision"), record.model)
    record.objective = describe_objective(trainer.unlearning_objective, trainer.methods, args, baseline)
    record.reference = str(trainer.reference.plan)
    record.hardware = describe_hardware(trainer.distributed, args.device)
    record.holdout_nll = None if baseline is None else baseline.holdout_nll
    record.levels = None if baseline is None or baseline.levels is None else baseline.levels.quality
    record.seed, record.arguments, record.versions = args.seed, changed_arguments(args), {**_installed()}
    if trainer.train_sets is not None and args.should_save:
        count_rows(record.sets, trainer.train_sets)


def describe_model(
    model: PreTrainedModel | PeftModel, name: str | None, revision: str | None, known: ModelRecord
) -> ModelRecord:
    """The model as the trainer has it.

    Args:
        model: unwrapped.
        name: what it was loaded by, None for a model in memory.
        revision: what it was loaded at.
        known: what the record says already: an id or an origin that was filled in by hand stays.
    """
    adapter = model.active_peft_config if isinstance(model, PeftModel) else None
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    # A model that was loaded by the user knows its own name; one made in memory has an empty one.
    name = name or getattr(base.config, "_name_or_path", None) or None
    repository, earlier_run = name is not None and is_repository(name), _earlier_run(name) or known.earlier_run
    if known.origin != "local":
        name, repository = known.id, known.origin == "hub"
    frozen = [weight for weight in base.parameters() if not weight.requires_grad] or list(base.parameters())
    return ModelRecord(
        id=name if repository or known.origin == "lab" else None,
        origin="hub" if repository else known.origin,
        revision=(revision or known.revision) if repository else None,
        architecture=type(base).__name__,
        parameters=_count(model.parameters()),
        trained=_count(weight for weight in model.parameters() if weight.requires_grad),
        dtype=str(frozen[0].dtype).removeprefix("torch."),
        adapter=None if adapter is None else _adapter(adapter),
        vocabulary=known.vocabulary,
        resized=known.resized,
        start=known.start,
        earlier_run=earlier_run,
        fitted_from=known.fitted_from,
        fitted_origin=known.fitted_origin,
    )


def _earlier_run(name: str | None) -> str | None:
    """The name of the run in whose folder a model lies, or None."""
    if name is None or not (Path(name) / RECORD_FILE).is_file():
        return None
    return load_record(name).name or "without a name"


def _count(weights: Iterable[Tensor]) -> int:
    # Under ZeRO-3 a weight's own storage is empty, and its size stands beside it.
    return sum(getattr(weight, "ds_numel", weight.numel()) for weight in weights)


def _adapter(config: PeftConfig) -> dict[str, Any]:
    facts: dict[str, Any] = {"kind": str(getattr(config.peft_type, "value", config.peft_type))}
    for fact in _ADAPTER_FACTS:
        value = getattr(config, fact, None)
        if value:
            # "all-linear" comes back as every module by its whole name.
            leaves = {module.rpartition(".")[2] for module in value} if isinstance(value, set | list) else value
            facts[fact] = sorted(leaves) if isinstance(leaves, set) else leaves
    return facts


def count_rows(records: dict[str, SetRecord], tokenized: TrainSets) -> None:
    """Fill in how many rows each training set has, and the hash of their tokens; drop sets that no loss read."""
    for role in list(records):
        rows = getattr(tokenized, role)
        if role == "retain" and rows is None:
            rows = tokenized.counted
        if rows is None:
            del records[role]
        elif records[role].sha256 is None and not is_stream(rows):
            records[role].rows, records[role].sha256 = len(rows), set_digest(rows)


def describe_objective(
    objective: Objective, methods: Methods, args: UnlearningConfig, baseline: Baseline | None
) -> ObjectiveRecord:
    """Terms with their numbers, how they are weighted, what wraps a step, and where rows stop pushing."""
    sides = {"forget": objective.forget, "retain": objective.retain, "anchor": objective.anchor}
    return ObjectiveRecord(
        terms=[_term(side, term) for side, terms in sides.items() for term in terms],
        forget_weight=objective.forget_weight,
        retain_weight=objective.retain_weight,
        anchor_weight=objective.anchor_weight,
        weighting=describe_component(methods.weighting),
        step_wrappers=[describe_component(wrapper) for wrapper in methods.wrappers],
        optimizer=str(getattr(args.optim, "value", args.optim)),
        bound=_bound(args, baseline),
    )


def describe_component(component: Component) -> ComponentRecord:
    """Name, arguments, formula and paper of a component, and the package of a plugin's; of a folder its last part."""
    given = {name: value for name, value in dataclasses.asdict(component).items() if name != "weight"}
    arguments = {
        name: source_name(value) if isinstance(value, str) and Path(value).is_dir() else value
        for name, value in given.items()
    }
    if type(component).__module__.partition(".")[0] == _PACKAGE:
        return ComponentRecord(component.name, arguments, component.formula, component.paper)
    source = plugin_source(type(component))
    if source is not None:
        origin = {"package": source.package, "version": source.version, "module": source.module}
        return ComponentRecord(component.name, arguments, component.formula, component.paper, **origin)
    # A class of the user's own may have inherited a name, a formula and a paper that are not its.
    own = {name: vars(type(component)).get(name, "") for name in ("formula", "paper")}
    return ComponentRecord(component.name, arguments, **own, own=type(component).__name__)


def _term(side: str, term: Loss) -> TermRecord:
    return TermRecord(**dataclasses.asdict(describe_component(term)), side=side, weight=term.weight)


def _bound(args: UnlearningConfig, baseline: Baseline | None) -> dict[str, Any]:
    if args.forget_nll_bound is None:
        return {"setting": None}
    bound: dict[str, Any] = {"setting": args.forget_nll_bound}
    if args.forget_bound_sides == "both":
        bound["sides"] = "both"
    level = None if baseline is None else baseline.bound
    if isinstance(level, Tensor):
        bound |= {"low": float(level.min()), "high": float(level.max())}
    elif level is not None:
        bound["nats"] = float(level)
    return bound


def describe_hardware(distributed: DistributedSetup, device: torch.device) -> dict[str, Any]:
    """What the run computes on, and how the work is shared."""
    return {
        "device": device_name(device),
        "cores": os.cpu_count(),
        "processes": distributed.processes,
        "strategy": distributed.strategy,
        "precision": "as loaded" if distributed.precision == "no" else f"{distributed.precision} mixed",
        "platform": platform.system(),
    }


def device_name(device: torch.device) -> str:
    """What a record calls a device: the GPU's own name, the processor's architecture, else its type."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU" if device.type == "cpu" else device.type


def peak_memory_mb() -> float:
    """Peak memory of this process: allocated on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource  # not on Windows

    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes on macOS, in kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def changed_arguments(args: UnlearningConfig) -> dict[str, Any]:
    """The arguments that differ from the defaults, without those that name a path, a token or an account."""
    values = args.to_dict()
    changed = {}
    for argument in dataclasses.fields(args):
        name = argument.name
        value = values.get(name)
        if name in (*_DERIVED, *_OLD_NAMES, *_PRIVATE) or name.endswith("_dir") or "token" in name:
            continue
        if isinstance(value, Mapping):  # the Hub's own word for "none was asked for"
            value = {key: inner for key, inner in value.items() if (key, inner) != ("revision", "main")}
        if _same(value, _default(argument)) or _private(value):
            continue
        changed[name] = value
    return changed


def _default(field: dataclasses.Field) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return None if field.default_factory is dataclasses.MISSING else field.default_factory()


def _same(value: Any, default: Any) -> bool:
    default = getattr(default, "value", default)
    nothing: tuple[Any, ...] = (None, False, "", "none", [], {})  # TrainingArguments turns one into another
    return value == default or str(value) == str(default) or (value in nothing and default in nothing)


def _private(value: Any) -> bool:
    """Whether a value, or one inside of it, names a path of this machine or holds a token."""
    if isinstance(value, Mapping):
        return any("token" in str(name) or _private(inner) for name, inner in value.items())
    if isinstance(value, list | tuple | set):
        return any(_private(inner) for inner in value)
    return isinstance(value, str) and is_path(value)


def is_path(text: str) -> bool:
    """Whether a text reads like a path, or is one here."""
    if "\n" in text or len(text) > 255:
        return False
    return text.startswith(("/", "~", "./", "../")) or "\\" in text or Path(text).exists()


@functools.cache
def _installed() -> Mapping[str, str]:
    """Of this package, Python and the libraries that are installed: each is a file to parse, and none changes."""
    installed = {"hf_unlearn": __version__, "python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            installed[library] = version(library)
        except PackageNotFoundError:  # deepspeed is optional
            continue
    return installed
