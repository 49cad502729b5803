"""Make a model that knows a book by heart forget it, keep other books, and show what it cost.

First the model is fitted to the book with LoRA (unless it knows it already: --fit false), which is merged and saved
to <output_dir>/fitted; then it forgets the book's passages: a passage's first characters are the prompt, the rest is
what is forgotten. The model before the fit, which has not read the book, is the oracle unless another is named.

With no arguments: the lab's invented novel, offline and on a CPU, in a few minutes.

    accelerate launch examples/copyright.py

A book and other books as .txt files, and any model:

    accelerate launch examples/copyright.py --book book.txt --retain_dir books --model_name_or_path org/model \
        --forget_nll_bound log_vocab

The experiment of Gundavarapu et al. 2024 with OPT-1.3b takes those two paths too:

    accelerate launch examples/copyright.py --config examples/configs/copyright_opt1.3b.yaml \
        --book book.txt --retain_dir books

Without --config the values of examples/configs/copyright_lab.yaml are the defaults; the command line comes before
both.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from running import RunArguments, Task, first, parse_arguments, require_model, require_unused, run
from transformers import AutoTokenizer
from trl import ModelConfig, SFTConfig, SFTTrainer

from hf_unlearn import UnlearningConfig
from hf_unlearn.data.books import book_rows, books_in
from hf_unlearn.data.prepare import RowOptions
from hf_unlearn.errors import input_error
from hf_unlearn.evaluation import copyright
from hf_unlearn.lab import load_lab
from hf_unlearn.modeling import load_model
from hf_unlearn.objective import build_objective
from hf_unlearn.train_data import tokenize_for

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "copyright_lab.yaml"
RECORD = "fit.json"  # written last: a folder that has it is whole


@dataclass
class ScriptArguments(RunArguments):
    """The book to forget and the books to keep. Without --book they are the lab's."""

    book: str | None = field(default=None, metadata={"help": "Book to forget, a .txt file; none: the lab's."})
    retain_dir: str | None = field(default=None, metadata={"help": "Folder of .txt files: the books to keep."})
    holdout_book: str | None = field(
        default=None, metadata={"help": "A .txt file like the book that no model has seen, for membership attacks."}
    )
    prompt_characters: int = field(default=200, metadata={"help": "Characters of a passage that the model is given."})
    passage_characters: int = field(default=600, metadata={"help": "Characters of a passage, about."})
    fit: bool = field(default=True, metadata={"help": "Fit the model to the book first; false if it knows it."})
    fit_on_retain: bool = field(
        default=False, metadata={"help": "Fit on the books to keep as well, so that the fit does not lose them."}
    )
    fit_epochs: float = field(default=3.0, metadata={"help": "Epochs of the fit."})
    fit_learning_rate: float = field(default=2e-4, metadata={"help": "Learning rate of the fit."})
    fit_warmup: float = field(default=0.0, metadata={"help": "Share of the fit's steps in which the rate rises."})
    fit_batch_size: int = field(default=2, metadata={"help": "Passages of a batch of the fit, on each device."})
    fit_lora_r: int = field(default=16, metadata={"help": "Rank of the fit's LoRA."})
    fit_lora_alpha: int = field(default=32, metadata={"help": "Alpha of the fit's LoRA."})
    fit_lora_dropout: float = field(default=0.05, metadata={"help": "Dropout of the fit's LoRA."})


@dataclass
class Books:
    """Where the texts, the model to start from and one that has not read the book are."""

    model: str
    book: Path
    retain_dir: Path
    holdout: Path | None
    oracle: str | None


