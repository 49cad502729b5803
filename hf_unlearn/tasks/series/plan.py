"""Plans the runs of a series: each method put over the recipe of the command, with each seed. All are checked here."""

import json
import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ...errors import input_error, nearest, value_error
from ...losses import FORGET_LOSSES
from ...results.files import atomic_write_text
from ...training.method_specs import parse_text
from ...training.methods import Methods
from .. import check_task
from ..command_words import kept_words, split_config
from ..recipe_files import find_recipe, packaged_recipes, read_recipe
from .planned_run import PlannedRun

RECIPES = "recipes"  # folder beside those of the runs, with the recipe of each method that is made of two
# The plain recipe, into which a loss is put where the recipe of the command is made for the levels of its own loss.
PLAIN = "methods/npo"
_FOLDERS = ("", "methods/", "edits/")  # of packaged recipes, in which a method is looked for
# What makes a method, beside rate, length and adapter.
OBJECTIVE = (
    *("forget_loss", "retain_loss", "anchor_loss", "forget_weight", "retain_weight", "anchor_weight"),
    *("retain_ratio", "anchor_ratio", "forget_nll_bound", "forget_bound_sides", "levels", "recalibrate_steps"),
    *("step_wrappers", "weighting", "phases", "optim", "optim_args", "stop_at_level", "stop_forget_nll"),
)
_OF_LEVELS = ("levels", "recalibrate_steps", "forget_nll_bound", "forget_bound_sides", "stop_at_level")
_OWN = re.compile(r"\w+_(dataset|book)|model_name_or_path|continue_from|source|book")  # model or rows of one's own
_NAMES_UNSEEN = ("harmful", "copyright", "custom")  # tasks whose unseen rows are named by a flag, or there are none
# Flags that would give all runs of a series the same method, seed or place.
_OF_THE_SERIES = ("seed", "forget_loss", "phases", "resume_from_checkpoint", "hub_model_id", "show_rows")


@dataclass(frozen=True)
class _Method:
    """A method as a run takes it: words, and where two recipes make it, what they come to."""

    name: str
    words: list[str]
    recipe: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Series:
    """What a command asks for.

    Attributes:
        task: that is run.
        methods: packaged recipes, recipe files, names of losses or specs of losses; () for the recipe as it is.
        seeds: texts of whole numbers; () for the recipe's own.
        words: of the command line for every run, --config and --output_dir among them.
        launch: flags of accelerate with their values.
    """

    task: str
    methods: Sequence[str]
    seeds: Sequence[str]
    words: Sequence[str]
    launch: Sequence[str] = field(default=())


def plan_series(series: Series, own: Collection[str] = ()) -> tuple[Path, list[PlannedRun]]:
    """The folder of a series and its runs, a method and a seed each, all of them checked.

    A packaged recipe is run as it is where it is of the same lab task as the recipe of the command. Put over rows or a
    model of one's own, for which it was not tuned, it gives its objective alone: rate, length and adapter stay those
    of the command. A recipe file of one's own gives all that it holds. A loss takes the place of the recipe's.

    Args:
        series: what is asked for.
        own: names of the command's own arguments, one of which may have been meant by an unknown one.

    Raises:
        ValueError: a method that nothing is called, a seed that is no number, a name twice, or arguments that a run
            would refuse.
    """
    base, words = split_config(list(series.words))
    _refuse_shared(words)
    values = {} if base is None else read_recipe(find_recipe(base))
    output = Path(_value_of("output_dir", words) or values.get("output_dir") or "unlearned/series")
    words = kept_words(words, lambda flag: flag != "output_dir")
    seeds: list[int | None] = [_seed(text) for text in series.seeds] or [None]
    given = [_method(text, series.task, base, values, words) for text in series.methods]
    methods = given or [_Method(_slug(Path(base or series.task).stem), [] if base is None else ["--config", base])]
    runs = []
    for method in methods:
        _check(method, series.task, words, own)
        place = output.absolute() / RECIPES / f"{method.name}.yaml"
        own_words = method.words if method.recipe is None else ["--config", str(place)]
        for seed in seeds:
            name = method.name if seed is None else f"{method.name}-seed-{seed}"
            seeded = [] if seed is None else ["--seed", str(seed)]
            arguments = ("--task", series.task, *own_words, *words, *seeded, *series.launch)
            runs.append(PlannedRun(output / name, arguments))
    _require_apart([run.name for run in runs])
    for method in methods:  # nothing is written before all of them have passed
        if method.recipe is not None:
            atomic_write_text(output / RECIPES / f"{method.name}.yaml", _as_yaml(method.recipe))
    return output, runs


