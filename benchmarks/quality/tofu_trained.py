"""Trains TOFU models that go on from a known checkpoint, as `msa` and `rewind` need one.

    python -m benchmarks.quality.tofu_trained --checkpoint tofu-retain90 --data TOFU --output FOLDER

From a checkpoint that has learnt the retain rows (retain90, real authors, world facts), `full` goes on with these and
forget10, and `oracle` with the retain rows alone. A model that the folder holds already is not trained again.

AdamW, batches of 16 rows of near length, next-token loss on the whole text.
"""

import argparse
from pathlib import Path
from typing import Any

import datasets
from transformers import (
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


def train(
    model: PreTrainedModel, rows: datasets.Dataset, folder: Path, tokenizer: Any, epochs: float, seed: int
) -> None:
    """Train and save."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=16,
        num_train_epochs=epochs,
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        warmup_steps=30,
        weight_decay=0.0,
        train_sampling_strategy="group_by_length",
        save_strategy="no",
        logging_steps=50,
        report_to="none",
        seed=seed,
    )
    collator = DataCollatorForSeq2Seq(tokenizer)
    Trainer(model, arguments, train_dataset=rows, data_collator=collator).train()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Train what is not trained yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of a model that has not seen forget10")
    parser.add_argument("--data", type=Path, required=True, help="folder of TOFU's files")
    parser.add_argument("--output", type=Path, required=True, help="folder for both models")
    parser.add_argument("--epochs", type=float, default=5.0, help="over the rows of each")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.checkpoint)
    for name, files in (("full", (*RETAIN_FILES, "forget10")), ("oracle", RETAIN_FILES)):
        if not (options.output / name / "config.json").is_file():
            rows = whole_texts(options.data, files, tokenizer)
            train(load(options.checkpoint), rows, options.output / name, tokenizer, options.epochs, options.seed)


if __name__ == "__main__":
    main()
