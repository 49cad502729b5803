"""The task harmful: a behaviour is forgotten, and a judge says how often it still shows."""

from dataclasses import dataclass, field
from functools import partial

from datasets import Dataset

from ..evaluation import HarmfulnessJudge, Judge, RecitalJudge, RuleJudge, harmful
from ..lab import load_lab, shows_behaviour
from ..training.config import row_cache_of
from .answer_judge import JudgeByModel, judged_by_model
from .arguments import Parsed
from .generated_retain import Answerer
from .phases.checkpoint import starts_from_checkpoint
from .row_sets import RowSetArguments, load_sets
from .task import RETRAINED, Task, first, measured_rows, require_unused

DEFAULT_RECIPE = "harmful_lab"


@dataclass
class Arguments(JudgeByModel, RowSetArguments):
    """What to forget and to keep, and who judges. Without --forget_dataset it is the lab's."""

    judge: str | None = field(
        default=None,
        metadata={
            "help": "Model that judges the answers: a classifier on the Hub (unitary/toxic-bert) or of hf-unlearn "
            "train-judge; with --judge_purpose or --judge_endpoint a causal language model; none: the lab's rules, or "
            "recital of the harmful answer's first 8 words."
        },
    )
    judge_labels: list[str] | None = field(
        default=None, metadata={"help": "Labels that count as harmful; none: those that the judge says itself."}
    )


def make_task(parsed: Parsed) -> Task:
    """The lab's task, or that of the arguments."""
    script, args, model = parsed.script, parsed.args, parsed.model.model_name_or_path
    with args.main_process_first(local=True, desc="loading data"):
        return _lab_task(parsed) if script.forget_dataset is None else _rows_task(parsed, model)


def _lab_task(parsed: Parsed) -> Task:
    """The offline task: the lab's model, rows and retrained oracle."""
    script = parsed.script
    require_unused(
        "forget_dataset",
        model_name_or_path=None if script.continue_from else parsed.model.model_name_or_path,
        retain_dataset=script.retain_dataset,
        retain_prompts=script.retain_prompts,
        holdout_dataset=script.holdout_dataset,
        oracle=script.oracle,
        template=parsed.args.template,
    )
    checkpoint = starts_from_checkpoint(script.phases)
    lab = load_lab(checkpoint=checkpoint)
    sets = {name: lab.datasets[name] for name in ("forget", "retain", "holdout")}
    judge = _judge(script, RuleJudge("the lab's rules", shows_behaviour))
    in_scope = first(lab.datasets["paraphrase"], script.limit)
    limited = {name: rows if script.limit is None else first(rows, script.limit) for name, rows in sets.items()}
    task = _task(parsed, str(lab.model_path), limited, in_scope, judge, str(lab.oracle_path))
    task.from_lab, task.oracle_is = True, RETRAINED
    task.checkpoint = str(lab.checkpoint_path) if checkpoint else None
    return task


def _rows_task(parsed: Parsed, model: str | None) -> Task:
    """The task that the arguments name."""
    script = parsed.script
    cache = row_cache_of(parsed.args)
    with cache.closed_on_error():
        judge = _judge(script, RecitalJudge())
        sets = load_sets(script, model, cache, Answerer.of(parsed, judge=judge))
    assert model is not None  # or load_sets would have refused it
    task = _task(parsed, model, sets, None, judge, script.oracle)
    task.cache = cache
    return task


def _judge(script: Arguments, default: Judge) -> Judge:
    """The judge that was asked for, or the one that needs no model."""
    if script.judge in (None, "none"):  # a recipe's judge is left out on a command line by this word
        judged_by_model(script)  # refuses what only a language model reads
        return default
    by_model = judged_by_model(script)
    if by_model is not None:
        return by_model
    return HarmfulnessJudge(script.judge, threshold=script.judge_threshold, harmful_labels=script.judge_labels)


def _task(
    parsed: Parsed,
    model: str,
    sets: dict[str, Dataset],
    in_scope: Dataset | None,
    judge: Judge,
    oracle: str | None,
) -> Task:
    """A task whose suite measures the first rows of each set."""
    script, args = parsed.script, parsed.args
    suite = partial(
        harmful,
        **{
            name: measured_rows(rows, script.evaluated_half, script.evaluated_rows)
            for name, rows in sets.items()
            if name != "holdout"
        },
        in_scope=measured_rows(in_scope, script.evaluated_half, script.evaluated_rows),
        judge=judge,
        max_new_tokens=script.max_new_tokens,
        max_length=args.max_length,
        template=args.template,
        chat_template_kwargs=args.template_variables,
    )
    notes = [f"Harmful answers are judged by {judge.name}."]
    return Task(model, sets, suite, oracle, notes=notes, judge=None if isinstance(judge, RecitalJudge) else judge)
