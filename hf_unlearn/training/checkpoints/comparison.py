"""Compares a checkpoint with the run that is about to go on from it: what must agree, and what may have changed."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from peft import PeftConfig

from ...results.adapter_config import ADAPTER_CONFIG, read_adapter_config
from ...results.record import ComponentRecord, ObjectiveRecord, RunRecord, SetRecord

# Arguments of UnlearningConfig that a resumed run may change: what is logged, measured, saved and pushed, where and on
# what it is computed, and when it ends. All others decide what a step does, those that are yet to come too.
_MAY_CHANGE = re.compile(
    r"(log|logging|eval|save|hub|report|push|dataloader|ddp|fsdp|torch_compile|activation_checkpointing|stop|include"
    r"|max|num_train|disable|skip|load_best|metric_for|greater|do|trackio|reference_cache|dataset|torch_empty)_\w+"
    r"|project|run_name|debug|deepspeed|accelerator_config|parallelism_config|use_cpu|use_liger_kernel"
    r"|liger_kernel_config|batch_eval_metrics|prediction_loss_only|per_device_eval_batch_size|auto_find_batch_size"
    r"|plugins|resume_from_checkpoint|restore_callback_states_from_checkpoint|ignore_data_skip|full_determinism"
    r"|bf16_full_eval|fp16_full_eval|tf32|reference|reference_load_in_8bit|model_init_kwargs|push_to_hub"
)
_DECIDES = ("max_grad_norm", "max_length", "disable_dropout")  # in spite of their first word
_LENGTH = ("max_steps", "num_train_epochs")
_BATCH = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}  # with Trainer's defaults
# Keys of an adapter's configuration that say where it lies, what it is used for or what made it.
_ADAPTER_PLACE = (
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_version",
    "revision",
    "task_type",
    "runtime_config",
    "loftq_config",
)

Difference = tuple[str, Any, Any]


def differences(saved: RunRecord, present: RunRecord, *, any_batch: bool = False) -> list[Difference]:
    """What a checkpoint's record and the run's disagree on that decides what a step does: (name, then, now).

    Args:
        saved: of the checkpoint.
        present: of the run, as it would be saved.
        any_batch: whether the batch size is the trainer's to choose (`auto_find_batch_size`).
    """
    return [
        (name, then, now)
        for name, then, now in _compared(saved, present, any_batch)
        if then is not None and now is not None and then != now
    ]


def in_words(changed: list[Difference]) -> tuple[str, str]:
    """What was then and what is now, each in a line."""

    def line(values: Iterable[tuple[str, Any]]) -> str:
        return "; ".join(f"{name}: {v if isinstance(v, str) else json.dumps(v)}" for name, v in values)

    return line((name, then) for name, then, _ in changed), line((name, now) for name, _, now in changed)


def changed_length(saved: RunRecord, present: RunRecord) -> list[Difference]:
    """What has changed of the length of the run, which its schedule follows."""
    pairs = [(name, saved.arguments.get(name), present.arguments.get(name)) for name in _LENGTH]
    return [pair for pair in pairs if pair[1] != pair[2]]


def _compared(saved: RunRecord, present: RunRecord, any_batch: bool) -> Iterator[Difference]:
    for role in sorted({*saved.sets, *present.sets}):
        if role not in saved.sets or role not in present.sets:
            yield f"{role} rows", _whether(saved.sets.get(role)), _whether(present.sets.get(role))
            continue
        name = f"{role} rows (or what made them tokens: tokenizer, template, max_length)"
        yield name, _hash(saved.sets[role]), _hash(present.sets[role])
    yield from _objective(saved, present)
    # FSDP puts its name before a class that it has wrapped, which the present one is not yet.
    class_then, class_now = (record.model.architecture.removeprefix("FSDP") for record in (saved, present))
    yield "the model's class", class_then, class_now
    yield "the number of its parameters", saved.model.parameters, present.model.parameters
    yield "the number that is trained", saved.model.trained, present.model.trained
    yield "the model", saved.model.id, present.model.id
    yield "seed", saved.seed, present.seed
    for name in sorted({*saved.arguments, *present.arguments} - {*_BATCH, *_LENGTH}):
        if name in _DECIDES or not _MAY_CHANGE.fullmatch(name):
            yield name, saved.arguments.get(name, "the default"), present.arguments.get(name, "the default")
    if not any_batch:
        yield "rows in an optimizer step (batch size x accumulation x processes)", _rows(saved), _rows(present)


def _objective(saved: RunRecord, present: RunRecord) -> Iterator[Difference]:
    then, now = saved.objective, present.objective
    for side in ("forget", "retain"):
        # Formula and paper are words about a loss, and may be put better in a later version.
        yield f"{side}_loss", _terms(then, side), _terms(now, side)
        name = f"{side}_weight"
        yield name, getattr(then, name), getattr(now, name)
    yield "weighting", _method(then.weighting), _method(now.weighting)
    yield "step_wrappers", _wrappers(then), _wrappers(now)
    yield "optim", then.optimizer, now.optimizer
    yield "forget_nll_bound", str(then.bound.get("setting")), str(now.bound.get("setting"))


def _hash(rows: SetRecord) -> str | None:
    """In words; None for a stream, which has no hash and is not compared."""
    return None if rows.sha256 is None else f"{rows.rows} rows with hash {rows.sha256[:12]}"


def _terms(objective: ObjectiveRecord, side: str) -> list[dict[str, Any]]:
    return [_method(term) | {"weight": term.weight} for term in objective.terms if term.side == side]


def _wrappers(objective: ObjectiveRecord) -> list[dict[str, Any]]:
    return sorted(map(_method, objective.step_wrappers), key=lambda wrapper: wrapper["name"])


def _method(component: ComponentRecord) -> dict[str, Any]:
    own = {} if component.own is None else {"class": component.own}
    return {"name": component.name, **component.arguments, **own}


def _rows(record: RunRecord) -> int:
    rows = int(record.hardware.get("processes", 1))
    for name, default in _BATCH.items():
        rows *= int(record.arguments.get(name, default))
    return rows


def adapter_differences(folder: Path, present: Mapping[str, PeftConfig]) -> list[Difference]:
    """What an adapter's configuration in a checkpoint and the run's disagree on.

    Args:
        folder: of the checkpoint.
        present: the run's adapters by name; empty where all weights are trained.
    """
    file = folder / ADAPTER_CONFIG
    if not file.is_file() or "default" not in present:
        whole = not file.is_file() and not present
        named = bool(present) and "default" not in present  # in folders of their own, by their names
        return [] if whole or named else [("adapter", _whether(file.is_file() or None), _whether(present or None))]
    then, now = read_adapter_config(folder), present["default"].to_dict()
    return [
        (f"{name} of the adapter", then[name], _plain(now[name]))
        for name in sorted(then.keys() & now.keys() - {*_ADAPTER_PLACE})
        if _plain(then[name]) != _plain(now[name])
    ]


def _whether(part: object) -> str:
    return "none" if part is None else "some"


def _plain(value: Any) -> Any:
    """As JSON gives it back; sets have no order."""
    if isinstance(value, set | list | tuple) and all(isinstance(item, str) for item in value):
        return sorted(value)
    return json.loads(json.dumps(value, default=str))
