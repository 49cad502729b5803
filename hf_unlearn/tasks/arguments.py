"""The arguments of a run: a task's own, UnlearningConfig's and ModelConfig's, from YAML and the command line."""

import argparse
import os
import shlex
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trl import ModelConfig, TrlParser, get_quantization_config

from ..data.holdout_split import HALVES
from ..errors import input_error, require_choice
from ..training.argument_fields import check_fields, checked_values
from ..training.argument_ranges import OF_TRAINER, RANGES
from ..training.config import UnlearningConfig
from ..training.hooks.run_description import is_path
from .argument_ranges import MODEL_RANGES, OF_TRL, TASK_RANGES, check_model_arguments
from .command_words import is_secret, require_known, split_config
from .flag_words import underscored
from .recipe_files import PACKAGED, find_recipe, read_recipe

# Flags that another's repetition of a run does without; those of a push and a token, too.
_OF_THIS_RUN = (
    "output_dir",
    "partial_dir",
    "reference_cache_dir",
    "row_cache_dir",
    "use_cpu",
    "resume_from_checkpoint",
    "show_prompts",
    "show_rows",
    "push_to_hub",
    "run_name",
    "license",
    "language",
    "report_to",
)


@dataclass
class RunArguments:
    """Arguments of every task."""

    task: str | None = field(
        default=None,
        metadata={
            "help": "What is to be forgotten: harmful, copyright, privacy, deletion, muse, rwku, wmdp or custom."
        },
    )
    continue_from: str | None = field(
        default=None,
        metadata={"help": "Folder of an earlier run, whose weights are the model of this one, in place of another."},
    )
    oracle: str | None = field(default=None, metadata={"help": "Model that has never seen the forget rows."})
    limit: int | None = field(default=None, metadata={"help": "At most so many rows of each set."})
    measure: bool = field(
        default=True, metadata={"help": "Measure before and after; false: train and save, hf-unlearn evaluate later."}
    )
    evaluated_rows: int = field(default=200, metadata={"help": "Rows of each set that the model is measured on."})
    evaluated_half: str | None = field(
        default=None,
        metadata={
            "help": "Half of the rows that the model is measured on, by a hash of each row: calibration (what a "
            "sweep chooses by) or reporting (the others); none: all."
        },
    )
    max_new_tokens: int | None = field(
        default=None,
        metadata={"help": "Longest generated answer; none: as long as the longest expected one, 256 tokens at most."},
    )
    phases: dict[str, Any] | str | list[Any] | None = field(
        default=None,
        metadata={"help": 'Phases of the run as JSON: [{"edit": "task_vector"}, {"train": {}}]; none: one training.'},
    )
    checkpoint: str | None = field(
        default=None, metadata={"help": "Model from before it learnt the forget rows, for edits that start from one."}
    )
    attack: str | None = field(
        default=None,
        metadata={"help": "Suite of attacks to try at the end (quick, standard, thorough); none: no attack."},
    )
    force: bool = field(
        default=False, metadata={"help": "Go on although the model does not seem to know the rows of the run."}
    )
    show_prompts: str | None = field(
        default=None,
        metadata={
            "help": "Text file, a prompt a line, whose answers may be shown side by side in the report; none: no text."
        },
    )
    show_rows: int | None = field(
        default=None, metadata={"help": "Print so many rows of each set as they would be trained, and end."}
    )
    partial_dir: str | None = field(
        default=None,
        metadata={"help": "Folder for unfinished evaluations, from which a killed run goes on. It holds answers."},
    )
    license: str | None = field(default=None, metadata={"help": "Licence of the result for its card: apache-2.0, ..."})
    language: list[str] | None = field(default=None, metadata={"help": "Languages for the card, as ISO codes: en"})


@dataclass
class Parsed:
    """The arguments of a run, from its command line and recipe.

    Attributes:
        script: the task's own arguments.
        args: of the run.
        model: of TRL's ModelConfig.
        recipe: the packaged recipe and what was changed of it, as `hf-unlearn train --config` takes it; None where
            the run cannot be repeated from these words.
        recipe_values: what the recipe holds, by name.
        words: of the command line, beside the recipe.
    """

    script: Any  # RunArguments, or what a task makes of it
    args: UnlearningConfig
    model: ModelConfig
    recipe: str | None = None
    recipe_values: dict[str, Any] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)


def parse_arguments(
    task: str,
    script: type[RunArguments],
    default_recipe: str | None,
    description: str | None,
    arguments: Sequence[str] | None,
) -> Parsed:
    """A task's arguments: the recipe's values as defaults, the command line on top.

    Args:
        task: its name.
        script: dataclass of the task's own arguments.
        default_recipe: packaged recipe that is taken where no `--config` is given.
        description: of `--help`.
        arguments: the command line; None for that of the process.

    Raises:
        ValueError: a key or flag that none of the three dataclasses has, a recipe that is nowhere, or one of another
            task.
    """
    parser, path, rest = _checked(task, script, default_recipe, description, arguments)
    values = {} if path is None else read_recipe(path)
    os.environ.update({name: str(value) for name, value in values.get("env", {}).items()})
    parser.set_defaults_with_config(**{name: value for name, value in values.items() if name != "env"})
    try:
        own, args, model = parser.parse_args_and_config(rest)
    except TypeError as error:  # a list or a mapping in a recipe where TrainingArguments calculates with a number
        raise input_error(
            expected="values of the types that the arguments have",
            got=str(error),
            why="an argument cannot be read",
            fix="compare the recipe with a packaged one, and each value with hf-unlearn train --help_all",
        ) from None
    _require_task(task, own.task)
    check_fields(own, TASK_RANGES)
    _require_half(own.evaluated_half)
    _require_one_model(own.continue_from, values, rest)
    for name, folder in (("output_dir", args.output_dir), ("partial_dir", own.partial_dir)):
        _require_folder(name, folder)
    check_model_arguments(model)
    if model.model_name_or_path is not None and Path(model.model_name_or_path).is_dir():
        # An adapter's config names its base so, and is read from other places than where the run was started.
        model.model_name_or_path = str(Path(model.model_name_or_path).absolute())
    args.model_init_kwargs = _loading(model) | args.init_kwargs
    return Parsed(own, args, model, _repeated(path, rest), values, rest)


