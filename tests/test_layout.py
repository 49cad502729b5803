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

# The flow of data, one stage a line: a module imports from its own stage and from those above it, never from below.
STAGES = (
    "version",  # of the package
    "errors",  # user errors in four parts; imports nothing of ours
    "hub_names",  # names as the Hub writes them
    "whole_files",  # files that are seen whole or not at all
    "optimizers",  # optimizers that torch does not have
    "component",  # what losses, step wrappers and weightings share, and the setups they do not work in
    "taps",  # where hidden states are read
    "gradients",  # norms and inner products of gradients
    "data",  # rows of any format -> tokens, roles and pairs
    "distributions",  # functions of distributions over the vocabulary, chunk by chunk
    "reference_logits",  # the reference's, where they are not stored whole
    "layout",  # where the answers of a batch are
    "head_source",  # an output head, forward and backward of a chunk
    "output_head",  # the same inside a model's forward
    "scoring",  # one forward -> log-probabilities of the answers
    "sharding",  # models that are split over ranks
    "measurement",  # the same for whole sets of rows
    "fingerprints",  # what a model and its rows are, as a key
    "metrics",  # arrays and answers in, figures with intervals out
    "evaluation",  # suites of metrics over one pass of a model
    "redaction",  # paths and tokens, out of what is published
    "record_parts",  # what a record is made of
    "record",  # what a run was and what came of it, as JSON
    "verdict",  # what came of a run, in a sentence, by rules
    "losses",  # tensors in, values of answer tokens or rows out
    "steps",  # what wraps a gradient step
    "weighting",  # how the weights of both sides are set
    "catalog",  # the same as a text for people
    "specs",  # losses and the like from what YAML, a command line or Python names
    "engagement",  # what a launcher asked for against what runs
    "config",  # UnlearningConfig; below the losses because it checks their names
    "objective",  # weights, the row bound and the exact mean over an optimizer step
    "policy",  # the forward of the model that unlearns
    "reference_plan",  # which way of knowing the model before unlearning serves a run
    "reference",  # what the model was before unlearning
    "reference_cache",  # its log-probabilities on disk
    "modeling",  # the model before the Trainer gets it
    "baseline",  # what is measured before the first step
    "callbacks",  # stop rules, and what else begins and ends with a run
    "padding_free",  # batches without padding
    "checks",  # what the trainer refuses
    "train_data",  # the sets that the losses ask for
    "description",  # what a run is made of, as its record says it
    "observer",  # the callback that watches a run for its record
    "model_card",  # the record as a model card
    "report",  # the records of runs as a page for people
    "hub_failures",  # what can go wrong on the way to the Hub
    "hub",  # what goes to the Hub, and how
    "merging",  # adapters merged into their base model, to be pushed
    "publishing",  # Trainer's saves and pushes, with record and card
    "step_runner",  # the step wrappers inside Trainer's loop
    "measured_first",  # when the model is measured
    "step_log",  # what a step writes to the log
    "row_evaluation",  # Trainer's evaluation, over rows
    "trainer",  # UnlearningTrainer, where the stages above meet
    "lab",  # small models made offline
    "tasks",  # whole runs, as the command line and the examples start them
    "launching",  # several processes through accelerate
    "planning",  # the memory of a run, before it is started
    "cli",  # the command line
    "__init__",  # the public names
)

# Stages that may import fewer stages than their place in the flow allows.
ONLY_FROM = {"lab": {"errors"}}

# A loss sees tensors, never a model, so it has no use for the libraries that make or wrap one.
_MODEL_LIBRARIES = {"accelerate", "datasets", "deepspeed", "peft", "transformers", "trl"}
FORBIDDEN_LIBRARIES = {"component": {*_MODEL_LIBRARIES, "torch"}, "losses": _MODEL_LIBRARIES}

# Names under which a distribution is imported, where the two differ.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "yaml": "pyyaml"}

LONGEST_FILE = 300
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


def stage_of(module: str) -> str:
    """The stage of a module given by its path: a top-level file's stem or the top-level folder."""
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
        stage = stage_of(module)
        if stage not in STAGES:
            errors.append(f"{module}: its stage {stage!r} is not in STAGES; add it where it stands in the flow")
            continue
        allowed = ONLY_FROM.get(stage, set(STAGES[: STAGES.index(stage)])) | {stage}
        for line, name in imported(module, tree, package.name):
            library, *rest = name.split(".")
            if library in FORBIDDEN_LIBRARIES.get(stage, ()):
                errors.append(f"{module}:{line}: {stage} may not import {library}")
            # A name of the package itself that is not a stage is one of its public names, which stand in __init__.
            target = rest[0] if rest and rest[0] in STAGES else "__init__"
            if library == package.name and target not in allowed:
                errors.append(f"{module}:{line}: {stage} may not import {name}")
    return errors


def length_errors(package: Path) -> list[str]:
    """Files and functions that are too long, docstrings included, as lines of text."""
    errors = []
    for module, tree in modules(package):
        lines = len((package / module).read_text(encoding="utf-8").splitlines())
        if lines > LONGEST_FILE:
            errors.append(f"{module}: {lines} lines, more than {LONGEST_FILE}")
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


def test_every_stage_exists():
    missing = [name for name in STAGES if not (PACKAGE / name).is_dir() and not (PACKAGE / f"{name}.py").is_file()]
    assert not missing, f"in STAGES, but not in the package: {missing}"


@pytest.mark.parametrize(
    ("module", "source", "error"),
    [
        (
            "data/formats.py",
            "from hf_unlearn.trainer import UnlearningTrainer",
            "data may not import hf_unlearn.trainer",
        ),
        ("data/formats.py", "import hf_unlearn.scoring", "data may not import hf_unlearn.scoring"),
        ("data/formats.py", "from .. import scoring", "data may not import hf_unlearn.scoring"),
        ("data/formats.py", "from hf_unlearn import NPO", "data may not import hf_unlearn.NPO"),
        ("errors.py", "def f():\n    from .cli import main", "errors.py:2: errors may not import hf_unlearn.cli.main"),
        ("lab/world.py", "from hf_unlearn.data import formats", "lab may not import hf_unlearn.data.formats"),
        ("losses/npo.py", "from transformers import Trainer", "losses may not import transformers"),
        ("losses/npo.py", "import peft.tuners", "losses may not import peft"),
        ("helpers.py", "", "'helpers' is not in STAGES"),
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
        ("trainer.py", "from hf_unlearn.losses.npo import NPO\nfrom .config import UnlearningConfig"),
        ("losses/npo.py", "import torch\nfrom .base import ForgetLoss\nfrom ..scoring import Scores"),
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
