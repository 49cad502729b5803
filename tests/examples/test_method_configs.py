"""Recipes of single methods: each is whole, names what it is called after, and builds. No run, and no quality."""

from dataclasses import fields
from typing import Any

import pytest
import yaml
from trl import get_peft_config

from hf_unlearn.optimizers.named import named_optimizer
from hf_unlearn.steps.weighting import Fixed
from hf_unlearn.tasks import parse_task
from hf_unlearn.tasks.arguments import Parsed
from hf_unlearn.tasks.recipe_files import PACKAGED
from hf_unlearn.training.methods import Methods
from hf_unlearn.training.objective import Objective, build_objective

RECIPES = {path.stem: path for path in sorted((PACKAGED / "methods").glob("*.yaml"))}
LORA_KEYS = {"lora_r", "lora_alpha", "lora_target_modules", "lora_task_type"}
# What a recipe has beside the keys of all others, where it is about just that.
OWN_KEYS = {"step_wrappers", "weighting", "optim", "optim_args", "lr_scheduler_kwargs", "warmup_steps"}
ABOUT = {"description", "measured"}  # of the recipe, no argument of a run
OWN_KEYS |= {"levels", "recalibrate_steps", "anchor_loss", "anchor_weight", "anchor_ratio"}


def given(name: str) -> dict[str, Any]:
    recipe = yaml.safe_load(RECIPES[name].read_text(encoding="utf-8"))
    return {key: value for key, value in recipe.items() if key not in ABOUT}


def parsed(name: str) -> Parsed:
    return parse_task("harmful", ["--config", str(RECIPES[name]), "--use_cpu"])


def objective_of(args) -> Objective:
    return build_objective(Methods.resolve(args), args)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_parses_into_what_it_says_and_builds(name):
    found = parsed(name)
    own, args, model = found.script, found.args, found.model
    assert own.forget_dataset is None  # the lab, unless the command line names data
    for key, value in given(name).items():
        (holder,) = [each for each in (own, args, model) if key in {field.name for field in fields(each)}]
        found = getattr(holder, key)
        # YAML's text for "no reporting"; enums of TrainingArguments hold their text as value
        expected = [] if (key, value) == ("report_to", "none") else value
        assert getattr(found, "value", found) == expected, key
    objective = objective_of(args)
    assert objective.forget and objective.retain
    assert all(loss.weight > 0 for loss in objective.terms)
    assert objective.forget_weight > 0 and objective.retain_weight > 0
    assert len(Methods.resolve(args).wrappers) == ("step_wrappers" in given(name))
    assert isinstance(Methods.resolve(args).weighting, Fixed) == ("weighting" not in given(name))
    assert (named_optimizer(args) is None) == ("optim" not in given(name))
    assert (get_peft_config(model) is not None) is given(name)["use_peft"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_named_after_what_it_shows(name):
    """First the forget loss, then what is beside the retain NLL and plain steps; RMU's partner goes without saying."""
    args = parsed(name).args
    objective = objective_of(args)
    (forget,) = objective.forget
    parts = [forget.name, *(loss.name for loss in objective.retain if loss.name not in ("nll", "hidden"))]
    parts += [each.name for each in Methods.resolve(args).wrappers]
    weighting = Methods.resolve(args).weighting
    parts += [] if isinstance(weighting, Fixed) else [weighting.name]
    parts += [args.optim] if named_optimizer(args) else []
    assert name == "_".join(parts)


def test_recipes_differ_in_their_method_and_in_no_other_key():
    lengths = {}
    for name in RECIPES:
        recipe = given(name)
        keys = set(recipe) - OWN_KEYS
        lengths[name] = len(keys)
        assert keys == set(given("npo")) - (set() if recipe["use_peft"] else LORA_KEYS), name
        # A loss of levels comes back to them by itself.
        assert recipe["forget_nll_bound"] == (None if "levels" in recipe else "holdout") and recipe["seed"] == 0
        assert recipe["output_dir"] == f"unlearned/methods/{name}"
    assert min(lengths.values()) > 10 and set(lengths.values()) == {lengths["npo"], lengths["npo"] - len(LORA_KEYS)}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_opens_with_what_the_method_is(name):
    """Formula and paper, and what had to be chosen, above the first key."""
    lines = RECIPES[name].read_text(encoding="utf-8").splitlines()
    opening = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    (forget,) = objective_of(parsed(name).args).forget
    assert 2 <= len(opening) <= 4 and (not forget.paper or "arXiv:" in opening[0])
    assert max(map(len, lines)) <= 119
