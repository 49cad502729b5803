"""How the trainer is built: one base, attributes of its own that are declared in one place, no name of Trainer's."""

import ast
import inspect
from pathlib import Path

import accelerate
import optuna
import transformers

from fixtures.models import make_trainer, tiny_model
from hf_unlearn import UnlearningTrainer
from hf_unlearn.training import trainer as module


def assigned(source: str) -> dict[str, set[str]]:
    """attribute -> the functions of a source in which `self.attribute = ...` stands."""
    found: dict[str, set[str]] = {}
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign | ast.AugAssign) else targets
            for target in ast.walk(ast.Tuple(list(targets))):
                if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                    found.setdefault(target.attr, set()).add(function.name)
    return found


OURS = assigned(inspect.getsource(module))
TRAINERS = assigned(inspect.getsource(transformers.trainer))


def test_assignments_are_found():
    source = "def f(self):\n    self.a, x.b = 1, 2\n    self.c: int = 3\ndef g(self):\n    self.a = 4"
    assert assigned(source) == {"a": {"f", "g"}, "c": {"f"}}
    assert {"objective", "push_in_progress", "is_in_train", "accelerator"} <= TRAINERS.keys()


def test_it_has_one_base():
    assert UnlearningTrainer.__bases__ == (transformers.Trainer,)


def test_every_attribute_is_first_set_when_it_is_built():
    later = {name for name, functions in OURS.items() if not functions & {"__init__", "_set_up"}}
    assert later == {"push_in_progress"}  # Trainer's own


def test_no_attribute_is_one_of_trainers():
    names = OURS.keys() - {"push_in_progress"}
    assert names & TRAINERS.keys() == set()
    assert [name for name in names if hasattr(transformers.Trainer, name)] == []


PACKAGE = Path(transformers.__file__).parent
# Modules that hold a trainer: what they assign on it, and what their callbacks and trials have.
HOLDERS = [
    *PACKAGE.glob("trainer*.py"),
    *PACKAGE.glob("hyperparameter_search.py"),
    *(PACKAGE / "integrations").glob("*.py"),
    PACKAGE / "utils" / "notebook.py",
    Path(optuna.trial.__file__).parent / "_trial.py",
    Path(accelerate.accelerator.__file__),
]


def set_by_holders() -> dict[str, str]:
    """attribute -> the file that assigns it: to a trainer of any name, or in a callback or a trial to itself."""
    found = {}
    for path in HOLDERS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign | ast.AugAssign) else targets
            for target in ast.walk(ast.Tuple(list(targets))):
                if isinstance(target, ast.Attribute):
                    owner = ast.unparse(target.value).rpartition(".")[2]
                    if owner == "self" or owner.endswith("trainer"):
                        found[target.attr] = path.name
            # getattr(trainer, "objective", None), setattr(self, ...)
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr"):
                owner, name = (*node.args, None, None)[:2]
                if isinstance(name, ast.Constant) and ast.unparse(owner).endswith(("trainer", "trial")):
                    found[str(name.value)] = path.name
    return found


def test_no_attribute_is_one_of_an_integration_or_a_trial():
    theirs = set_by_holders()
    # What run_hp_search_optuna sets, a callback's own, a trial's own, an accelerator's own.
    assert {"objective", "model_wrapped", "early_stopping_patience", "study", "gradient_state"} <= theirs.keys()
    ours = {name for name in OURS if name not in TRAINERS}
    assert {name: theirs[name] for name in ours & theirs.keys()} == {}
    members = {name for name in vars(UnlearningTrainer) if not hasattr(transformers.Trainer, name)} - TRAINERS.keys()
    assert {"baseline", "stop_reason"} <= members
    assert {name: theirs[name] for name in members & theirs.keys()} == {}
    trial = {name for kind in (optuna.Trial, optuna.trial.FixedTrial) for name in dir(kind)}
    assert (ours | members) & trial - set(dir(object)) == set()


def test_nobody_else_sets_an_attribute(tmp_path):
    trainer = make_trainer(tmp_path, tiny_model())
    trainer.train()
    trainer.save_model()
    assert vars(trainer).keys() <= OURS.keys() | TRAINERS.keys()