def books_of(script: ScriptArguments, model: str | None) -> Books:
    """The lab's, or those that the arguments name."""
    if script.book is None:
        own = {"retain_dir": script.retain_dir, "holdout_book": script.holdout_book, "oracle": script.oracle}
        require_unused("book", model_name_or_path=model, **own)
        lab = load_lab(world="books")
        start = lab.oracle_path if script.fit else lab.model_path
        return Books(str(start), lab.book_path, lab.retain_dir, lab.holdout_path, str(lab.oracle_path))
    if model is None or script.retain_dir is None:
        raise input_error(
            expected="--model_name_or_path and --retain_dir together with --book",
            got="no model" if model is None else "no folder of books to keep",
            why="the lab's model and books have nothing to do with yours",
            fix="add them, or leave out --book to run on the lab",
        )
    holdout = None if script.holdout_book is None else Path(script.holdout_book)
    oracle = script.oracle or (model if script.fit else None)
    return Books(model, Path(script.book), Path(script.retain_dir), holdout, oracle)


def passages(script: ScriptArguments, books: Books) -> dict[str, Dataset]:
    """Rows of the book, of the books to keep and of unseen text: the start of a passage and how it goes on."""
    cut: dict[str, Any] = {
        "prompt_characters": script.prompt_characters,
        "passage_characters": script.passage_characters,
        "limit": script.limit,
    }
    sets = {"forget": book_rows(books.book, **cut), "retain": books_in(books.retain_dir, **cut)}
    return sets if books.holdout is None else sets | {"holdout": book_rows(books.holdout, **cut)}


def fit_book(
    script: ScriptArguments, args: UnlearningConfig, model: str, sets: dict[str, Dataset], revision: str | None
) -> str:
    """The folder of a model that knows the book: trained on its passages with LoRA, merged. A finished fit is kept."""
    folder = Path(args.output_dir) / "fitted"
    names = ("forget", "retain") if script.fit_on_retain else ("forget",)
    texts = [row["prompt"] + row["completion"] for name in names for row in sets[name]]
    made_from = {name: value for name, value in asdict(script).items() if name.startswith("fit")}
    made_from |= {"model": model, "revision": revision, "max_length": args.max_length, "bf16": args.bf16}
    made_from |= {
        "processes": args.world_size,
        "seed": args.seed,
        "text": hashlib.sha256("\0".join(texts).encode()).hexdigest(),
    }
    if (folder / RECORD).is_file() and json.loads((folder / RECORD).read_text()) == made_from:
        return str(folder)
    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    if args.process_index == 0:
        (folder / RECORD).unlink(missing_ok=True)  # of another fit, whose weights are about to be replaced
    trainer = SFTTrainer(
        model=load_model(model, args),
        args=SFTConfig(
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
        ),
        train_dataset=Dataset.from_dict({"text": texts}),
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
        trainer.accelerator.unwrap_model(trainer.model).merge_and_unload().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / RECORD).write_text(json.dumps(made_from))
    trainer.accelerator.wait_for_everyone()
    return str(folder)


def make_task(script: ScriptArguments, args: UnlearningConfig, model_config: ModelConfig) -> Task:
    """The fitted model, its passages, and the suite that measures the first of each set."""
    # A passage is prose, to a chat model too: no template of its tokenizer may come between a start and its rest.
    args.template = args.template or "{prompt}{completion}"
    with args.main_process_first(local=True, desc="loading data"):
        books = books_of(script, model_config.model_name_or_path)
        sets = passages(script, books)
    revision = model_config.model_revision
    require_model(books.model)
    # What the trainer would refuse, before a fit that may take hours.
    options = RowOptions(
        AutoTokenizer.from_pretrained(books.model, revision=revision), args.max_length, args.template, None
    )
    tokenize_for(build_objective(args, None, None), sets, None, options, args)
    model = fit_book(script, args, books.model, sets, revision) if script.fit else None
    suite = partial(
        copyright,
        **{name: first(rows, script.evaluated_rows) for name, rows in sets.items()},
        max_new_tokens=script.max_new_tokens,
        max_length=args.max_length,
        template=args.template,
    )
    notes = ["The oracle is the model before it was fitted to the book."] if books.oracle == books.model else []
    return Task(model or books.model, sets, suite, books.oracle, notes)


def main() -> None:
    script, args, model_config = parse_arguments(ScriptArguments, DEFAULT_CONFIG, __doc__)
    run(make_task(script, args, model_config), script, args, model_config)


if __name__ == "__main__":
    main()
