"""Packaged recipes: each is read by its task into what it says, and builds its objective. No model and no run."""

import tomllib
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import torch
import yaml
from transformers import BitsAndBytesConfig
from trl import get_peft_config

from hf_unlearn.optimizers.named import named_optimizer
from hf_unlearn.tasks import TASKS, check_task, parse_task
from hf_unlearn.tasks.arguments import Parsed
from hf_unlearn.tasks.phases.plan import plan_phases
from hf_unlearn.tasks.recipe_files import PACKAGED, find_recipe, packaged_recipes, read_recipe
from hf_unlearn.training.methods import Methods
from hf_unlearn.training.objective import build_objective

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = packaged_recipes()
# What a value of a recipe becomes where it is not kept as it is.
READ_AS = {("report_to", "none"): [], ("forget_nll_bound", "none"): None}
QUANTISED = ("load_in_4bit", "load_in_8bit")


def given(name: str) -> dict[str, Any]:
    return read_recipe(find_recipe(name))


def parsed(name: str) -> Parsed:
    return parse_task(given(name)["task"], ["--config", name, "--use_cpu"])


def as_read(key: str, value: Any, found: Any) -> Any:
    """What a recipe's value is to come out as; YAML takes 1e-5 for a word, which a parser turns into a number."""
    if isinstance(value, str):
        return float(value) if isinstance(found, float) else READ_AS.get((key, value), value)
    return value


def test_they_are_found_in_all_folders():
    assert {"harmful_lab", "copyright_lab", "privacy_lab", "methods/npo", "edits/msa"} <= set(RECIPES)
    assert len(RECIPES) > 30 and [find_recipe(name) for name in RECIPES] == [PACKAGED / f"{n}.yaml" for n in RECIPES]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_parses_into_what_it_says(name):
    """Every key is an argument of one of the three dataclasses, and has the value that is written there."""
    recipe, found = given(name), parsed(name)
    for key, value in recipe.items():
        if key == "env":
            continue
        holders = [each for each in (found.script, found.args, found.model) if key in {f.name for f in fields(each)}]
        assert len(holders) == 1, key
        held = getattr(holders[0], key)
        held = getattr(held, "value", held)  # an enum of TrainingArguments
        assert held == as_read(key, value, held) and isinstance(held, bool) == isinstance(value, bool), key
    assert found.recipe == name
    values = check_task(recipe["task"], ["--config", name, "--use_cpu"])
    assert values["task"] == recipe["task"] and values["output_dir"] == recipe["output_dir"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds_its_objective_and_its_adapter(name):
    recipe, found = given(name), parsed(name)
    objective = build_objective(Methods.resolve(found.args), found.args)
    assert objective.forget and objective.retain
    assert all(loss.weight > 0 for loss in objective.terms)
    assert objective.forget_weight > 0 and objective.retain_weight > 0
    assert bool(Methods.resolve(found.args).wrappers) == ("step_wrappers" in recipe)
    assert Methods.resolve(found.args).weighting.name
    assert (named_optimizer(found.args) is None) == ("optim" not in recipe)
    adapter = get_peft_config(found.model)
    assert (adapter is not None) is recipe.get("use_peft", False)
    if adapter is not None:
        assert (adapter.r, adapter.lora_alpha) == (recipe["lora_r"], recipe["lora_alpha"])
        assert adapter.task_type == recipe["lora_task_type"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_how_its_model_is_loaded(name):
    recipe, loading = given(name), parsed(name).args.init_kwargs
    assert loading["dtype"] == recipe.get("dtype", "float32")
    quantised = [key for key in QUANTISED if recipe.get(key)]
    assert ("quantization_config" in loading) == bool(quantised)
    if quantised:
        config = loading["quantization_config"]
        assert isinstance(config, BitsAndBytesConfig) and getattr(config, quantised[0]) is True
        assert recipe["use_peft"], "quantised weights cannot be trained themselves"
    if "load_in_4bit" in quantised:
        assert config.bnb_4bit_quant_type == recipe["bnb_4bit_quant_type"]
        assert config.bnb_4bit_compute_dtype == getattr(torch, recipe["dtype"])
        assert config.bnb_4bit_use_double_quant is recipe.get("use_bnb_nested_quant", False)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_opens_with_what_it_is_and_is_named_after_its_task(name):
    opening = find_recipe(name).read_text(encoding="utf-8").splitlines()[0]
    assert opening.startswith("# ") and len(opening) > 20
    task = "harmful" if "/" in name else name.split("_")[0]
    assert given(name)["task"] == task in TASKS


@pytest.mark.parametrize("name", RECIPES)
def test_no_key_stands_twice_in_a_recipe(name):
    """YAML would keep the last one and say nothing."""
    root = yaml.compose(find_recipe(name).read_text(encoding="utf-8"))
    keys = [key.value for key, _ in root.value]
    assert sorted(keys) == sorted(set(keys))


@pytest.mark.parametrize("name", [name for name in RECIPES if "phases" in given(name)])
def test_a_recipe_of_phases_has_phases_that_are_known(name):
    phases = plan_phases("harmful", parsed(name))
    assert [phase.spec()[phase.kind]["name"] for phase in phases][:1] == [
        name.removeprefix("edits/").split("_then_")[0]
    ]


def test_no_two_recipes_write_into_one_folder():
    folders = [given(name)["output_dir"] for name in RECIPES]
    assert len(set(folders)) == len(RECIPES) and all(each.startswith("unlearned/") for each in folders)


def test_they_are_packaged_and_the_examples_have_them_too():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["hf_unlearn"]
    for name in RECIPES:
        assert any(PurePosixPath(f"tasks/recipes/{name}.yaml").match(pattern) for pattern in patterns), name
    assert (REPOSITORY / "examples" / "configs").resolve() == PACKAGED.resolve()


@pytest.mark.parametrize("name", ["harmful", "copyright", "privacy"])
def test_a_task_without_a_recipe_takes_the_labs(name):
    found = parse_task(name, ["--use_cpu"])
    assert found.recipe == f"{name}_lab" and found.script.task == name
    assert found.args.output_dir == given(f"{name}_lab")["output_dir"]
