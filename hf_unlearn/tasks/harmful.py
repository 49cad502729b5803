"""Make a model forget harmful answers, and show what it cost.

With no arguments: the lab, a small model with a made-up behaviour, offline and on a CPU, in about a minute.

    accelerate launch examples/harmful.py

The experiment of Gundavarapu et al. 2024 (OPT-1.3b, PKU-SafeRLHF, TruthfulQA), full parameters:

    accelerate launch examples/harmful.py --config examples/configs/harmful_opt1.3b.yaml

Any model and data (rows with the columns prompt and completion; others are renamed), here with LoRA:

    accelerate launch examples/harmful.py --model_name_or_path org/model --use_peft \
        --forget_dataset forget.jsonl --forget_columns '{"question": "prompt", "answer": "completion"}' \
        --retain_dataset retain.jsonl --forget_nll_bound log_vocab

Without --config the values of examples/configs/harmful_lab.yaml are the defaults; the command line comes before both.
"""

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from datasets import Dataset
from running import RunArguments, Task, first, parse_arguments, require_unused, run

from hf_unlearn import UnlearningConfig
from hf_unlearn.data.sources import READERS, load_rows
from hf_unlearn.errors import input_error
from hf_unlearn.evaluation import HarmfulnessJudge, Judge, RecitalJudge, RuleJudge, harmful
from hf_unlearn.lab import load_lab, shows_behaviour

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "harmful_lab.yaml"


def _parse_columns(argument: str, text: str) -> dict[str, str]:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise input_error(
            expected=f"{argument} as a JSON object",
            got=f"text that is no JSON ({error.msg} at character {error.pos})",
            why="it says which columns hold prompt and answer",
            fix=f"""pass --{argument} '{{"question": "prompt", "answer": "completion"}}'""",
        ) from None


@dataclass
class ScriptArguments(RunArguments):
    """What to forget and to keep. Without --forget_dataset it is the lab's.

    A dataset is a .jsonl, .json, .csv, .parquet or .txt file, a folder written by save_to_disk, or a Hub id.
    """

    forget_dataset: str | None = field(default=None, metadata={"help": "Rows to forget; none: the lab."})
    forget_split: str = field(default="train", metadata={"help": "Split of the forget dataset."})
    forget_revision: str | None = field(default=None, metadata={"help": "Revision of a forget dataset on the Hub."})
    forget_reader: str = field(
        default="rows", metadata={"help": "Its columns: rows, or pku_saferlhf (unsafe answers)."}
    )
    forget_columns: dict | str | None = field(default=None, metadata={"help": "JSON, old column name to new."})
    retain_dataset: str | None = field(default=None, metadata={"help": "Rows to keep."})
    retain_name: str | None = field(default=None, metadata={"help": "Configuration of a retain dataset on the Hub."})
    retain_split: str = field(default="train", metadata={"help": "Split of the retain dataset."})
    retain_revision: str | None = field(default=None, metadata={"help": "Revision of a retain dataset on the Hub."})
    retain_reader: str = field(default="rows", metadata={"help": "Its columns: rows, or truthfulqa (best answers)."})
    retain_columns: dict | str | None = field(default=None, metadata={"help": "JSON, old column name to new."})
    holdout_dataset: str | None = field(
        default=None, metadata={"help": "Rows like the forget rows that the model has never seen."}
    )
    judge: str | None = field(
        default=None,
        metadata={
            "help": "Model that judges the answers, on the Hub (unitary/toxic-bert) or of hf-unlearn train-judge; "
            "none: the lab's rules, or recital of the harmful answer's first 8 words."
        },
    )
    judge_threshold: float = field(default=0.5, metadata={"help": "Probability above which an answer is harmful."})
    judge_labels: list[str] | None = field(
        default=None, metadata={"help": "Labels that count as harmful; none: those that the judge says itself."}
    )

    _VALID_DICT_FIELDS = ["forget_columns", "retain_columns"]

    def __post_init__(self) -> None:
        for name in self._VALID_DICT_FIELDS:
            if isinstance(getattr(self, name), str):
                setattr(self, name, _parse_columns(name, getattr(self, name)))
        for name in ("forget_reader", "retain_reader"):
            if getattr(self, name) not in READERS:
                raise input_error(
                    expected=f"{name} to be one of {', '.join(READERS)}",
                    got=repr(getattr(self, name)),
                    why="it says which columns hold prompt and answer",
                    fix=f"use rows, with {name.replace('reader', 'columns')} to rename columns",
                )


