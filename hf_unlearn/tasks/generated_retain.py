"""Retain rows that the model of a run answers itself (--retain_prompts), made once and kept in the run's cache."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset, load_from_disk

from ..data.row_cache import RowCache, file_errors_told
from ..errors import input_error
from ..evaluation import Judge, generate_retain_rows
from ..model.loading import load_tokenizer
from ..training.config import UnlearningConfig
from ..training.model_setup import load_model, move_unless_quantized
from .arguments import Parsed

_BATCH = 32


@dataclass(frozen=True)
class Answerer:
    """The model before unlearning, and how it is asked.

    Attributes:
        model: name or folder; None where none is named, and nothing can be asked.
        revision: of it on the Hub.
        args: of the run.
        max_new_tokens: longest answer; None for what `generate_retain_rows` takes.
        judge: of answers; None where overlap with the forget rows judges alone.
        scope: rows beside the forget rows whose prompts may not be asked.
    """

    model: str | None
    revision: str | None
    args: UnlearningConfig
    max_new_tokens: int | None = None
    judge: Judge | None = None
    scope: Dataset | None = None

    @classmethod
    def of(cls, parsed: Parsed, *, judge: Judge | None = None, scope: Dataset | None = None) -> "Answerer":
        """That of a run."""
        model, script = parsed.model, parsed.script
        return cls(model.model_name_or_path, model.model_revision, parsed.args, script.max_new_tokens, judge, scope)

    def retain_rows(self, prompts: Dataset, forget: Dataset, cache: RowCache) -> Dataset:
        """The rows; from the cache where a process of this run, or a run that left its cache, has made them.

        Args:
            prompts: with a column `prompt`, or `text`.
            forget: rows to forget, in the package's columns.
            cache: of the run.
        """
        asked, options = _prompts(prompts), self._options()
        near = [rows._fingerprint for rows in (forget, self.scope) if rows is not None]
        made_from = [near, self.model, self.revision, options, self.judge and self.judge.name]
        folder = Path(cache.file_for(asked, made_from)).with_suffix(".generated")
        if not folder.is_dir():
            self._require_whole()
            rows = self._generated(list(asked["prompt"]), forget, options)
            unfinished = folder.with_suffix(".unfinished")
            with file_errors_told("generated retain rows", unfinished.parent):
                shutil.rmtree(unfinished, ignore_errors=True)
                rows.save_to_disk(unfinished)
                unfinished.rename(folder)
        return load_from_disk(str(folder))

    def _options(self) -> dict[str, Any]:
        given: Mapping[str, Any] = {} if self.max_new_tokens is None else {"max_new_tokens": self.max_new_tokens}
        return {
            **given,
            "template": self.args.template,
            "max_length": self.args.max_length,
            "chat_template_kwargs": self.args.template_variables,
        }

    def _generated(self, prompts: list[Any], forget: Dataset, options: dict[str, Any]) -> Dataset:
        assert self.model is not None
        tokenizer = load_tokenizer(self.model, self.revision, self.args.init_kwargs)
        model = move_unless_quantized(load_model(self.model, self.args), self.args.device).eval()
        rows = generate_retain_rows(
            model,
            tokenizer,
            prompts,
            forget=forget,
            scope=self.scope,
            judge=self.judge,
            batch_size=_BATCH,
            **options,
        )
        del model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return rows

    def _require_whole(self) -> None:
        if self.args.deepspeed_plugin is not None and self.args.deepspeed_plugin.zero_stage == 3:
            raise input_error(
                expected="--retain_prompts where each process holds the whole model",
                got=f"ZeRO-3 in {PartialState().num_processes} processes",
                why="one process of them answers the prompts before the others start",
                fix="generate the rows once (hf_unlearn.evaluation.generate_retain_rows), save them, and pass the "
                "file as --retain_dataset",
            )


def _prompts(rows: Dataset) -> Dataset:
    if "prompt" not in rows.column_names and "text" in rows.column_names:
        rows = rows.rename_column("text", "prompt")
    if "prompt" not in rows.column_names:
        raise input_error(
            expected="--retain_prompts with a text file, a prompt a line, or rows with a column `prompt`",
            got=f"columns {', '.join(rows.column_names)}",
            why="the model is asked them for the rows to keep",
            fix='pass --retain_columns \'{"question": "prompt"}\' with the column\'s name',
        )
    return rows.select_columns(["prompt"])
