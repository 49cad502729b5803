"""`LMEvalSuite`: tasks of lm-evaluation-harness on a model in memory, with intervals."""

import difflib
import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import extract_model_from_parallel
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ...data.chat_template import check_template_kwargs
from ...errors import input_error
from ...metrics import MetricResult
from ...model.score_rows import evaluation_mode, preserve_rng_state
from .documents import harness_metrics

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class LMEvalSuite:
    """Tasks of lm-evaluation-harness, and how they are run.

    Attributes:
        tasks: names of tasks, groups or tags that the harness knows, YAML files, or task configs such as
            `truthfulqa_mc` and `multiple_choice` make. Named tasks fetch their data from the Hub.
        limit: documents of each task, the first ones; None for all.
        num_fewshot: examples before each question; None for each task's own number. A task that fixes it at 0 keeps 0.
        include_path: folder of task YAML files.
        include_defaults: whether names may be those of the harness's own tasks, whose index takes ten seconds to read,
            once a process.
        apply_chat_template: whether questions are written by the tokenizer's chat template, as rows without a
            `template` are; a name for one of several templates. None: where the tokenizer has one. Published figures
            of base models are without.
        fewshot_as_multiturn: whether examples are turns of the conversation; otherwise they stand in the question.
        chat_template_kwargs: variables for the chat template, as of rows.
    """

    tasks: tuple[str | Mapping[str, Any], ...]
    limit: int | None = None
    num_fewshot: int | None = None
    include_path: str | None = None
    include_defaults: bool = True
    apply_chat_template: bool | str | None = None
    fewshot_as_multiturn: bool = True
    chat_template_kwargs: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        wrong = {type(task).__name__ for task in self.tasks if not isinstance(task, str | Mapping)}
        if wrong:
            raise input_error(
                expected="each task to be a name, the path of a YAML file, or a task config",
                got=f"a {', a '.join(sorted(wrong))}",
                why="the harness knows tasks by these alone",
                fix="""pass tasks=["hellaswag", *truthfulqa_mc("mc_task.json")]""",
            )
        names = [task if isinstance(task, str) else task.get("group", task.get("task")) for task in self.tasks]
        if not names or None in names or len(set(names)) < len(names):
            raise input_error(
                expected="tasks of different names, at least one",
                got="none" if not names else "a config without a name" if None in names else "a name twice",
                why="results are filed under the names of their tasks",
                fix="""pass tasks=["hellaswag", *truthfulqa_mc("mc_task.json")], or name=... to multiple_choice""",
            )
        for name, number, least in (("limit", self.limit, 1), ("num_fewshot", self.num_fewshot, 0)):
            if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < least):
                raise input_error(
                    expected=f"{name} to be a whole number from {least} on, or None",
                    got=repr(number),
                    why="it counts documents" if name == "limit" else "it counts examples",
                    fix=f"pass {name}={max(least, 100 if name == 'limit' else 5)}",
                )
        check_template_kwargs(self.chat_template_kwargs)

    def chat_template(self, tokenizer: PreTrainedTokenizerBase) -> bool | str:
        """Whether questions are written by a tokenizer's chat template, or by which one."""
        if self.apply_chat_template is None:
            return tokenizer.chat_template is not None
        if self.apply_chat_template and tokenizer.chat_template is None:
            raise input_error(
                expected="a tokenizer with a chat template",
                got="one without, and apply_chat_template",
                why="nothing would write the questions as turns",
                fix="set tokenizer.chat_template, or leave apply_chat_template out",
            )
        return self.apply_chat_template

    def settings(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """What makes two results comparable, for the result."""
        chat_template = self.chat_template(tokenizer)
        names = [task if isinstance(task, str) else task.get("task", task.get("group")) for task in self.tasks]
        of_template = {
            "fewshot_as_multiturn": self.fewshot_as_multiturn,
            "chat_template_kwargs": dict(self.chat_template_kwargs or {}),
        }
        own = {"tasks": names, "limit": self.limit, "num_fewshot": self.num_fewshot}
        return own | {"apply_chat_template": chat_template} | (of_template if chat_template else {})

    def run(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, *, batch_size: int, seed: int
    ) -> tuple[dict[str, MetricResult], dict[str, int]]:
        """Metrics of all tasks as `{task}/{metric}`, and how much was asked for them.

        Shares of right documents have a Wilson interval, means over documents a bootstrap interval, both from the
        harness's record of single documents; what is neither (F1 of a set, perplexity) has none. A document for which
        the model's log-probability is NaN makes its metrics NaN. Softmaxes are in fp32 even for a model in 16 bits,
        where the harness by default takes them in 16. Works in this process alone: call it on the main one, with a
        model that is whole there (no ZeRO-3, no FSDP).

        Args:
            model: a causal language model; left as it was, the states of random generators too.
            tokenizer: of the model; a copy is used.
            batch_size: requests of one forward.
            seed: of examples that a task draws, of sampled answers and of the bootstrap.

        Returns:
            metrics: by name, a filter other than "none" after a comma: `gsm8k/exact_match,strict-match`.
            counts: documents; requests (answers scored or written); truncated: requests longer than the model's
                positions, cut from the left.

        Raises:
            ValueError: lm-eval is not installed, a task is unknown, a chat template is asked for that is not there, or
                the process is not the main one of its machine.
        """
        tasks, chat_template = _known_tasks(self), self.chat_template(tokenizer)
        from lm_eval import simple_evaluate

        from .model import InMemoryModel, left_as_it_is, quiet

        model = extract_model_from_parallel(model, keep_torch_compile=False)
        with quiet(), preserve_rng_state(), evaluation_mode(model), left_as_it_is(model):
            asked = InMemoryModel(model, tokenizer, batch_size, self.chat_template_kwargs)
            output = simple_evaluate(
                model=asked,
                tasks=[task if isinstance(task, str) else dict(task) for task in self.tasks],
                task_manager=tasks,
                num_fewshot=self.num_fewshot,
                limit=self.limit,
                bootstrap_iters=0,
                log_samples=True,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
                apply_chat_template=chat_template,
                fewshot_as_multiturn=bool(chat_template) and self.fewshot_as_multiturn,
            )
        if asked.truncated:
            logger.warning(
                f"{asked.truncated} of {asked.requests} requests are longer than the model's {asked.max_length} "
                "positions and were cut from the left: their results are not those of the task as it is published."
            )
        counts = {
            "documents": sum(len({row["doc_id"] for row in rows}) for rows in output["samples"].values()),
            "requests": asked.requests,
            "truncated": asked.truncated,
        }
        return harness_metrics(output, _tagged(self.tasks), seed), counts


def lm_eval(
    tasks: str | Mapping[str, Any] | Iterable[str | Mapping[str, Any]],
    *,
    limit: int | None = None,
    num_fewshot: int | None = None,
    include_path: str | os.PathLike[str] | None = None,
    include_defaults: bool = True,
    apply_chat_template: bool | str | None = None,
    fewshot_as_multiturn: bool = True,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> LMEvalSuite:
    """A suite of lm-evaluation-harness tasks; the arguments are those of `LMEvalSuite`.

    Raises:
        ValueError: no task, one that is neither a name nor a config, a name twice, or a number out of range.
    """
    return LMEvalSuite(
        tasks=(tasks,) if isinstance(tasks, str | Mapping) or not isinstance(tasks, Iterable) else tuple(tasks),
        limit=limit,
        num_fewshot=num_fewshot,
        include_path=None if include_path is None else os.fspath(include_path),
        include_defaults=include_defaults,
        apply_chat_template=apply_chat_template,
        fewshot_as_multiturn=fewshot_as_multiturn,
        chat_template_kwargs=chat_template_kwargs,
    )


def _known_tasks(suite: LMEvalSuite) -> Any:
    """The harness's index of tasks, in which every name of the suite is found."""
    try:
        import lm_eval  # noqa: F401
    except ModuleNotFoundError as error:
        raise input_error(
            expected="lm-evaluation-harness to be installed",
            got=f"no module {error.name}",
            why="its tasks are run by it",
            fix="pip install 'hf-unlearn[eval]'",
        ) from error
    if os.environ.get("LOCAL_RANK", "0") != "0":
        raise input_error(
            expected="the tasks to be run by the first process of a machine",
            got=f"LOCAL_RANK={os.environ['LOCAL_RANK']}",
            why="the harness returns results there alone",
            fix="if accelerator.is_main_process: suite.run(...)",
        )
    names = [task for task in suite.tasks if isinstance(task, str)]
    index = _task_index(suite.include_path, suite.include_defaults and bool(names))
    for name in names:
        if name not in index.all_tasks and not Path(name).is_file():
            close = difflib.get_close_matches(name, index.all_tasks, n=5) or ["another name"]
            raise input_error(
                expected="the name of a task, group or tag that lm-evaluation-harness knows",
                got=repr(name),
                why="nothing would be measured",
                fix=f"use {' or '.join(close)}; `lm-eval ls tasks` prints all",
            )
    return index


@functools.lru_cache(maxsize=4)
def _task_index(include_path: str | None, include_defaults: bool) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=include_path, include_defaults=include_defaults)


def _tagged(tasks: Sequence[str | Mapping[str, Any]]) -> dict[str, list[str]]:
    """Names of task configs by the tag that they share."""
    tags: dict[str, list[str]] = {}
    for task in tasks:
        if not isinstance(task, str) and "group" not in task and isinstance(task.get("tag"), str):
            tags.setdefault(task["tag"], []).append(task["task"])
    return tags
