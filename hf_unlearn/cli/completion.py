"""`hf-unlearn completion`: a script that lets a shell complete commands, flags and, in bash, their values."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..tasks import TASKS
from .command import Verb
from .packaged_names import packaged_keys, packaged_names

_SHELLS = ("bash", "zsh", "tcsh")
_FILES = ("rows", "model", "output_dir", "output", "ledger", "folder")
_RUNS = ("run", "runs", "continue_from")
_NAMES_ALONE = ("task", "suite", "attack", "forget_loss", "retain_loss", "anchor_loss", "attacks", "edit")
_PACKAGE = Path(__file__).resolve().parent.parent
# Folders with the record of a run first, then all of them, in which there may be some.
_RUN_FOLDERS = """_hf_unlearn_runs() {
  local folder
  for folder in "$1"*/ "$1"*/*/; do [[ -f "${folder}results.json" ]] && printf '%s\\n' "${folder%/}"; done
  compgen -d -- "$1"
}"""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = 'bash: eval "$(hf-unlearn completion bash)" in ~/.bashrc; zsh: likewise in ~/.zshrc'
    parser.add_argument("shell", choices=_SHELLS, help="the shell that is to complete")


def _run(args: argparse.Namespace) -> None:
    import shtab

    from . import make_parser

    parser = make_parser()
    values = _values()
    for action in _actions(parser):
        if action.dest in values:
            vars(action)["complete"] = {
                "bash": f"_hf_unlearn_{action.dest}",
                "zsh": _in_zsh(action.dest, values[action.dest]),
            }
        elif action.dest in _RUNS:
            vars(action)["complete"] = {"bash": "_hf_unlearn_runs", "zsh": "_files -/"}
        elif action.dest in _FILES:
            vars(action)["complete"] = shtab.FILE
    preamble: Any = {"bash": _functions()}  # by shell, which shtab's annotation does not say
    print(shtab.complete(parser, args.shell, preamble=preamble))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Of a parser and of those of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _actions(verb)


def _values() -> dict[str, list[str]]:
    """By argument, the packaged names; those of plugins would have to be imported, at every start of a shell."""
    recipes = _PACKAGE / "tasks" / "recipes"
    configs = _PACKAGE / "training" / "launch" / "configs"
    policies = _PACKAGE / "results" / "gate" / "policies"
    suites = packaged_keys("attacks/suites.py", "ATTACK_SUITES")
    return {
        "policy": sorted(path.stem for path in policies.glob("*.yaml")),
        "config": sorted(path.relative_to(recipes).with_suffix("").as_posix() for path in recipes.rglob("*.yaml")),
        "methods": sorted(path.stem for path in (recipes / "methods").glob("*.yaml")),
        "accelerate_config": sorted(path.stem for path in configs.glob("*.yaml")),
        "task": list(TASKS.packaged),
        "forget_loss": packaged_names("losses", "FORGET_LOSSES"),
        "retain_loss": [*packaged_names("losses", "RETAIN_LOSSES"), "none"],
        "anchor_loss": [*packaged_names("losses", "ANCHOR_LOSSES"), "none"],
        "edit": packaged_names("edits", "_PACKAGED"),
        "attacks": packaged_names("attacks", "_PACKAGED"),
        "suite": suites,
        "attack": suites,
    }


def _functions() -> str:
    lines = [_RUN_FOLDERS]
    for name, words in _values().items():
        files = "" if name in _NAMES_ALONE else ' compgen -f -- "$1";'
        lines.append(f"_hf_unlearn_{name}() {{ compgen -W '{' '.join(words)}' -- \"$1\";{files} }}")
    return "\n".join(lines)


def _in_zsh(name: str, words: list[str]) -> str:
    """What `_arguments` of zsh offers: words, or words and files."""
    return f"({' '.join(words)})" if name in _NAMES_ALONE else f"{{compadd -- {' '.join(words)}; _files}}"


COMPLETION = Verb("print a script for tab completion in bash, zsh or tcsh", _arguments, _run)
