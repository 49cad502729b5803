"""Names of packaged losses, edits, attacks, ..., read from the source: to import what they name takes seconds."""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def packaged_names(folder: str, table: str) -> list[str]:
    """The names in a table of classes that each have a `name`.

    Args:
        folder: of the package, with a file for each class.
        table: variable of its `__init__.py` that lists the classes, in whatever it puts them.
    """
    trees = [_tree(file) for file in (_PACKAGE / folder).glob("*.py")]
    classes = {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}
    listed = _assigned(_tree(_PACKAGE / folder / "__init__.py").body, table)
    used = [node.id for node in ast.walk(listed) if isinstance(node, ast.Name)]
    return [name for one in used if (name := _name_of(one, classes)) is not None]


def packaged_keys(file: str, table: str) -> list[str]:
    """The keys of a dict that is written in a file of the package."""
    written = _assigned(_tree(_PACKAGE / file).body, table)
    dicts = [node for node in ast.walk(written) if isinstance(node, ast.Dict)]
    return [str(key.value) for key in dicts[0].keys if isinstance(key, ast.Constant)]


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _name_of(class_name: str, classes: Mapping[str, ast.ClassDef]) -> str | None:
    """The `name` of a class of the folder, or of the class that it is made from."""
    if class_name not in classes:
        return None
    own = _assigned(classes[class_name].body, "name")
    if isinstance(own, ast.Constant):
        return str(own.value)
    bases = [base.id for base in classes[class_name].bases if isinstance(base, ast.Name)]
    return next((name for base in bases if (name := _name_of(base, classes)) is not None), None)


def _assigned(body: Iterable[ast.stmt], name: str) -> ast.expr:
    """What a name is assigned in some statements; an empty list where it is not."""
    for node in body:
        if isinstance(node, ast.Assign):
            targets: list[ast.expr] = node.targets
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        else:
            continue
        assert node.value is not None
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return node.value
    return ast.List(elts=[])
