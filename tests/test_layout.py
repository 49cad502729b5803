"""The rules of the layout, read from the source: what may import what, how long things are, what is never written.

Not a test of behaviour: nothing of hf_unlearn is imported here, only parsed, with the standard library alone.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "hf_unlearn"

# The folders of the package, from the outside in: a module imports from its own folder and from those below it on this
# page, never from above.
FOLDERS = (
    "cli",  # a dict of verbs
    "demo",  # the page on which a person tries before, after and oracle
    "tasks",  # whole runs: rows, before, unlearn, after, record
    "requests",  # the ledger of deletion requests: what was asked, done and proved
    "planning",  # memory per GPU, before a run
    "attacks",  # what tries to bring the forgotten back, and its controls
    "suppression",  # answers changed at inference, around weights that still know
    "edits",  # weights changed without the objective of the trainer
    "unlearnable",  # trainings that are logged so that rows can be deleted from them exactly
    "training",  # UnlearningTrainer and what it holds
    "losses",  # one file a method; never see a model
    "steps",  # what wraps a gradient step, and how both sides are weighted
    "evaluation",  # suites of metrics over one pass of a model
    "results",  # the record of a run; verdict, card, report and push, made from it alone
    "model",  # what is asked of a causal language model
    "data",  # rows of any format -> tokens, roles, pairs, batches
    "metrics",  # arrays and answers in, figures with intervals out
    "optimizers",  # optimizers that torch does not have
    "lab",  # small models made offline, and their oracles
    "plugins",  # what other packages add, by name
    "component",  # what losses, step wrappers and weightings share
    "progress",  # bars on a terminal, lines in a log
    "errors",  # user errors
    "version",  # of the package
)

# Folders that may import less than their place on the page allows.
ONLY_FROM = {"lab": {"errors", "progress"}}

# A loss sees tensors, never a model, so it has no use for the libraries that make or wrap one.
_MODEL_LIBRARIES = {"accelerate", "datasets", "deepspeed", "peft", "transformers", "trl"}
FORBIDDEN_LIBRARIES = {"component": {*_MODEL_LIBRARIES, "torch"}, "losses": _MODEL_LIBRARIES}

# Names under which a distribution is imported, where the two differ.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "yaml": "pyyaml"}

LONGEST_FILE = 300
# UnlearningTrainer overrides some thirty hooks of Trainer in a few lines each; a base class would hide the length.
LONGER_FILES = {"training/trainer.py": 407}
LONGEST_FUNCTION = 60

# Folders of one machine or one person. What stands before the slash tells a path from a URL, a division or a relative
# path; the folder's name ends at a slash or a quote.
MACHINE_PATH = re.compile(
    rb"""(?<![\w)\]}./~*>$-])/(?:home|mnt|opt|private|root|srv|tmp|Users|var|work|workspace)(?=[/"'`])"""
    rb"""|\b[A-Z]:\\{1,2}Users\b"""
)


def modules(package: Path) -> Iterator[tuple[str, ast.Module]]:
    """Every module of a package as (path relative to the package, syntax tree)."""
    for path in sorted(package.rglob("*.py")):
        yield path.relative_to(package).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def folder_of(module: str) -> str:
    """The folder of a module given by its path, or the stem of a file at the root."""
    return module.removesuffix(".py").split("/")[0]


def imported(module: str, tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """Every import of a module, lazy ones too, as (line, absolute dotted name); `from a import b` gives `a.b`."""
    folder = [package, *module.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # One dot is the module's own folder, each further dot one folder up.
            parents = folder[: len(folder) - node.level + 1] if node.level else []
            source = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)


def import_errors(package: Path) -> list[str]:
    """Where a package's imports do not go down the page, as lines of text; empty when they all do."""
    errors = []
    for module, tree in modules(package):
        folder = folder_of(module)
        if folder == "__init__":
            continue
        if folder not in FOLDERS:
            errors.append(f"{module}: {folder!r} is not in FOLDERS; add it where it stands on the page")
            continue
        allowed = ONLY_FROM.get(folder, set(FOLDERS[FOLDERS.index(folder) :])) | {folder}
        for line, name in imported(module, tree, package.name):
            library, *rest = name.split(".")
            if library in FORBIDDEN_LIBRARIES.get(folder, ()):
                errors.append(f"{module}:{line}: {folder} may not import {library}")
            # A name of the package itself that is not a folder is one of its public names, which stand in __init__.
            target = rest[0] if rest and rest[0] in FOLDERS else "__init__"
            if library == package.name and target not in allowed:
                errors.append(f"{module}:{line}: {folder} may not import {name}")
    return errors


def length_errors(package: Path) -> list[str]:
    """Files and functions that are too long, docstrings included, as lines of text."""
    errors = []
    for module, tree in modules(package):
        lines = len((package / module).read_text(encoding="utf-8").splitlines())
        longest = LONGER_FILES.get(module, LONGEST_FILE)
        if lines > longest:
            errors.append(f"{module}: {lines} lines, more than {longest}")
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            lines = node.end_lineno - node.lineno + 1
            if lines > LONGEST_FUNCTION:
                errors.append(f"{module}:{node.lineno}: {node.name} has {lines} lines, more than {LONGEST_FUNCTION}")
    return errors


def broad_handlers(tree: ast.Module) -> list[int]:
    """The lines of `except:`, `except Exception` and `except BaseException`, alone or within a tuple."""
    lines = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = [] if node.type is None else [name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)]
        if node.type is None or {"Exception", "BaseException"}.intersection(caught):
            lines.append(node.lineno)
    return lines


def trusted_remote_code(tree: ast.Module) -> list[int]:
    """The lines that pass `trust_remote_code=True`, as an argument or in a dictionary of arguments."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword):
            pairs = [(node.arg, node.value)]
        elif isinstance(node, ast.Dict):
            pairs = [(key.value, value) for key, value in zip(node.keys, node.values, strict=True)
                     if isinstance(key, ast.Constant)]  # fmt: skip
        else:
            continue
        lines += [
            value.lineno
            for name, value in pairs
            if name == "trust_remote_code" and isinstance(value, ast.Constant) and value.value is True
        ]
    return lines


def listed(errors: list[str]) -> str:
    """The message of a failed check: every error on a line of its own, which pytest would cut short."""
    return "\n".join(["", *errors])


def declared_distributions() -> set[str]:
    """The distributions that pyproject.toml names, extras included, in lower case with hyphens."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = sum(project["optional-dependencies"].values(), project["dependencies"])
    return {re.match(r"[\w.-]+", line).group().lower().replace("_", "-") for line in requirements}


def distributions_of(library: str) -> set[str]:
    """What a distribution that holds an import name may be called; the name itself covers the standard library."""
    return {library, DISTRIBUTIONS.get(library, library.replace("_", "-"))}


def repository_files() -> list[str]:
    """The files git tracks or would track, relative to the repository."""
    command = ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    return [name for name in listing.split("\0") if (REPOSITORY / name).is_file()]


def test_imports_go_down_the_page():
    errors = import_errors(PACKAGE)
    assert not errors, listed(errors)


def test_every_folder_exists():
    missing = [name for name in FOLDERS if not (PACKAGE / name).is_dir() and not (PACKAGE / f"{name}.py").is_file()]
    assert not missing, f"in FOLDERS, but not in the package: {missing}"


def test_only_these_files_lie_at_the_root():
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert files == {"__init__.py", "component.py", "errors.py", "progress.py", "version.py", "py.typed"}


@pytest.mark.parametrize(
    ("module", "source", "error"),
    [
        (
            "data/formats.py",
            "from hf_unlearn.training.trainer import UnlearningTrainer",
            "data may not import hf_unlearn.training.trainer.UnlearningTrainer",
        ),
        ("data/formats.py", "import hf_unlearn.model.scoring", "data may not import hf_unlearn.model.scoring"),
        ("data/formats.py", "from .. import model", "data may not import hf_unlearn.model"),
        ("data/formats.py", "from hf_unlearn import NPO", "data may not import hf_unlearn.NPO"),
        ("errors.py", "def f():\n    from .cli import main", "errors.py:2: errors may not import hf_unlearn.cli.main"),
        ("lab/world.py", "from hf_unlearn.data import formats", "lab may not import hf_unlearn.data.formats"),
        ("losses/npo.py", "from transformers import Trainer", "losses may not import transformers"),
        ("losses/npo.py", "import peft.tuners", "losses may not import peft"),
        ("helpers.py", "", "'helpers' is not in FOLDERS"),
    ],
)
def test_an_import_up_the_page_is_found(tmp_path, module, source, error):
    path = tmp_path / "hf_unlearn" / module
    path.parent.mkdir(parents=True)
    path.write_text(source)
    (found,) = import_errors(tmp_path / "hf_unlearn")
    assert error in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("training/trainer.py", "from hf_unlearn.losses.npo import NPO\nfrom .config import UnlearningConfig"),
        ("losses/npo.py", "import torch\nfrom .base import ForgetLoss\nfrom ..model.scoring import Scores"),
        ("lab/world.py", "from hf_unlearn.errors import input_error\nfrom transformers import LlamaConfig"),
    ],
)
def test_an_import_down_the_page_is_allowed(tmp_path, module, source):
    path = tmp_path / "hf_unlearn" / module
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert import_errors(tmp_path / "hf_unlearn") == []


