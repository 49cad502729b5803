"""Fits a model with LoRA to what it is to forget later, merges the adapter and keeps the model in a folder."""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from ..data.prepare import RowOptions
from ..model.loading import load_tokenizer
from ..model.merging import merge
from ..results.hub.names import is_repository
from ..training.config import UnlearningConfig
from ..training.methods import Methods
from ..training.model_setup import load_model
from ..training.objective import build_objective
from ..training.train_sets import calibrated, tokenize_for
from .arguments import RunArguments
from .task import require_model

RECORD = "fit.json"  # written last: a folder that has it is whole
_COMPARED_ROWS, _COMPARED_TOKENS = 4, 64  # on which the merged model must be the fitted one


@dataclass
class FitArguments(RunArguments):
    """Arguments of the fit."""

    fit: bool = field(
        default=True,
        metadata={"help": "Fit the model to what is to be forgotten first; task privacy: only where it is asked for."},
    )
    fit_on_retain: bool = field(
        default=False, metadata={"help": "Fit on the rows to keep as well, so that the fit does not lose them."}
    )
    fit_epochs: float = field(default=3.0, metadata={"help": "Epochs of the fit."})
    fit_learning_rate: float = field(default=2e-4, metadata={"help": "Learning rate of the fit."})
    fit_warmup: float = field(default=0.0, metadata={"help": "Share of the fit's steps in which the rate rises."})
    fit_batch_size: int = field(default=2, metadata={"help": "Rows of a batch of the fit, on each device."})
    fit_lora_r: int = field(default=16, metadata={"help": "Rank of the fit's LoRA."})
    fit_lora_alpha: int = field(default=32, metadata={"help": "Alpha of the fit's LoRA."})
    fit_lora_dropout: float = field(default=0.05, metadata={"help": "Dropout of the fit's LoRA."})


def fit(
    name: str,
    script: FitArguments,
    args: UnlearningConfig,
    model: str,
    sets: Sequence[Dataset],
    revision: str | None,
    *,
    whole_text: bool = False,
) -> str:
    """The folder of a model that knows the rows of some sets. A finished fit of the same is kept.

    Args:
        name: of the folder, in the run's output folder.
        script: of the fit.
        args: of the run, for its precision, device and template.
        model: to start from.
        sets: rows with `prompt` and `completion`.
        revision: of the model.
        whole_text: whether prompts are learnt too, as those of a book that is read; otherwise what the labels of the
            run train: answers and their ends.
    """
    folder = (Path(args.output_dir) / name).absolute()  # an adapter's config names it, and is read from elsewhere
    tokenizer = load_tokenizer(model, revision, args.init_kwargs)
    rows = tokenized(tokenizer, args, sets, whole_text=whole_text)
    made_from = _made_from(script, args, model, revision, rows)
    if (folder / RECORD).is_file() and json.loads((folder / RECORD).read_text()) == made_from:
        return str(folder)
    if args.process_index == 0:
        (folder / RECORD).unlink(missing_ok=True)  # of another fit, whose weights are about to be replaced
    trainer = SFTTrainer(
        model=load_model(model, _whole(args)),
        args=_training_arguments(script, args, folder),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=script.fit_lora_r,
            lora_alpha=script.fit_lora_alpha,
            lora_dropout=script.fit_lora_dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    trainer.train()
    if trainer.is_world_process_zero():
        compared = [
            torch.tensor(ids[:_COMPARED_TOKENS]) for ids in trainer.train_dataset["input_ids"][:_COMPARED_ROWS]
        ]
        merge(trainer.accelerator.unwrap_model(trainer.model), compared).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / RECORD).write_text(json.dumps(made_from))
    trainer.accelerator.wait_for_everyone()
    return str(folder)


def described(model: str) -> tuple[str, str]:
    """What was fitted and its origin, for a record: an id, or a local model, whose path is nobody's business."""
    return (model, "hub") if is_repository(model) else ("a local model", "local")


def require_trainable(model: str, revision: str | None, args: UnlearningConfig, sets: Mapping[str, Dataset]) -> None:
    """Raise for what the trainer would refuse, before a fit that may take hours."""
    require_model(model)
    tokenizer = load_tokenizer(model, revision, args.init_kwargs)
    options = RowOptions(tokenizer, args.max_length, args.template, None, chat_template_kwargs=args.template_variables)
    methods = Methods.resolve(args)
    objective = build_objective(methods, args)
    tokenize_for(calibrated(dict(sets), args), None, objective, methods.wrappers, args, options)


def tokenized(
    tokenizer: PreTrainedTokenizerBase, args: UnlearningConfig, sets: Sequence[Dataset], *, whole_text: bool
) -> list[dict[str, list[int]]]:
    """Rows as token ids and labels, which SFTTrainer takes as they are: what the unlearning run will read."""
    options = RowOptions(tokenizer, args.max_length, args.template, None, chat_template_kwargs=args.template_variables)
    rows = [row for given in sets for row in options.tokenize(given.to_list(), "eval")]
    return [
        {"input_ids": row["input_ids"], "labels": row["input_ids"] if whole_text else row["labels"]} for row in rows
    ]


def _made_from(
    script: FitArguments, args: UnlearningConfig, model: str, revision: str | None, rows: list[dict[str, list[int]]]
) -> dict[str, Any]:
    """All that a fit depends on."""
    made_from = {name: value for name, value in asdict(script).items() if name.startswith("fit")}
    made_from |= {"model": model, "revision": revision, "max_length": args.max_length, "bf16": args.bf16}
    content = json.dumps(rows).encode()
    return made_from | {
        "processes": args.world_size,
        "seed": args.seed,
        "rows": hashlib.sha256(content).hexdigest(),
    }


def _whole(args: UnlearningConfig) -> UnlearningConfig:
    """The arguments without quantisation: what is learnt must be merged into whole weights."""
    whole = copy.copy(args)
    whole.model_init_kwargs = {n: value for n, value in args.init_kwargs.items() if n != "quantization_config"}
    return whole


def _training_arguments(script: FitArguments, args: UnlearningConfig, folder: Path) -> SFTConfig:
    return SFTConfig(
        output_dir=str(folder),
        num_train_epochs=script.fit_epochs,
        learning_rate=script.fit_learning_rate,
        per_device_train_batch_size=script.fit_batch_size,
        lr_scheduler_type="linear",
        warmup_steps=script.fit_warmup,
        max_length=args.max_length,
        bf16=args.bf16,
        use_cpu=args.use_cpu,
        activation_checkpointing=args.activation_checkpointing,
        dataloader_pin_memory=args.dataloader_pin_memory,
        seed=args.seed,
        save_strategy="no",
        report_to="none",
    )
