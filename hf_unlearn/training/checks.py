"""Arguments of the trainer that cannot be honoured together, refused before anything is loaded or tokenised."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from peft import PeftModel
from transformers import IntervalStrategy, PreTrainedTokenizerBase, TrainingArguments
from transformers.integrations import get_available_reporting_integrations

from ..component import TrainingSetup, require_supported
from ..data.batch import missing_keys, missing_roles
from ..data.collator import DataCollatorForUnlearning, RowCollator, in_role_order
from ..data.pairing import is_stream
from ..data.prepare import TrainSets
from ..data.roles import Role
from ..data.tokenization import check_tokenizer
from ..data.tokenized_row import trained_ids
from ..errors import input_error
from ..model.loading import load_tokenizer
from .baseline import needs_holdout
from .config import UnlearningConfig
from .distributed_setup import DistributedSetup
from .methods import Methods
from .step.checks import require_wrapped_optimizer


def require_config(args: Any, compute_loss_func: Callable[..., Any] | None) -> UnlearningConfig:
    """The arguments as an UnlearningConfig that one process can honour."""
    if compute_loss_func is not None:
        raise input_error(
            expected="no compute_loss_func",
            got=getattr(compute_loss_func, "__name__", "a function"),
            why="the loss is computed from forget_loss and retain_loss, and the function would never be called",
            fix="write it as a hf_unlearn.losses.Loss (one small class) and pass it as forget_loss or retain_loss",
        )
    if not isinstance(args, UnlearningConfig):
        kind = "TrainingArguments" if isinstance(args, TrainingArguments) else type(args).__name__
        raise input_error(
            expected="args=UnlearningConfig(output_dir=..., ...)",
            got=kind,
            why="it says what to forget with and what to keep",
            fix="replace TrainingArguments by hf_unlearn.UnlearningConfig; it takes the same arguments and more",
        )
    if args.fp16 and args.device.type == "cpu":
        raise input_error(
            expected="fp16=True on a GPU",
            got="a run on the CPU",
            why="mixed fp16 does not exist there, and Trainer would train in fp32 without a word",
            fix="leave fp16 out, or pass bf16=True",
        )
    if args.device.type == "cpu" and (args.activation_checkpointing_kwargs or {}).get("offload"):
        raise input_error(
            expected="activation_checkpointing_kwargs={'offload': True} on a GPU",
            got="a run on the CPU",
            why="it moves activations to the memory of the host, where they are already",
            fix="leave offload out",
        )
    if args.n_gpu > 1:
        raise input_error(
            expected="one process per GPU",
            got=f"one process with {args.n_gpu} GPUs, which Trainer would drive with nn.DataParallel",
            why="DataParallel cuts a batch by rows and would part forget rows from their retain rows",
            fix="start it with `accelerate launch script.py`, or set CUDA_VISIBLE_DEVICES=0",
        )
    missing = [name for name in args.report_to or [] if name not in get_available_reporting_integrations()]
    if missing:
        raise input_error(
            expected="report_to to name what is installed",
            got=repr(missing[0]),
            why="the figures of the run would reach nobody",
            fix=f"install it (pip install {missing[0]}), or use one of: "
            + (", ".join(get_available_reporting_integrations()) or "none"),
        )
    parallelism = args.parallelism_config
    if parallelism is not None and (parallelism.cp_enabled or parallelism.sp_enabled or parallelism.tp_enabled):
        raise input_error(
            expected="data parallelism (DDP, ZeRO or FSDP)",
            got="context, sequence or tensor parallelism",
            why="answer tokens of one row would lie on several ranks, and their counts would be wrong",
            fix="leave parallelism_config out",
        )
    return args


def require_tokenizer(
    processing_class: Any, model_name: str | None, args: UnlearningConfig
) -> PreTrainedTokenizerBase:
    """The tokenizer, loaded beside the model when that is a name; with padding and end-of-text tokens."""
    if processing_class is None and model_name is not None:
        given = args.init_kwargs
        processing_class = load_tokenizer(model_name, given.get("revision"), given)
    if not isinstance(processing_class, PreTrainedTokenizerBase):
        raise input_error(
            expected="processing_class=tokenizer",
            got=type(processing_class).__name__,
            why="rows are tokenised and padded with it",
            fix="pass AutoTokenizer.from_pretrained(...) of the model",
        )
    check_tokenizer(processing_class)
    return processing_class


def require_rule_rows(args: UnlearningConfig, sets: TrainSets | None, eval_dataset: Any) -> None:
    """Raise when a stop rule would never see the number that it waits for."""
    rules = {"forget": "stop_forget_nll", "retain": "stop_retain_nll_increase"}
    if args.stop_at_level is not None and args.logging_strategy == "no":
        raise input_error(
            expected="steps that are logged, for stop_at_level",
            got="logging_strategy='no'",
            why="the distance of the rows to their levels is looked at when it is logged, so it would never fire",
            fix="set logging_strategy='steps'",
        )
    evaluated = eval_dataset if isinstance(eval_dataset, Mapping) and args.eval_strategy != "no" else {}
    trained = () if sets is None else tuple(name for name in rules if getattr(sets, name) is not None)
    for name, argument in rules.items():
        logged = name in trained and args.logging_strategy != "no"
        if getattr(args, argument) is not None and name not in evaluated and not logged:
            raise input_error(
                expected=f"{name} rows whose NLL is logged or evaluated during training, for {argument}",
                got=f"logging_strategy={IntervalStrategy(args.logging_strategy).value!r}, "
                f"eval_strategy={IntervalStrategy(args.eval_strategy).value!r} "
                f"and {'' if name in trained else 'no '}{name} rows to train on",
                why="there is no number to watch, and the rule would never fire",
                fix=f"log steps, or set eval_strategy='epoch' with eval_dataset={{{name!r}: ...}}",
            )


def require_best_metric(args: UnlearningConfig, eval_dataset: Any) -> None:
    """Raise when the best model is to be chosen by a loss that several evaluation sets do not have."""
    metric = str(args.metric_for_best_model).removeprefix("eval_")
    if isinstance(eval_dataset, Mapping) and metric in ("loss", "nll", "probability"):
        names = ", ".join(f"eval_{name}_{metric}" for name in eval_dataset)
        raise input_error(
            expected=f"metric_for_best_model to name one of the evaluation sets ({names})",
            got=repr(args.metric_for_best_model),
            why="the run would end with a KeyError at its first evaluation",
            fix=f"pass metric_for_best_model={names.split(', ')[-1]!r}",
        )


_SIXTEEN_BITS = (torch.bfloat16, torch.float16)


def require_setup(args: UnlearningConfig, methods: Methods, model: Any, distributed: DistributedSetup) -> None:
    """Raise for losses and step wrappers that do not work in the setup of the run, and for what wrappers cannot share.

    Args:
        args: of the run.
        methods: its losses, step wrappers and weighting.
        model: unwrapped.
        distributed: how the run is spread over processes.
    """
    if args.auto_padding_free and (args.padding_free or distributed.deepspeed or distributed.fsdp):
        raise input_error(
            expected="auto_padding_free without padding_free, in one process or under ddp",
            got="padding_free=True" if args.padding_free else distributed.strategy,
            why="it sets padding_free" if args.padding_free else "the time of a rank there is that of the slowest",
            fix="leave auto_padding_free out, and set padding_free=True for flash attention",
        )
    checkpointing = args.activation_checkpointing_kwargs or {}
    setups = {
        TrainingSetup.LORA: isinstance(model, PeftModel),
        TrainingSetup.CACHED_REFERENCE: args.reference == "precomputed",
        TrainingSetup.SIXTEEN_BITS: any(p.requires_grad and p.dtype in _SIXTEEN_BITS for p in model.parameters()),
        TrainingSetup.REENTRANT: bool(args.activation_checkpointing and checkpointing.get("use_reentrant")),
    }
    holding = {setup for setup, holds in setups.items() if holds} | distributed.training_setups
    require_supported(methods.components, holding)
    require_wrapped_optimizer(args, methods.wrappers)


def require_readable_streams(args: UnlearningConfig, sets: TrainSets, eval_dataset: Any) -> None:
    """Raise when a run of streams would need what only a set with a length has."""
    guarded = eval_dataset["retain"] if isinstance(eval_dataset, Mapping) and "retain" in eval_dataset else sets.retain
    ranked = args.forget_nll_bound == "holdout_quantiles"
    for rows, wanted, name, why in (
        (sets.holdout, needs_holdout(args), "holdout", "the level of unseen data is the mean over all of it"),
        (sets.forget, ranked, "forget", "every forget row needs its rank"),
        (guarded, args.stop_retain_nll_increase is not None, "retain", "its NLL is measured before training"),
    ):
        if wanted and is_stream(rows):
            fix = "pass it as a datasets.Dataset"
            raise input_error(expected=f"the {name} set with a length", got="a stream", why=why, fix=fix)
    if not sets.stream:
        return
    by_length = args.train_sampling_strategy in ("group_by_length", "batch_rebalance")
    for name, broken, instead, why in (
        ("dataloader_num_workers", args.dataloader_num_workers > 1, "0 or 1", "each worker would read all rows"),
        ("train_sampling_strategy", by_length, "'random'", "a stream comes in its own order and cannot be sorted"),
        ("max_length", args.max_length is None, "a number", "no row of a stream can be looked at before it comes"),
    ):
        if broken:
            raise input_error(
                expected=f"{name} to be {instead} for streams",
                got=repr(getattr(args, name)),
                why=why,
                fix=f"change {name}, or pass the sets as datasets.Dataset",
            )


def paired_collator(collator: Callable[..., Any], train_dataset: Any) -> Callable[..., Any]:
    """A user's collator as one of paired items: itself where it makes roles, else wrapped so that it pads their rows.

    Args:
        collator: of paired items (its batches have roles) or of plain rows (as plain Trainer calls it).
        train_dataset: paired; the collator is tried on its first item. None: nothing is paired and nothing tried.

    Raises:
        ValueError: it is neither, or it changes the rows that it is given.
    """
    if train_dataset is None or isinstance(collator, DataCollatorForUnlearning):
        return collator
    item = _item_of_all_rows(train_dataset)
    batch = _tried(collator, item)
    if batch is not None and not missing_keys(batch):
        if item.get("anchor") and Role.HOLDOUT not in batch["role"]:
            raise missing_roles("batches without the holdout rows of their items (`anchor`), which anchor_loss reads")
        return collator
    wanted = [trained_ids(row["labels"]) for _, _, row in in_role_order([item])]
    # One that makes labels itself stumbles over those of the rows, once these differ in length.
    own = RowCollator(collator, makes_labels=True)
    batch = _tried(own, item)
    if batch is not None and not missing_keys(batch) and batch["labels"] is not None and _kept(batch) == wanted:
        return own
    wrapped = RowCollator(collator)
    batch = _tried(wrapped, item)
    name = type(collator).__name__
    if batch is None or missing_keys(batch):
        raise missing_roles(f"{name}, which makes neither roles nor a padded batch of plain rows")
    if _kept(batch) != wanted:
        raise input_error(
            expected="a data_collator that keeps the labels of the rows it pads",
            got=f"{name}, which changes them",
            why="prompt tokens would be trained, or end-of-text tokens masked",
            fix="leave data_collator out, or pass DataCollatorForSeq2Seq(tokenizer)",
        )
    return wrapped


def _item_of_all_rows(train_dataset: Any) -> dict[str, Any]:
    """The first item that has holdout rows, where there are any: with anchor_ratio below 1 not all of them have."""
    first = next(iter(train_dataset))
    if "anchor" not in first:
        return first
    return next(item for item in train_dataset if item["anchor"])


def pads_left(collate: Callable[..., Any], train_dataset: Any) -> bool:
    """Whether a collator of paired items puts padding in front of the shorter of two rows; False without rows."""
    if train_dataset is None:
        return False
    item = next(iter(train_dataset))
    shorter = item | {name: item[name][1:] for name in ("input_ids", "labels")}
    batch = collate([item, shorter])
    return not bool(torch.as_tensor(batch["attention_mask"])[:, 0].all())


def _kept(batch: Mapping[str, Any]) -> list[list[int]]:
    return [trained_ids(labels) for labels in batch["labels"].tolist()]


def _tried(collator: Callable[..., Any], item: dict[str, Any]) -> Mapping[str, Any] | None:
    """What a collator makes of an item, or None where it fails; its own message may quote the row and is dropped."""
    try:
        return collator([item])
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return None