def test_every_import_is_declared():
    known = declared_distributions() | {"hf-unlearn"} | sys.stdlib_module_names
    errors = [
        f"{module}:{line}: {name} comes with no dependency that pyproject.toml declares"
        for module, tree in modules(PACKAGE)
        for line, name in imported(module, tree, PACKAGE.name)
        if not distributions_of(name.split(".")[0]) & known
    ]
    assert not errors, listed(errors)


def test_files_and_functions_are_short():
    errors = length_errors(PACKAGE)
    assert not errors, listed(errors)


def test_what_is_too_long_is_found(tmp_path):
    (tmp_path / "a.py").write_text("def f():\n" + "    pass\n" * LONGEST_FUNCTION + "\n" * LONGEST_FILE)
    assert length_errors(tmp_path) == [
        f"a.py: {LONGEST_FILE + LONGEST_FUNCTION + 1} lines, more than {LONGEST_FILE}",
        f"a.py:1: f has {LONGEST_FUNCTION + 1} lines, more than {LONGEST_FUNCTION}",
    ]


def test_no_module_of_odds_and_ends():
    assert [module for module, _ in modules(PACKAGE) if Path(module).stem in {"utils", "helpers", "misc"}] == []


def test_every_module_says_what_it_is():
    assert [module for module, tree in modules(PACKAGE) if not ast.get_docstring(tree)] == []


