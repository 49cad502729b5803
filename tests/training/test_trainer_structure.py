"""How the trainer is built: one base, attributes of its own that are declared in one place, no name of Trainer's."""

import ast
import inspect

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


def test_nobody_else_sets_an_attribute(tmp_path):
    trainer = make_trainer(tmp_path, tiny_model())
    trainer.train()
    trainer.save_model()
    assert vars(trainer).keys() <= OURS.keys() | TRAINERS.keys()
