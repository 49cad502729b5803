"""`LMEvalSuite`: tasks of lm-evaluation-harness on a model in memory, with intervals."""

import difflib
import functools
import math
import numbers
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import extract_model_from_parallel
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ...errors import input_error
from ...metrics import MetricResult, mean, proportion
from ...model.score_rows import evaluation_mode, preserve_rng_state

logger = logging.get_logger(__name__)

Values = dict[str, dict[str, list[Any]]]  # task -> metric -> value of each document


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
    """

    tasks: tuple[str | Mapping[str, Any], ...]
    limit: int | None = None
    num_fewshot: int | None = None
    include_path: str | None = None
    include_defaults: bool = True

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

    def run(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, *, batch_size: int, seed: int
    ) -> tuple[dict[str, MetricResult], dict[str, int]]:
        """Metrics of all tasks as `{task}/{metric}`, and how much was asked for them.

        Shares of right documents have a Wilson interval, means over documents a bootstrap interval, both from the
        harness's record of single documents; what is neither (F1 of a set, perplexity) has none. A document for which
        the model's log-probability is NaN makes its metrics NaN. Softmaxes are in fp32 even for a model in 16 bits,
        where the harness by default takes them in 16. No chat template is applied. Works in this process alone: call
        it on the main one, with a model that is whole there (no ZeRO-3, no FSDP).

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
            ValueError: lm-eval is not installed, a task is unknown, or the process is not the main one of its machine.
        """
        tasks = _known_tasks(self)
        from lm_eval import simple_evaluate

        from .model import InMemoryModel, left_as_it_is, quiet

        model = extract_model_from_parallel(model, keep_torch_compile=False)
        with quiet(), preserve_rng_state(), evaluation_mode(model), left_as_it_is(model):
            asked = InMemoryModel(model, tokenizer, batch_size)
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
        return _metrics(output, _tagged(self.tasks), seed), counts


def lm_eval(
    tasks: str | Mapping[str, Any] | Iterable[str | Mapping[str, Any]],
    *,
    limit: int | None = None,
    num_fewshot: int | None = None,
    include_path: str | os.PathLike[str] | None = None,
    include_defaults: bool = True,
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


def _metrics(output: Mapping[str, Any], tags: Mapping[str, list[str]], seed: int) -> dict[str, MetricResult]:
    """Metrics of tasks, of the harness's groups and of tags, by name."""
    values = {
        task: {key: _of_documents(key, rows) for key in _metric_keys(output["results"][task])}
        for task, rows in output["samples"].items()
    }
    results = {}
    for name, figures in output["results"].items():
        for key in _metric_keys(figures):
            documents = values[name][key] if name in values else _pooled(_leaves(name, output), key, values)
            results[_title(name, key)] = _result(figures[key], documents, seed)
    for tag, members in tags.items():
        # What is in all members a mean over documents is one over the documents of all members too.
        shared = set.intersection(*(set(values[member]) for member in members))
        for key in sorted(shared):
            if all(results[_title(member, key)].interval is not None for member in members):
                documents = _pooled(members, key, values)
                results[_title(tag, key)] = _result(float(np.mean(documents)), documents, seed)
    return results


def _metric_keys(figures: Mapping[str, Any]) -> list[str]:
    """Names like "acc,none" (metric and filter), without standard errors."""
    return [key for key in figures if "," in key and not key.rpartition(",")[0].endswith("_stderr")]


def _title(name: str, key: str) -> str:
    return f"{name}/{key.removesuffix(',none')}"


def _of_documents(key: str, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The value of each document; NaN where a log-probability is, which argmax would take for the best choice."""
    metric, _, name = key.rpartition(",")
    mine = [row for row in rows if row["filter"] == name and metric in row["metrics"]]
    return [math.nan if any(map(_is_nan, row["filtered_resps"])) else row[metric] for row in mine]


def _is_nan(response: Any) -> bool:
    number = response[0] if isinstance(response, tuple | list) and response else response
    return isinstance(number, float) and math.isnan(number)


def _leaves(group: str, output: Mapping[str, Any]) -> list[str]:
    """The tasks of a group, those of its subgroups too."""
    leaves: list[str] = []
    for member in output["group_subtasks"].get(group, []):
        leaves += [member] if member in output["samples"] else _leaves(member, output)
    return leaves


def _pooled(tasks: Iterable[str], key: str, values: Values) -> list[Any]:
    return [value for task in tasks for value in values[task].get(key, [])]


def _result(value: float, documents: Sequence[Any], seed: int) -> MetricResult:
    """A metric with the interval that fits it, if it is a mean over documents."""
    if all(isinstance(value_of_document, numbers.Real) for value_of_document in documents):
        plain = [float(value_of_document) for value_of_document in documents]
        if any(map(math.isnan, plain)):
            return mean(plain, seed=seed)
        if math.isclose(float(np.mean(plain)), value, rel_tol=1e-6, abs_tol=1e-9):
            return (
                proportion([value_of_document == 1 for value_of_document in plain])
                if set(plain) <= {0.0, 1.0}
                else mean(plain, seed=seed)
            )
    return MetricResult(value=float(value), n=len(documents))
