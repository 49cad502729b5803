"""`train_judge`: a judge trained on labelled comments and measured on held-out ones."""

import json
import math
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from torch import Tensor
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from ...errors import input_error
from ...metrics.result import MetricResult
from ...results.terminal import terminal_table
from .comments import THRESHOLD, Comments, heldout_figures, read_comments, split_comments
from .judge import CONFIG_RECORD, HarmfulnessJudge, doubtful, source_name
from .model import base_model, new_model

RECORD = "judge.json"
# (epochs, learning rate): the paper's for a base model; a model from nothing needs more of both.
_BASE_SCHEDULE = (5, 5e-5)
_SCRATCH_SCHEDULE = (8, 2e-3)
_WARMUP_SHARE = 0.1
_SCHEDULED = ("epochs", "learning_rate")  # None takes them from the schedule
# Argument, its types, whether a value is in range, and the same in words.
_RANGES: tuple[tuple[str, Any, Callable[[Any], bool], str], ...] = (
    ("epochs", int, lambda value: value >= 1, "an integer of at least 1"),
    ("learning_rate", int | float, lambda value: 0 < value < math.inf, "a number above 0"),
    ("max_length", int, lambda value: value >= 8, "an integer of at least 8"),
    ("batch_size", int, lambda value: value >= 1, "an integer of at least 1"),
    ("heldout", int | float, lambda value: 0 < value < 1, "a number between 0 and 1"),
    ("seed", int, lambda value: value >= 0, "an integer from 0 on"),
)


