"""Make a model forget what it knows of some people (TOFU), and show what it cost.

With no arguments: the lab's invented people, offline and on a CPU, in about two minutes.

    accelerate launch examples/privacy.py

TOFU from the Hub or from a local folder of its JSON files, and any model that was trained on it:

    accelerate launch examples/privacy.py --source locuslab/TOFU --split forget10 --model_name_or_path org/model \
        --forget_nll_bound log_vocab

Forget quality compares with a model that was trained without the forget rows (--oracle), and is given only then.

Without --config the values of examples/configs/privacy_lab.yaml are the defaults; the command line comes before both.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from running import RunArguments, Task, first, parse_arguments, require_unused, run
from trl import ModelConfig

from hf_unlearn import UnlearningConfig
from hf_unlearn.data.sources import load_rows
from hf_unlearn.data.tofu import load_tofu, training_sets
from hf_unlearn.errors import input_error
from hf_unlearn.evaluation import tofu
from hf_unlearn.lab import load_lab

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "privacy_lab.yaml"
# TOFU's names of sets -> the lab's
LAB_SETS = {
    "forget10_perturbed": "forget_perturbed",
    "retain_perturbed": "retain_perturbed",
    "real_authors_perturbed": "real_authors_perturbed",
    "world_facts_perturbed": "world_facts_perturbed",
    "holdout": "holdout",
}


@dataclass
class ScriptArguments(RunArguments):
    """Whom to forget. Without --source it is the lab's people."""

    source: str | None = field(
        default=None, metadata={"help": "TOFU: its id on the Hub, or a folder of its JSON files; none: the lab."}
    )
    split: str = field(default="forget10", metadata={"help": "forget01, forget05 or forget10."})
    source_revision: str | None = field(default=None, metadata={"help": "Revision of a source on the Hub."})
    holdout_dataset: str | None = field(
        default=None, metadata={"help": "Questions and answers about people that no model has seen."}
    )


def lab_task(script: ScriptArguments, args: UnlearningConfig, model: str | None) -> Task:
    """The offline task: the lab's people, and the model retrained without those who are to be forgotten."""
    require_unused(
        "source",
        model_name_or_path=model,
        split=None if script.split == "forget10" else script.split,
        source_revision=script.source_revision,
        holdout_dataset=script.holdout_dataset,
        oracle=script.oracle,
        template=args.template,
    )
    lab = load_lab(world="people")
    args.template = lab.template
    source = {name: lab.datasets[own] for name, own in LAB_SETS.items()}
    suite = partial(
        tofu,
        source,
        limit=script.evaluated_rows,
        max_new_tokens=script.max_new_tokens,
        max_length=args.max_length,
        template=args.template,
    )
    sets = {name: first(lab.datasets[name], script.limit) for name in ("forget", "retain", "holdout")}
    return Task(str(lab.model_path), sets, suite, str(lab.oracle_path))


def tofu_task(script: ScriptArguments, args: UnlearningConfig, model: str | None) -> Task:
    """The task that the arguments name."""
    if model is None:
        raise input_error(
            expected="--model_name_or_path together with --source",
            got="no model",
            why="the lab's model has never seen these people",
            fix="add a model that was trained on TOFU, or leave out --source to run on the lab",
        )
    holdout = None if script.holdout_dataset is None else load_rows(script.holdout_dataset)
    suite = partial(
        tofu,
        script.source,
        script.split,
        holdout=holdout,
        limit=script.evaluated_rows,
        max_new_tokens=script.max_new_tokens,
        max_length=args.max_length,
        template=args.template,
        revision=script.source_revision,
    )
    sets = training_sets(script.source, script.split, revision=script.source_revision)
    data = load_tofu(script.source, script.split, holdout=holdout, revision=script.source_revision)
    if data.holdout is not None:
        names = {"question": "prompt", "answer": "completion"}
        sets["holdout"] = data.holdout.select_columns(list(names)).rename_columns(names)
    return Task(model, {name: first(rows, script.limit) for name, rows in sets.items()}, suite, script.oracle)


def make_task(script: ScriptArguments, args: UnlearningConfig, model_config: ModelConfig) -> Task:
    """The lab's task, or that of the arguments."""
    with args.main_process_first(local=True, desc="loading data"):
        lab = script.source is None
        task = (lab_task if lab else tofu_task)(script, args, model_config.model_name_or_path)
    if task.oracle is None:
        task.notes.append("Without --oracle, a model trained without the forget rows, there is no forget quality.")
    return task


def main() -> None:
    script, args, model_config = parse_arguments(ScriptArguments, DEFAULT_CONFIG, __doc__)
    run(make_task(script, args, model_config), script, args, model_config)


if __name__ == "__main__":
    main()