def _method(text: str, task: str, base: str | None, values: Mapping[str, Any], words: Sequence[str]) -> _Method:
    """What a word of --methods stands for: a packaged recipe, a file, or a loss."""
    packaged = next((name for name in (f"{f}{text}" for f in _FOLDERS) if name in packaged_recipes()), None)
    if packaged is not None:
        recipe = read_recipe(find_recipe(packaged))
        name = packaged.rpartition("/")[2]
        if _of_the_lab(recipe.get("task"), task, values, words):
            return _Method(name, ["--config", packaged])
        objective = {key: recipe[key] for key in OBJECTIVE if key in recipe}
        if _has_no_unseen_rows(task, values, words):
            objective = _without_unseen_rows(name, objective)
        return _Method(name, [], _without(values, OBJECTIVE) | objective | {"task": task})
    if text.endswith((".yaml", ".yml")) or Path(text).is_file():
        recipe = read_recipe(find_recipe(text))
        dropped = OBJECTIVE if {"forget_loss", "phases"} & set(recipe) else ()
        return _Method(_slug(Path(text).stem), [], _without(values, dropped) | {"task": task} | recipe)
    return _loss(text, task, base, values, words)


def _loss(text: str, task: str, base: str | None, values: Mapping[str, Any], words: Sequence[str]) -> _Method:
    """A loss in the place of the recipe's, which is the plain one where the recipe is made for its own loss."""
    spec = parse_text(text)
    names = _names(spec)
    unknown = [name for name in names if name not in FORGET_LOSSES]
    if not names or unknown:
        known = {*FORGET_LOSSES, *(name.removeprefix("methods/") for name in packaged_recipes())}
        hint = f"--plugins my_loss.py brings a loss of your own; {nearest(unknown[0] if unknown else text, known)}"
        raise value_error("--methods", "packaged recipes, recipe files, or forget losses", text, hint)
    name = _slug(text if isinstance(spec, str) else _told(spec))
    led = values.get("levels") not in (None, "none") and values.get("forget_nll_bound") != "levels"
    if not led or names == _names(values.get("forget_loss")):
        return _Method(name, [*([] if base is None else ["--config", base]), "--forget_loss", text])
    if _of_the_lab(read_recipe(find_recipe(PLAIN)).get("task"), task, values, words):
        return _Method(name, ["--config", PLAIN, "--forget_loss", text])
    return _Method(name, [], _without(values, _OF_LEVELS) | {"forget_loss": spec, "task": task})


def _of_the_lab(of: Any, task: str, values: Mapping[str, Any], words: Sequence[str]) -> bool:
    """Whether a packaged recipe's task is run on the lab's model and rows, for which the recipe was tuned."""
    return of == task and not any(_OWN.fullmatch(name) for name in {*values, *_flags(words)})


def _has_no_unseen_rows(task: str, values: Mapping[str, Any], words: Sequence[str]) -> bool:
    """Whether rows of one's own are known to come without unseen ones beside them."""
    given = {*values, *_flags(words)}
    own = any(_OWN.fullmatch(name) for name in given)
    return task in _NAMES_UNSEEN and own and not any(name.startswith("holdout_") for name in given)