def test_no_broad_exception_handler():
    assert [(module, lines) for module, tree in modules(PACKAGE) if (lines := broad_handlers(tree))] == []
    for handler in ("except:", "except Exception:", "except (OSError, BaseException) as error:"):
        assert broad_handlers(ast.parse(f"try:\n    pass\n{handler}\n    pass")) == [3]
    assert broad_handlers(ast.parse("try:\n    pass\nexcept (OSError, ValueError):\n    pass")) == []


def test_remote_code_is_never_trusted():
    assert [(module, lines) for module, tree in modules(PACKAGE) if (lines := trusted_remote_code(tree))] == []
    assert trusted_remote_code(ast.parse("load(trust_remote_code=True)")) == [1]
    assert trusted_remote_code(ast.parse("load(**{'trust_remote_code': True})")) == [1]
    assert trusted_remote_code(ast.parse("load(trust_remote_code=arguments.trust_remote_code)")) == []


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="not a git checkout: nothing says which files are ours")
def test_no_file_names_a_machine_path():
    names = repository_files()
    assert "pyproject.toml" in names
    assert [name for name in names if MACHINE_PATH.search((REPOSITORY / name).read_bytes())] == []


def test_a_machine_path_is_told_from_other_slashes():
    folder = b"tmp"  # kept apart from its slash, or this file would be found
    for text in (b"cache: /%s/hf", b'output_dir="/%s"', b"(/%s/a)", b"PATH=bin:/%s/b"):
        assert MACHINE_PATH.search(text % folder)
    for text in (b"https://a.org/%s/b", b"../%s/a", b"~/%s/a", b"(a - b)/%s", b"{folder}/%s/a", b"a/%s/b"):
        assert not MACHINE_PATH.search(text % folder)
