"""Answers of every model to prompts that the user allows to be shown in the report. No row of a set is shown."""

import json
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from ..data.prepare import RowOptions
from ..data.sources import load_rows
from ..data.tokenized_row import prompt_ids
from ..data.turns import AnswerEnds
from ..errors import input_error
from ..evaluation import generate_answers
from ..results.report import SHOWABLE_FILE
from ..training.trainer import UnlearningTrainer


def read_prompts(path: str | None) -> list[str]:
    """The prompts of a file: lines of a .txt, or the column `prompt` of what else `load_rows` reads; none without one.

    Raises:
        ValueError: there is no such file, or no prompts are in it.
    """
    if path is None:
        return []
    rows = load_rows(path)
    columns = [name for name in ("prompt", "text") if name in rows.column_names]
    if not columns or not len(rows):
        raise input_error(
            expected="--show_prompts with a text file, a prompt a line, or a file with a column `prompt`",
            got=f"columns {', '.join(rows.column_names)}" if len(rows) else "no rows",
            why="the answers to these prompts, and no others, are shown in the report",
            fix="check the file, or leave it out to show no text at all",
        )
    return list(rows[columns[0]])


def encode_prompts(prompts: Sequence[str], options: RowOptions) -> tuple[list[list[int]], AnswerEnds]:
    """Token ids of prompts, read as a row's prompt is, and what ends their answers: a model sees what a set asks it.

    Args:
        prompts: as the user wrote them.
        options: how the run's rows become tokens.
    """
    given = [{"prompt": prompt, "completion": " ."} for prompt in prompts]
    rows = options.tokenize(given, "eval")
    return [prompt_ids(row) for row in rows], options.answer_ends(given, rows)


class ShownAnswers:
    """Greedy answers of each model to the prompts that may be shown.

    Args:
        prompts: as the user wrote them; none by default.
        trainer: for its tokenizer, arguments and accelerator.
        max_new_tokens: longest answer; 64 if None.
    """

    def __init__(self, prompts: list[str], trainer: UnlearningTrainer, max_new_tokens: int | None) -> None:
        self._prompts, self._trainer, self._longest = prompts, trainer, max_new_tokens or 64
        self._answers: dict[str, list[str]] = {}

    def ask(self, name: str, model: nn.Module) -> None:
        """Generate a model's answers to the prompts, and keep them under its name."""
        if not self._prompts:
            return
        args, accelerator = self._trainer.args, self._trainer.accelerator
        tokenizer = self._trainer.processing_class
        options = RowOptions(
            tokenizer, args.max_length, args.template, None, chat_template_kwargs=args.template_variables
        )
        prompts, ends = encode_prompts(self._prompts, options)
        answers = generate_answers(
            accelerator.unwrap_model(model),
            tokenizer,
            prompts,
            accelerator,
            max_new_tokens=self._longest,
            batch_size=args.per_device_eval_batch_size,
            description="answers to show",
            ends=ends,
        )
        self._answers[name] = [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in answers]

    def save(self, folder: Path) -> None:
        """Write showable.json; without answers, one of an earlier run goes, whose text is not this run's."""
        if not self._answers:
            (folder / SHOWABLE_FILE).unlink(missing_ok=True)
            return
        shown = [
            {"prompt": prompt, "answers": {name: answers[i] for name, answers in self._answers.items()}}
            for i, prompt in enumerate(self._prompts)
        ]
        (folder / SHOWABLE_FILE).write_text(json.dumps(shown, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