def _without_unseen_rows(name: str, objective: dict[str, Any]) -> dict[str, Any]:
    """The objective of a packaged recipe, whose bound is that of unseen rows, with the default's: log V."""
    if objective.get("levels") != "holdout" and objective.get("anchor_loss") in (None, "none"):
        return {key: value for key, value in objective.items() if (key, value) != ("forget_nll_bound", "holdout")}
    raise input_error(
        expected=f"unseen rows (--holdout_dataset, --holdout_book) for the method {name}",
        got="rows of your own without them",
        why="it leads rows to what unseen rows of their kind get, or holds such rows",
        fix=f"name rows that the model was never trained on, or leave {name} out",
    )


def _check(method: _Method, task: str, words: Sequence[str], own: Collection[str]) -> None:
    """Refuse what the runs of a method would refuse before they load anything."""
    with tempfile.TemporaryDirectory() as scratch:
        config = method.words
        if method.recipe is not None:
            place = Path(scratch) / f"{method.name}.yaml"
            place.write_text(_as_yaml(method.recipe), encoding="utf-8")
            config = ["--config", str(place)]
        try:
            found = check_task(task, [*config, *words], own)
            if found.get("phases") is None:
                names = ("forget_loss", "retain_loss", "step_wrappers", "weighting", "anchor_loss")
                Methods.parse(*(found[name] for name in names))
        except ValueError as error:
            raise ValueError(f"the method {method.name}: {error}") from None


def _flags(words: Sequence[str]) -> list[str]:
    """Names of the arguments on a command line."""
    return [word.removeprefix("--").partition("=")[0].replace("-", "_") for word in words if word.startswith("--")]


def _refuse_shared(words: Sequence[str]) -> None:
    shared = next((flag for flag in _OF_THE_SERIES if flag in _flags(words)), None)
    if shared is None:
        return
    raise input_error(
        expected="--methods and --seeds without what each run has of its own",
        got=f"--{shared}",
        why="all runs of the series would share it; a run that was killed goes on by itself",
        fix=f"leave --{shared} out"
        + {"seed": ": --seeds 0 1 2", "forget_loss": ": --methods npo simnpo"}.get(shared, ""),
    )


def _require_apart(names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise input_error(
            expected="a name of its own for each run",
            got=f"{twice} twice",
            why="both would be written into one folder",
            fix="name each method and each seed once, and give a recipe file another name than a packaged recipe",
        )


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise value_error("--seeds", "whole numbers of at least 0", text)
    return int(text)


def _value_of(name: str, words: Sequence[str]) -> str | None:
    """The value of a flag, the last one of several."""
    value = None
    for place, word in enumerate(words):
        flag, is_whole, given = word.partition("=")
        if flag.replace("-", "_") == f"__{name}":
            value = given if is_whole else next(iter(words[place + 1 :]), None)
    return value


def _names(spec: Any) -> list[str]:
    """The losses that a spec names; [] where it is none."""
    parts = spec if isinstance(spec, list) else [spec]
    names = [part.get("name") if isinstance(part, Mapping) else part for part in parts]
    return [name for name in names if isinstance(name, str)] if all(isinstance(n, str) for n in names) else []


def _told(spec: Any) -> str:
    """A spec as the name of a folder: npo-beta-0.5."""
    parts = spec if isinstance(spec, list) else [spec]
    return "+".join("-".join(_words_of(part)) for part in parts)


def _words_of(part: Any) -> list[str]:
    if not isinstance(part, Mapping):
        return [str(part)]
    return [str(part["name"]), *(str(word) for pair in part.items() if pair[0] != "name" for word in pair)]


def _slug(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.") or "method"


def _without(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _as_yaml(values: Mapping[str, Any]) -> str:
    # By way of JSON: a recipe's own anchors would be written as such.
    return yaml.safe_dump(json.loads(json.dumps(values, default=str)), sort_keys=False)
