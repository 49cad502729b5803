"""Packaged recipes: each is read by its task into what it says, and builds its objective. No model and no run."""

import json
import re
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
from hf_unlearn.tasks.recipe_files import (
    NOT_MEASURED,
    PACKAGED,
    RecipeAbout,
    about_recipe,
    find_recipe,
    list_recipes,
    packaged_recipes,
    read_recipe,
)
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
    assert objective.forget and bool(objective.retain) == (given(name).get("retain_loss") != "none")
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
    of_papers = {"tofu": "privacy", "muse": "muse", "rwku": "rwku", "wmdp": "wmdp", "knowundo": "custom"}
    first = name.removeprefix("papers/").split("_")[0]
    task = of_papers[first] if name.startswith("papers/") else "harmful" if "/" in name else first
    assert given(name)["task"] == task in TASKS


# What recipes say of themselves

# Files of the repository, with a heading of a page or without; a folder of model_cards holds a card.
PLACE = re.compile(r"(?:docs|model_cards|benchmarks)/[\w./-]+(?:#[\w-]+)?")
METHODS_OF_THE_LAB = "docs/methods.md#the-lab"


def headings(page: Path) -> set[str]:
    """The anchors of a page, as the Hub and GitHub make them."""
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_is_and_where_it_was_measured(name):
    written = yaml.safe_load(find_recipe(name).read_text(encoding="utf-8"))
    about = about_recipe(find_recipe(name))
    assert (about.description, about.measured) == (written["description"], written["measured"])
    assert 20 < len(about.description) <= 76 and not about.description.endswith(".")
    places = PLACE.findall(about.measured)
    if about.measured.startswith(NOT_MEASURED):
        assert about.measured == NOT_MEASURED or (about.measured[len(NOT_MEASURED)] == ";" and places)
    else:
        assert about.measured == ", ".join(places) and places
    for place in places:
        file, _, heading = place.partition("#")
        assert (REPOSITORY / file).exists(), place
        assert not heading or heading in headings(REPOSITORY / file), place


def test_what_was_measured_is_what_the_recipes_say():
    """Equal arguments in the file of figures, and a card of that very recipe."""
    lab = json.loads((REPOSITORY / "benchmarks" / "results" / "methods_lab.json").read_text(encoding="utf-8"))
    measured = {f"methods/{run['recipe']}": run["arguments"] for run in lab["runs"] if run["bound"] == "holdout"}
    claims = {name: about_recipe(find_recipe(name)).measured for name in RECIPES}
    assert {name for name, claim in claims.items() if METHODS_OF_THE_LAB in claim} == set(measured)
    for name, arguments in measured.items():
        recipe = {key: value for key, value in given(name).items() if key not in ("task", "seed")}
        assert recipe == {key: value for key, value in arguments.items() if key not in ("task", "seed")}, name
    cards = {path.parent for path in (REPOSITORY / "model_cards").rglob("results.json")}
    for card in cards:
        recipe = json.loads((card / "results.json").read_text(encoding="utf-8"))["recipe"]
        assert card.relative_to(REPOSITORY).as_posix() in claims[recipe], recipe
    for name, claim in claims.items():
        for place in PLACE.findall(claim):
            assert not place.startswith("model_cards/") or (REPOSITORY / place) in cards
            # The one recipe whose card is another's has that one's method, rows and schedule.
            if place.startswith("model_cards/") and not place.endswith(f"/{name}"):
                other = given(place.removeprefix("model_cards/"))
                assert name == "methods/unseen_level" and set(other) == set(given(name))
                assert {key for key in other if other[key] != given(name)[key]} == {"output_dir", "forget_loss"}
                losses = [Methods.resolve(parsed(one).args).forget for one in (name, "harmful_lab")]
                assert losses[0] == losses[1]


def test_a_recipe_of_ones_own_may_say_it_too_and_it_is_no_argument(tmp_path, monkeypatch):
    own = tmp_path / "own.yaml"
    own.write_text("task: harmful\ndescription: mine\noutput_dir: out\n")
    assert about_recipe(own) == RecipeAbout("mine", "not measured")
    monkeypatch.chdir(tmp_path)
    assert list_recipes(["own.yaml"]) == "own.yaml: not measured\n    mine"
    found = parse_task("harmful", ["--config", str(own), "--use_cpu"])
    assert "description" not in found.recipe_values and found.args.output_dir == "out"
    assert check_task("harmful", ["--config", str(own)])["output_dir"] == "out"
    with pytest.raises(ValueError, match="description"):
        parse_task("harmful", ["--description", "mine", "--use_cpu"])
    own.write_text("task: harmful\ndescription: [mine]\n")
    with pytest.raises(ValueError, match="description that is no text"):
        read_recipe(own)


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
