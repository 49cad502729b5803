"""Trains TOFU models of which the checkpoint from before the forget rows is known, for `msa` and `rewind`.

    python -m benchmarks.quality.tofu_trained --model tofu-full --data TOFU --output FOLDER

Three models with the configuration and tokenizer of `--model`, from fresh weights: `checkpoint` learns the retain rows
(retain90, real authors, world facts), then `full` goes on from it with these and forget10, and `oracle` goes on from
it with the retain rows alone. A model that the folder holds already is not trained again.

AdamW, batches of 16 rows of near length, next-token loss on the whole text.
"""

import argparse
from pathlib import Path
from typing import Any

import datasets
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)

from benchmarks.quality.tofu_bound import ANSWER, PROMPT, load, read_json_lines

RETAIN_FILES = ("retain90", "real_authors", "world_facts")


def whole_texts(folder: Path, names: tuple[str, ...], tokenizer: PreTrainedTokenizerBase) -> datasets.Dataset:
    """The rows of these files, every token learnt."""
    texts = [(PROMPT + ANSWER).format(**row) for name in names for row in read_json_lines(folder, name)]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return datasets.Dataset.from_list([{"input_ids": row, "labels": row, "length": len(row)} for row in ids])


def train(model: PreTrainedModel, rows: datasets.Dataset, folder: Path, tokenizer: Any, **schedule: Any) -> None:
    """Train and save."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=16,
        learning_rate=1.5e-3,
        warmup_steps=30,
        weight_decay=0.0,
        train_sampling_strategy="group_by_length",
        save_strategy="no",
        logging_steps=50,
        report_to="none",
        **schedule,
    )
    collator = DataCollatorForSeq2Seq(tokenizer)
    Trainer(model, arguments, train_dataset=rows, data_collator=collator).train()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Train what is not trained yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a model: its configuration and tokenizer")
    parser.add_argument("--data", type=Path, required=True, help="folder of TOFU's files")
    parser.add_argument("--output", type=Path, required=True, help="folder for the three models")
    parser.add_argument("--epochs_before", type=float, default=3.0, help="of the checkpoint")
    parser.add_argument("--epochs_after", type=float, default=10.0, help="of the models that go on from it")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    retain = whole_texts(options.data, RETAIN_FILES, tokenizer)
    everything = whole_texts(options.data, (*RETAIN_FILES, "forget10"), tokenizer)
    start = options.output / "checkpoint"
    transformers.set_seed(options.seed)
    if not (start / "config.json").is_file():
        fresh = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(options.model))
        schedule = {"lr_scheduler_type": "constant_with_warmup", "num_train_epochs": options.epochs_before}
        train(fresh, retain, start, tokenizer, seed=options.seed, **schedule)
    for name, rows in (("full", everything), ("oracle", retain)):
        if not (options.output / name / "config.json").is_file():
            schedule = {"lr_scheduler_type": "cosine", "num_train_epochs": options.epochs_after}
            train(load(start), rows, options.output / name, tokenizer, seed=options.seed + 1, **schedule)


if __name__ == "__main__":
    main()
