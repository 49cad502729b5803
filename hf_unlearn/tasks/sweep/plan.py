"""What a sweep is asked for, checked before anything runs: recipe, space, budget, seeds."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ...data.holdout_split import CALIBRATION
from ...errors import input_error, require_choice, require_range, value_error
from ...model.fingerprints import hash_parts
from ...training.method_specs import anchor_losses, forget_losses, retain_losses, step_wrappers, weighting_of
from .. import check_task, default_recipe
from ..command_file import located
from ..command_words import split_config
from ..recipe_files import find_recipe, packaged_recipes, read_recipe
from .objectives import NAMES
from .space import RATE_AND_WEIGHTS, Parameter, read_space, with_values

QUICK = "quick"
PRESETS = (QUICK,)
SAMPLERS = ("tpe", "nsga2", "random")
_QUICK_RUNS, _QUICK_STEPS = 6, 1 / 3
FRESH_SEEDS = (1, 2)
# What `--method` takes from a method's recipe. Rate, adapter and steps belong to the model, and stay.
_OF_METHOD = (
    *(
        "forget_loss",
        "retain_loss",
        "forget_weight",
        "retain_weight",
        "weighting",
        "step_wrappers",
        "forget_nll_bound",
    ),
    *("levels", "recalibrate_steps", "anchor_loss", "anchor_weight", "anchor_ratio", "optim", "optim_args"),
)
# Of a run by itself, which many runs in a row cannot have.
_REFUSED = {
    "phases": "a sweep varies one training",
    "push_to_hub": "a sweep is many runs; push the best one afterwards, with hf-unlearn push",
    "resume_from_checkpoint": "a sweep goes on by itself from what is in its folder",
    "show_rows": "it trains nothing; hf-unlearn train has it",
    "evaluated_half": "a sweep chooses on one half of the rows and reports on the other",
}
# Of the runs that are reported alone, not of those that are compared.
_OF_REPORT = ("attack", "show_prompts", "license", "language", "partial_dir", "report_to", "run_name")
_SPECS = {
    "forget_loss": forget_losses,
    "retain_loss": retain_losses,
    "anchor_loss": anchor_losses,
    "step_wrappers": step_wrappers,
    "weighting": weighting_of,
}


@dataclass(frozen=True)
class SweepPlan:
    """A sweep, ready to run.

    Attributes:
        task: of the recipe.
        folder: of the sweep.
        recipe: values of the recipe with the words of the command line in it; what a run that is reported takes.
        space: what is varied.
        runs: how many, failed ones among them; None for no limit.
        minutes: after which no further run starts; None for no limit.
        sampler: of `SAMPLERS`.
        seed: of the sampler, and of every run that is compared.
        fresh_seeds: of the runs that are reported.
        objectives: names of those that are asked for; None for all that there are.
        steps: share of the recipe's steps that a compared run takes.
    """

    task: str
    folder: Path
    recipe: Mapping[str, Any]
    space: Sequence[Parameter]
    runs: int | None
    minutes: float | None
    sampler: str
    seed: int
    fresh_seeds: Sequence[int]
    objectives: Sequence[str] | None
    steps: float = 1.0
    known: Mapping[str, Any] = field(default_factory=dict)

    def trial_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The recipe of a run that is compared."""
        recipe = {name: value for name, value in with_values(self.recipe, values).items() if name not in _OF_REPORT}
        recipe |= {"report_to": "none", "save_strategy": "no", "evaluated_half": CALIBRATION, "seed": self.seed}
        if self.steps != 1.0:
            most, epochs = self.known["max_steps"], self.known["num_train_epochs"]
            recipe |= {"max_steps": max(1, round(most * self.steps))} if most > 0 else {}
            recipe |= {"num_train_epochs": epochs * self.steps} if most <= 0 else {}
        return recipe

    def identity(self) -> dict[str, str]:
        """Hashes of what two starts of one sweep must have in common."""
        return {
            "recipe": hash_parts({"task": self.task, "recipe": self.trial_values({})}),
            "space": hash_parts({"space": [repr(parameter) for parameter in self.space]}),
            "objectives": ", ".join(self.objectives or NAMES),
        }


@dataclass(frozen=True)
class SweepRequest:
    """What a command line asks of a sweep; `words` are the task's. The other attributes are those of `SweepPlan`."""

    task: str
    words: Sequence[str]
    method: str | None = None
    space: str | None = None
    runs: int | None = None
    minutes: float | None = None
    sampler: str = SAMPLERS[0]
    fresh_seeds: Sequence[int] | None = None
    objectives: Sequence[str] | None = None
    preset: str | None = None