def check_arguments(
    task: str,
    script: type[RunArguments],
    default_recipe: str | None,
    arguments: Sequence[str],
    own: Collection[str] = (),
) -> dict[str, Any]:
    """Refuse what `parse_arguments` would, without making the dataclasses, which look for devices and processes.

    Args:
        task: that the arguments are of.
        script: its own arguments.
        default_recipe: where none is named.
        arguments: the words of a command line.
        own: names of the command's own arguments, one of which may have been meant by an unknown one.

    Returns:
        the values by name, as the command line and the recipe have them.
    """
    parser, path, rest = _checked(task, script, default_recipe, None, arguments, own)
    recipe = {} if path is None else read_recipe(path)
    parser.set_defaults_with_config(**{name: value for name, value in recipe.items() if name != "env"})
    values = vars(parser.parse_args(rest))
    _require_task(task, values["task"])
    _require_one_model(values["continue_from"], recipe, rest)
    for kind, ranges in ((script, TASK_RANGES), (UnlearningConfig, RANGES), (ModelConfig, MODEL_RANGES)):
        values |= checked_values(kind, values, ranges, skipped=(*OF_TRAINER, *OF_TRL))
    _require_half(values["evaluated_half"])
    return values


def _require_half(half: str | None) -> None:
    if half is not None:
        require_choice("evaluated_half", half, HALVES)


def _checked(
    task: str,
    script: type[RunArguments],
    default_recipe: str | None,
    description: str | None,
    arguments: Sequence[str] | None,
    own: Collection[str] = (),
) -> tuple[TrlParser, Path | None, list[str]]:
    """The parser, the recipe's path and the other arguments, none of them unknown."""
    recipe, rest = split_config(underscored(sys.argv[1:] if arguments is None else arguments))
    recipe = recipe or default_recipe
    path = None if recipe is None else find_recipe(recipe)
    values = {} if path is None else read_recipe(path)
    # Before its keys, which another task may have no use for.
    _require_task(task, values.get("task"))
    parser = TrlParser(
        (script, UnlearningConfig, ModelConfig),
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    require_known(parser, rest, values, own)
    return parser, path, rest


def _require_folder(name: str, folder: str | None) -> None:
    """Raise for what is no folder and cannot become one, before rows are put into it."""
    if folder is None:
        return
    path = Path(folder)
    file = next((place for place in (path, *path.parents) if place.is_file()), None)
    if not str(folder) or file is not None:
        got = "an empty text" if file is None else f"{folder}, where {file.name} is a file"
        why = "what the run writes would lie in no folder"
        raise input_error(expected=f"--{name} to be a folder", got=got, why=why, fix="name a new folder")


def _require_one_model(continued: str | None, recipe: dict[str, Any], words: Sequence[str]) -> None:
    """Raise for an earlier run beside a model. The model of a recipe yields to a run that the command line names."""
    if continued is None:
        return
    flags = {word.partition("=")[0].removeprefix("--") for word in words if word.startswith("--")}
    if "model_name_or_path" in flags or ({"continue_from", "model_name_or_path"} <= {*recipe} - flags):
        raise input_error(
            expected="--continue_from without --model_name_or_path",
            got="both",
            why="each names the weights that the run starts from",
            fix="leave out --model_name_or_path; the earlier run's folder has model and tokenizer",
        )


def _require_task(name: str, named: str | None) -> None:
    if named not in (None, name):
        raise input_error(
            expected=f"a recipe of the task {name}",
            got=f"one of the task {named}",
            why="its arguments would be read as something else",
            fix=f"run it with `hf-unlearn train --task {named} --config ...`",
        )


def _loading(model: ModelConfig) -> dict[str, Any]:
    """The keyword arguments of `from_pretrained` that ModelConfig holds."""
    quantization = get_quantization_config(model)
    return {
        "dtype": model.dtype,
        "revision": model.model_revision,
        **({"attn_implementation": model.attn_implementation} if model.attn_implementation else {}),
        **({"quantization_config": quantization} if quantization else {}),
    }


def _repeated(path: Path | None, rest: Sequence[str]) -> str | None:
    """The packaged recipe with the flags given beside it; None if a flag names a path, which nobody else has."""
    if path is None or not path.is_relative_to(PACKAGED):
        return None
    kept, left_out = [path.relative_to(PACKAGED).with_suffix("").as_posix()], False
    for word in rest:
        if word.startswith("--"):
            left_out = _is_of_this_run(word.removeprefix("--").partition("=")[0])
        if not left_out:
            kept.append(word)
    if any(is_path(word.partition("=")[2] or word) for word in kept[1:]):
        return None
    return shlex.join(kept)  # it goes into a shell's command


def _is_of_this_run(flag: str) -> bool:
    """Whether a flag says where a run takes place and for whom, not what it does."""
    return flag in _OF_THIS_RUN or flag.startswith("hub_") or is_secret(flag)
