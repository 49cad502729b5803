"""Recipes: YAML files with the arguments of a whole run, found by path or by the name of a packaged one."""

import shutil
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import input_error, nearest, value_error
from ..results.files import read_yaml

PACKAGED = Path(str(resources.files("hf_unlearn.tasks"))).resolve() / "recipes"
NOT_MEASURED = "not measured"
# Keys that say what a recipe is. No arguments of a run, so no run records them.
_ABOUT = ("description", "measured")


@dataclass(frozen=True)
class RecipeAbout:
    """What a recipe says of itself.

    Attributes:
        description: what it does, in a line.
        measured: where its figures are: files and headings of the repository; or "not measured".
    """

    description: str = ""
    measured: str = NOT_MEASURED

    @property
    def measured_words(self) -> str:
        """For a list of recipes."""
        return self.measured if self.measured.startswith(NOT_MEASURED) else f"measured: {self.measured}"


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


def about_recipe(path: Path) -> RecipeAbout:
    """What a recipe says of itself.

    Raises:
        ValueError: as `read_recipe` does.
    """
    values = _read(path)
    return RecipeAbout(**{key: values[key] for key in _ABOUT if key in values})


def list_recipes(names: Iterable[str] | None = None) -> str:
    """Recipes for people: name and where it was measured in a line, what it does in the next.

    Args:
        names: None for all packaged ones.
    """
    width, lines = max(40, shutil.get_terminal_size().columns), []
    for name in packaged_recipes() if names is None else names:
        about = about_recipe(find_recipe(name))
        for text, indent in ((f"{name}: {about.measured_words}", ""), (about.description, "    ")):
            lines += textwrap.wrap(
                text,
                width,
                initial_indent=indent,
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def read_recipe(path: Path) -> dict[str, Any]:
    """The arguments of a recipe by name, and `env`; not what it says of itself (`about_recipe`).

    Raises:
        ValueError: the file is no YAML mapping, or its environment is none.
    """
    return {key: value for key, value in _read(path).items() if key not in _ABOUT}


def _read(path: Path) -> dict[str, Any]:
    try:
        recipe = read_yaml(path)
    except ValueError as error:
        raise _no_recipe(path, str(error)) from None
    for key in _ABOUT:
        if not isinstance(recipe.get(key, ""), str):
            raise _no_recipe(path, f"{key} that is no text")
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
