"""The command of a run, kept in its folder (command.json), so that the folder is enough to load its rows again."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import input_error
from ..model.fingerprints import hash_parts
from ..plugins import load_plugins, plugin_file
from ..results.files import atomic_write_text, read_json
from ..results.schema import as_json
from ..training.hooks.run_description import changed_arguments, is_path
from .arguments import Parsed
from .command_words import is_secret, kept_words
from .task import Task

COMMAND_FILE = "command.json"
_FORMAT = 1
# Of the command that started the run, not of one that reads it again.
_LEFT_OUT = ("output_dir", "resume_from_checkpoint", "push_to_hub", "show_rows", "show_prompts", "attack")

# Arguments that may name a file or a folder.
_PLACES = re.compile(
    r"\w+_(dataset|dir|prompts|book)|model_name_or_path|oracle|checkpoint|continue_from|source|book|judge(_prompt|_cache|_agreement)?|plugins"
)


def write_command(
    task: str, parsed: Parsed, folder: Path, *, models: Task | None = None, launch: Sequence[str] = ()
) -> None:
    """Write the recipe's values and the flags of a run into its folder. It may name files, so it is never pushed.

    Names of files and folders become absolute: the folder is read from other places than where the run was started.

    Args:
        task: name of it.
        parsed: the run's arguments.
        folder: of the run.
        models: the task itself, whose oracle and checkpoint a run that continues from this one takes over.
        launch: flags of accelerate that start as many processes.
    """
    recipe = {name: located(name, value) for name, value in parsed.recipe_values.items() if _kept(name)}
    words = _located_words(kept_words(parsed.words, _kept))
    stored: dict[str, Any] = {"format": _FORMAT, "task": task, "recipe": recipe, "words": words}
    stored["plugins"] = located("plugins", list(parsed.args.plugins or []))
    stored["launch"] = list(launch)
    if models is not None:
        names = {name: located(name, getattr(models, name)) for name in ("oracle", "checkpoint")}
        # Of a single short row a hash could be guessed: it is kept where it has a use alone.
        forget = forget_hash(models) if any(names.values()) else None
        stored["models"] = names | {"oracle_is": models.oracle_is, "forget": forget}
    atomic_write_text(folder / COMMAND_FILE, json.dumps(stored, indent=2, default=str) + "\n").chmod(0o600)


def saved_models(folder: str | Path) -> dict[str, Any]:
    """The oracle of the run in a folder, what it is, its checkpoint, and the hash of the rows that both are about.

    {} where that is not kept.
    """
    try:
        stored = read_json(Path(folder) / COMMAND_FILE)
    except (OSError, ValueError):  # a script's run has none
        return {}
    models = stored.get("models") if isinstance(stored, Mapping) else None
    if not isinstance(models, Mapping):
        return {}
    return {name: models.get(name) for name in ("oracle", "oracle_is", "checkpoint", "forget")}


def forget_hash(task: Task) -> str:
    """SHA-256 of a task's forget rows as they are read, in order."""
    return hash_parts({"rows": [dict(row) for row in task.sets["forget"]]})


def read_command(folder: str | Path, *more: str) -> tuple[str, Parsed]:
    """The task of a run and its arguments, from the run's folder.

    Args:
        folder: of the run.
        more: flags that come on top.

    Raises:
        ValueError: there is no such file, or it was edited into something else.
    """
    from . import parse_values

    stored = stored_command(folder)
    load_plugins(stored.get("plugins"))  # the task may be one of theirs
    words = [*stored["words"], "--output_dir", str(folder), *more]
    return stored["task"], parse_values(stored["task"], stored["recipe"], words)


def stored_command(folder: str | Path) -> Mapping[str, Any]:
    """What command.json holds: task, recipe, words, plugins, and how many processes were launched.

    Raises:
        ValueError: there is no such file, or it was edited into something else.
    """
    file = Path(folder) / COMMAND_FILE
    try:
        stored = read_json(file)
    except (OSError, ValueError) as error:
        raise _no_command(file, f"what cannot be read ({type(error).__name__})") from None
    if not _is_command(stored):
        raise _no_command(file, "a JSON file of another kind, or of another version of hf_unlearn")
    known: Mapping[str, Any] = stored
    return known


def located(name: str, value: Any) -> Any:
    """The value of an argument, absolute where it is a file or a folder here."""
    if isinstance(value, list):
        return [located(name, one) for one in value]
    if name == "plugins" and (not isinstance(value, str) or plugin_file(value) is None):
        return value  # the dotted name of a module, beside which a folder of that name may lie
    if isinstance(value, str) and _PLACES.fullmatch(name) and value and Path(value).expanduser().exists():
        return str(Path(value).expanduser().absolute())
    return value


def _located_words(words: Sequence[str]) -> list[str]:
    absolute, name = [], ""
    for word in words:
        if word.startswith("--"):
            flag, is_whole, value = word.partition("=")
            name = flag.removeprefix("--")
            absolute.append(f"{flag}={located(name, value)}" if is_whole else word)
        else:
            absolute.append(located(name, word))
    return absolute


def recipe_hash(task: str, parsed: Parsed) -> str:
    """SHA-256 of what a run does: its resolved arguments, without places, files of one's own and secrets.

    Rows and models are known by hashes of their own.
    """
    own = {"script": as_json(parsed.script), "model": as_json(parsed.model)}
    kept = {
        name: {key: value for key, value in values.items() if _kept(key) and not _names_file(key, value)}
        for name, values in own.items()
    }
    return hash_parts({"task": task, "arguments": as_json(changed_arguments(parsed.args)), **kept})


def _names_file(name: str, value: Any) -> bool:
    return name in ("partial_dir", "use_cpu", "continue_from") or (isinstance(value, str) and is_path(value))


def _is_command(stored: Any) -> bool:
    return (
        isinstance(stored, Mapping)
        and stored.get("format") == _FORMAT
        and isinstance(stored.get("task"), str)
        and isinstance(stored.get("recipe"), Mapping)
        and isinstance(stored.get("words"), list)
        and isinstance(stored.get("launch", []), list)
        and len(stored.get("launch", [])) % 2 == 0
        and all(
            isinstance(word, str) for word in [*stored["words"], *stored.get("plugins", []), *stored.get("launch", [])]
        )
    )


def _kept(name: str) -> bool:
    return name not in _LEFT_OUT and not is_secret(name) and not name.startswith("hub_")


def _no_command(file: Path, got: str) -> ValueError:
    return input_error(
        expected=f"the folder of a run of hf-unlearn train, with its {COMMAND_FILE}",
        got=f"{file.name}: {got}",
        why="it says which rows the run was about and where its models are",
        fix="pass the output_dir of such a run; in a script of your own call hf_unlearn.attacks.attack(...)",
    )
