"""Recipes: YAML files with the arguments of a whole run, found by path or by the name of a packaged one."""

from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import input_error, nearest, value_error
from ..results.files import read_yaml

PACKAGED = Path(str(resources.files("hf_unlearn.tasks"))).resolve() / "recipes"


def packaged_recipes() -> list[str]:
    """Names of the packaged recipes: "harmful_lab", "methods/npo", ..."""
    return sorted(path.relative_to(PACKAGED).with_suffix("").as_posix() for path in PACKAGED.rglob("*.yaml"))


def find_recipe(name: str) -> Path:
    """A recipe by its path, or a packaged one by its name.

    Raises:
        ValueError: there is neither.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path.resolve()
    packaged = PACKAGED / f"{name.removesuffix('.yaml')}.yaml"
    if packaged.is_file() and packaged.resolve().is_relative_to(PACKAGED.resolve()):
        return packaged
    known = nearest(name, packaged_recipes())
    raise value_error("--config", "a YAML file or the name of a packaged recipe", name, known)


def read_recipe(path: Path) -> dict[str, Any]:
    """The keys and values of a recipe.

    Raises:
        ValueError: the file is no YAML mapping, or its environment is none.
    """
    try:
        recipe = read_yaml(path)
    except ValueError as error:
        raise _no_recipe(path, str(error)) from None
    env = recipe.get("env", {})
    if not isinstance(env, dict) or any("=" in str(name) or isinstance(env[name], list | dict) for name in env):
        raise _no_recipe(path, "env without names and values, which are environment variables")
    return recipe


def _no_recipe(path: Path, got: str) -> ValueError:
    return input_error(
        expected=f"{path.name} to hold the arguments of a run, a line `name: value` each",
        got=got,
        why="the run's arguments are read from it",
        fix="compare it with a packaged recipe (hf-unlearn train --list_recipes)",
    )