def plan_sweep(request: SweepRequest) -> SweepPlan:
    """Read and check what a sweep is asked for.

    Raises:
        ValueError: an unknown method, an empty space or one with an unknown parameter or values that no run could
            take, no budget, or arguments of a run that a sweep cannot have.
    """
    quick = request.preset is not None
    if quick:
        require_choice("--preset", request.preset, PRESETS)
    require_choice("--sampler", request.sampler, SAMPLERS)
    runs = _QUICK_RUNS if quick and request.runs is None and request.minutes is None else request.runs
    if runs is None and request.minutes is None:
        raise input_error(
            expected="--runs or --minutes",
            got="neither",
            why="a sweep goes on until its budget is used up",
            fix="add --runs 12, or --preset quick",
        )
    for name, value, whole in (("--runs", runs, True), ("--minutes", request.minutes, False)):
        if value is not None:
            require_range(name, value, above=0, whole=whole)
    recipe, known = _recipe(request)
    space = read_space(request.space or (RATE_AND_WEIGHTS if quick else None), known)
    recipe |= {path: known[path] for path in {one.path.split(".")[0] for one in space if "." in one.path}}
    plan = SweepPlan(
        task=request.task,
        folder=Path(known["output_dir"]),
        recipe=recipe,
        space=space,
        runs=runs,
        minutes=request.minutes,
        sampler=request.sampler,
        seed=known["seed"],
        fresh_seeds=tuple(FRESH_SEEDS if request.fresh_seeds is None else request.fresh_seeds),
        objectives=request.objectives,
        steps=_QUICK_STEPS if quick else 1.0,
        known=known,
    )
    _require_fresh(plan)
    for values in ({one.path: one.ends()[end] for one in space} for end in (0, 1)):
        _require_valid(plan.task, plan.trial_values(values))
    return plan


def _recipe(request: SweepRequest) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recipe with method and words in it, and every argument with its value."""
    config, words = split_config(request.words)
    values = _default_recipe(request.task) if config is None else dict(read_recipe(find_recipe(config)))
    if request.method is not None:
        values = {name: value for name, value in values.items() if name not in _OF_METHOD} | _method(request.method)
    with tempfile.TemporaryDirectory() as scratch:
        known = check_task(request.task, [*_written(scratch, values), *words])
    given = {word.partition("=")[0].removeprefix("--").replace("-", "_") for word in words if word.startswith("--")}
    given = {name if name in known else name.removeprefix("no_") for name in given}
    recipe = values | {name: known[name] for name in given}
    for name, why in _REFUSED.items():
        if known.get(name) not in (None, False):
            raise value_error(f"--{name}", "left out in a sweep", known[name], why)
    if not known["measure"]:
        raise value_error("--measure", "true in a sweep", False, "its runs are compared by what is measured")
    return {name: located(name, value) for name, value in recipe.items() if name not in ("output_dir", "seed")}, known


def _written(folder: str, values: Mapping[str, Any]) -> list[str]:
    if not values:
        return []
    file = Path(folder) / "recipe.yaml"
    file.write_text(yaml.safe_dump(dict(values)), encoding="utf-8")
    return ["--config", str(file)]


def _default_recipe(task: str) -> dict[str, Any]:
    name = default_recipe(task)
    return {} if name is None else dict(read_recipe(find_recipe(name)))


def _method(name: str) -> dict[str, Any]:
    """What a packaged recipe of a method says of the method."""
    methods = [recipe.removeprefix("methods/") for recipe in packaged_recipes() if recipe.startswith("methods/")]
    require_choice("--method", name, methods)
    recipe = read_recipe(find_recipe(f"methods/{name}"))
    return {key: recipe[key] for key in _OF_METHOD if key in recipe}


def _require_fresh(plan: SweepPlan) -> None:
    for seed in plan.fresh_seeds:
        require_range("--fresh_seeds", seed, at_least=0, whole=True)
    if not plan.fresh_seeds or plan.seed in plan.fresh_seeds or len(set(plan.fresh_seeds)) < len(plan.fresh_seeds):
        raise value_error(
            "--fresh_seeds",
            f"seeds, each once, none of them {plan.seed}",
            list(plan.fresh_seeds),
            "with the seed of the runs that were compared, the best one's luck would be reported",
        )


def _require_valid(task: str, values: Mapping[str, Any]) -> None:
    """Raise for a recipe that a run would refuse."""
    with tempfile.TemporaryDirectory() as scratch:
        known = check_task(task, [*_written(scratch, values), "--output_dir", scratch])
    for name, read in _SPECS.items():
        read(known[name])