@dataclass(frozen=True)
class JudgeArguments:
    """How a judge is trained. The defaults for a base model are those of Gundavarapu et al. (2405.15152).

    Attributes:
        text_column: of the comments; None takes `text` or `comment_text`.
        label_columns: of 0 and 1, one a label; None takes Jigsaw's six, else `harmful`, else `label`.
        base: name or path of an encoder to start from, e.g. "bert-base-uncased"; None for a tiny BERT from nothing,
            its tokenizer trained on the training rows.
        epochs: None for 5 with a base, 8 without.
        learning_rate: at its highest, after a tenth of the steps; it falls linearly. None for 5e-5 with a base, 2e-3
            without.
        max_length: tokens of a comment that are read.
        batch_size: rows of one step.
        heldout: share of the distinct texts that is kept from training, between 0 and 1.
        seed: of the split, of new weights and of the order of the rows.
    """

    text_column: str | None = None
    label_columns: Sequence[str] | None = None
    base: str | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    max_length: int = 128
    batch_size: int = 32
    heldout: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for a value of another type or out of its range."""
        for name, kind, fits, wanted in _RANGES:
            value = getattr(self, name)
            if value is None and name in _SCHEDULED:
                continue
            if isinstance(value, bool) or not isinstance(value, kind) or not fits(value):
                raise input_error(
                    expected=f"{name} to be {wanted}",
                    got=repr(value),
                    why="no judge can be trained with it, or none that is measured",
                    fix=f"leave {name} at its default",
                )

    def schedule(self) -> tuple[int, float]:
        """Epochs and highest learning rate of the run."""
        epochs, rate = _SCRATCH_SCHEDULE if self.base is None else _BASE_SCHEDULE
        return self.epochs or epochs, self.learning_rate or rate


@dataclass(frozen=True)
class JudgeReport:
    """What came of training a judge. It holds no comment.

    Attributes:
        output_dir: of model, tokenizer and `judge.json`.
        labels: all of them harmful.
        train_rows, heldout_rows: rows of either part.
        heldout_harmful: of the held-out rows, those with any label.
        heldout: accuracy, precision, recall and AUC with 95% intervals, by the names of `heldout_figures`.
        seconds: of training and measuring.
    """

    output_dir: Path
    labels: tuple[str, ...]
    train_rows: int
    heldout_rows: int
    heldout_harmful: int
    heldout: Mapping[str, MetricResult]
    seconds: float


def train_judge(rows: Dataset, output_dir: str | Path, arguments: JudgeArguments | None = None) -> JudgeReport:
    """Train a classifier on labelled comments, measure it on held-out ones, and save both for `HarmfulnessJudge`.

    Loss: binary cross-entropy with a sigmoid for every label, mean over rows and labels. The random generators of
    Python, numpy and torch are seeded on the way, as Trainer does. For one process.

    Args:
        rows: comments and their labels.
        output_dir: gets the model (safetensors), its tokenizer and `judge.json`: arguments, rows, held-out figures.
        arguments: defaults if None.

    Raises:
        ValueError: no text or label column, an unknown one, a label other than 0 or 1, too few texts of either class,
            or a base that cannot be loaded.
    """
    started = time.perf_counter()
    arguments = arguments or JudgeArguments()
    folder = Path(output_dir).expanduser()
    comments = read_comments(rows, arguments.text_column, arguments.label_columns)
    train, held = split_comments(comments, arguments.heldout, arguments.seed)
    transformers.set_seed(arguments.seed)
    if arguments.base is None:
        model, tokenizer = new_model(train.texts, train.labels, arguments.max_length)
    else:
        model, tokenizer = base_model(arguments.base, train.labels, arguments.max_length)
    _fit(model, tokenizer, train, folder, arguments)
    # Of the tokenizer: a base may have had no room for as much as was asked for.
    kept = {"harmful_labels": list(train.labels), "max_length": tokenizer.model_max_length}
    setattr(model.config, CONFIG_RECORD, kept)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # Measured as it will judge: from the files, in evaluation mode, empty texts not asked about.
    judge = HarmfulnessJudge(folder)
    heldout = heldout_figures(judge.probabilities(held.texts), held)
    stored = {name: result.to_dict() for name, result in heldout.items()}
    setattr(model.config, CONFIG_RECORD, kept | {"heldout": stored})
    model.config.save_pretrained(folder)
    report = JudgeReport(
        output_dir=folder,
        labels=train.labels,
        train_rows=len(train.texts),
        heldout_rows=len(held.texts),
        heldout_harmful=int(held.harmful().sum()),
        heldout=heldout,
        seconds=time.perf_counter() - started,
    )
    _write_record(report, arguments)
    return report


def render_judge(report: JudgeReport) -> str:
    """The held-out figures as a short plain-text table."""
    held = f"{report.heldout_rows} held out ({report.heldout_harmful} harmful)"
    lines = [
        f"judge      {report.output_dir}",
        f"labels     {', '.join(report.labels)}",
        f"rows       {report.train_rows} to train on, {held}",
        f"seconds    {report.seconds:.1f}",
        "",
    ]
    rows = []
    for name, result in report.heldout.items():
        interval = None if result.low is None or result.high is None else f"[{result.low:.3f}, {result.high:.3f}]"
        rows.append([name, f"{result.value:.3f}", interval, result.n])
    lines.append(terminal_table(["held out", "value", "95% interval", "n"], rows))
    doubt = doubtful(report.heldout)
    return "\n".join(lines if doubt is None else [*lines, "", doubt])


@dataclass(frozen=True)
class _CommentCollator:
    """Rows of text and labels -> a padded batch; tokenised here, so that a million comments need no copy in ids."""

    tokenizer: PreTrainedTokenizerBase

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = self.tokenizer([row["text"] for row in rows], truncation=True, padding=True, return_tensors="pt")
        return {**batch, "labels": torch.tensor([row["labels"] for row in rows])}


def _fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Comments,
    folder: Path,
    arguments: JudgeArguments,
) -> None:
    epochs, learning_rate = arguments.schedule()
    training = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        learning_rate=learning_rate,
        per_device_train_batch_size=arguments.batch_size,
        warmup_steps=_WARMUP_SHARE,
        seed=arguments.seed,
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.accelerator.is_available(),
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=not sys.stderr.isatty(),
    )
    # In characters: the order of lengths is all that a batch of like ones takes.
    columns = {"text": train.texts, "labels": train.values, "length": [len(text) for text in train.texts]}
    trainer = Trainer(
        model=model, args=training, train_dataset=Dataset.from_dict(columns), data_collator=_CommentCollator(tokenizer)
    )
    # Its one line would come between a command and what the command prints.
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def _write_record(report: JudgeReport, arguments: JudgeArguments) -> None:
    epochs, learning_rate = arguments.schedule()
    base = None if arguments.base is None else source_name(arguments.base)
    record = {
        "labels": list(report.labels),
        "threshold": THRESHOLD,
        "rows": {
            "train": report.train_rows,
            "heldout": report.heldout_rows,
            "heldout_harmful": report.heldout_harmful,
        },
        "heldout": {name: result.to_dict() for name, result in report.heldout.items()},
        "arguments": asdict(arguments) | {"base": base, "epochs": epochs, "learning_rate": learning_rate},
        "seconds": round(report.seconds, 1),
        "versions": {
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in (torch, transformers)},
        },
    }
    (report.output_dir / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