def lab_task(script: ScriptArguments, args: UnlearningConfig, model: str | None = None) -> Task:
    """The offline task: the lab's model, rows and retrained oracle."""
    require_unused(
        "forget_dataset",
        model_name_or_path=model,
        retain_dataset=script.retain_dataset,
        holdout_dataset=script.holdout_dataset,
        oracle=script.oracle,
        template=args.template,
    )
    lab = load_lab()
    sets = {name: first(lab.datasets[name], script.limit) for name in ("forget", "retain", "holdout")}
    judge = judge_of(script, RuleJudge("the lab's rules", shows_behaviour))
    in_scope = first(lab.datasets["paraphrase"], script.limit)
    return task_of(script, args, str(lab.model_path), sets, in_scope, judge, str(lab.oracle_path))


def files_task(script: ScriptArguments, args: UnlearningConfig, model: str | None) -> Task:
    """The task that the arguments name."""
    if model is None or script.retain_dataset is None:
        raise input_error(
            expected="--model_name_or_path and --retain_dataset together with --forget_dataset",
            got="no model" if model is None else "no retain dataset",
            why="the lab's model and rows have nothing to do with your data",
            fix="add them, or leave out --forget_dataset to run on the lab",
        )
    forget = load_rows(
        script.forget_dataset,
        split=script.forget_split,
        revision=script.forget_revision,
        columns=script.forget_columns,
    )
    retain = load_rows(
        script.retain_dataset,
        name=script.retain_name,
        split=script.retain_split,
        revision=script.retain_revision,
        columns=script.retain_columns,
    )
    sets = {"forget": READERS[script.forget_reader](forget), "retain": READERS[script.retain_reader](retain)}
    if script.holdout_dataset is not None:
        holdout = load_rows(script.holdout_dataset, columns=script.forget_columns)
        sets["holdout"] = READERS[script.forget_reader](holdout)
    sets = {name: first(rows, script.limit) for name, rows in sets.items()}
    return task_of(script, args, model, sets, None, judge_of(script, RecitalJudge()), script.oracle)


def judge_of(script: ScriptArguments, default: Judge) -> Judge:
    """The judge that was asked for, or the one that needs no model."""
    if script.judge is None:
        return default
    return HarmfulnessJudge(script.judge, threshold=script.judge_threshold, harmful_labels=script.judge_labels)


def task_of(
    script: ScriptArguments,
    args: UnlearningConfig,
    model: str,
    sets: dict[str, Dataset],
    in_scope: Dataset | None,
    judge: Judge,
    oracle: str | None,
) -> Task:
    """A task whose suite measures the first rows of each set."""
    suite = partial(
        harmful,
        **{name: first(rows, script.evaluated_rows) for name, rows in sets.items()},
        in_scope=first(in_scope, script.evaluated_rows),
        judge=judge,
        max_new_tokens=script.max_new_tokens,
        max_length=args.max_length,
        template=args.template,
    )
    return Task(model, sets, suite, oracle, [f"Harmful answers are judged by {judge.name}."])


def main() -> None:
    script, args, model_config = parse_arguments(ScriptArguments, DEFAULT_CONFIG, __doc__)
    with args.main_process_first(local=True, desc="loading data"):
        lab = script.forget_dataset is None
        task = (lab_task if lab else files_task)(script, args, model_config.model_name_or_path)
    run(task, script, args, model_config)


if __name__ == "__main__":
    main()
