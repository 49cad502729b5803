"""Specs: losses, step wrappers and weightings as names, mappings, JSON, objects, and lists of these."""

import dataclasses
import json
from typing import Any

from ..component import Component
from ..errors import input_error, require_choice
from ..losses import ANCHOR_LOSSES, FORGET_LOSSES, RETAIN_LOSSES, Loss
from ..steps import STEP_WRAPPERS, StepWrapper
from ..steps.weighting import WEIGHTINGS, Fixed, Weighting

LossSpec = str | dict[str, Any] | Loss | list[Any] | None
WrapperSpec = str | dict[str, Any] | StepWrapper | list[Any] | None
WeightingSpec = str | dict[str, Any] | Weighting | None


def forget_losses(spec: LossSpec) -> list[Loss]:
    """The terms of the forget side, e.g. of "npo", {"name": "npo", "beta": 0.1}, NPO(beta=0.1), or a list of such."""
    losses = _losses(spec, FORGET_LOSSES, "forget_loss")
    if not losses:
        raise input_error(
            expected="at least one forget loss",
            got=repr(spec),
            why="without one nothing is forgotten and the run is plain fine-tuning",
            fix=f"pass forget_loss as one of {', '.join(FORGET_LOSSES)}",
        )
    return losses


def retain_losses(spec: LossSpec) -> list[Loss]:
    """The terms of the retain side; "none" and None mean no term."""
    if spec is None or spec == "none":
        return []
    return _losses(spec, RETAIN_LOSSES, "retain_loss")


def anchor_losses(spec: LossSpec) -> list[Loss]:
    """The terms over holdout rows; "none" and None mean no term."""
    if spec is None or spec == "none":
        return []
    return _losses(spec, ANCHOR_LOSSES, "anchor_loss")


def step_wrappers(spec: WrapperSpec) -> list[StepWrapper]:
    """The wrappers of "sam", {"name": "sam", "rho": 0.05}, SAM(), or a list of such; "none" and None mean none."""
    if spec is None or spec == "none":
        return []
    return components_of(spec, STEP_WRAPPERS, StepWrapper, "step_wrappers")


def weighting_of(spec: WeightingSpec) -> Weighting:
    """The weighting of e.g. "primal_dual", {"name": "primal_dual", "eta": 0.5} or PrimalDual(); None is fixed."""
    spec = parse_text(spec)
    return Fixed() if spec is None else _component(spec, WEIGHTINGS, Weighting, "weighting")


def method_to_dict(component: Component) -> dict[str, Any]:
    """A loss, wrapper or weighting as the mapping that builds it again: its name and every argument."""
    return {"name": component.name, **dataclasses.asdict(component)}


def spec_to_data(spec: Any) -> Any:
    """A spec with its objects turned into mappings, fit for JSON and YAML."""
    if isinstance(spec, Component):
        return method_to_dict(spec)
    if isinstance(spec, list | tuple):
        return [spec_to_data(entry) for entry in spec]
    return spec


def parse_text(spec: Any) -> Any:
    """A spec given as JSON text on a command line, decoded; anything else as it is."""
    if isinstance(spec, str) and spec.lstrip().startswith(("{", "[")):
        try:
            return json.loads(spec)
        except json.JSONDecodeError as error:
            raise input_error(
                expected='a name, or JSON such as \'{"name": "npo", "beta": 0.1}\'',
                got=f"text that is not JSON ({error})",
                why="the name and the arguments are read from it",
                fix="check quotes and brackets; on a shell, put the whole value in single quotes",
            ) from error
    return spec


def _losses(spec: LossSpec, table: dict[str, type[Loss]], argument: str) -> list[Loss]:
    losses = components_of(spec, table, Loss, argument)
    for loss in losses:
        _require_side(loss, table, argument)
    return losses


def components_of(spec: Any, table: dict[str, Any], kind: Any, argument: str) -> list[Any]:
    """The components of one spec or of a list of specs, no two of one name.

    Args:
        spec: names, mappings, objects, or JSON text of them.
        table: the known classes by name.
        kind: the class that objects must be of.
        argument: whose value the spec is, for errors.
    """
    spec = parse_text(spec)
    components = [
        _component(entry, table, kind, argument) for entry in (spec if isinstance(spec, list | tuple) else [spec])
    ]
    names = [component.name for component in components]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise input_error(
            expected=f"each name at most once in {argument}",
            got=f"{', '.join(repeated)} more than once",
            why="they are logged and kept by name, and two of one name could not be told apart",
            fix="merge them into one",
        )
    return components


def _component(spec: Any, table: dict[str, Any], kind: Any, argument: str) -> Any:
    if isinstance(spec, kind):
        return spec
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
        raise input_error(
            expected=f"{argument} to be a name, a mapping with a `name`, an object, or a list of these",
            got=f"{type(spec).__name__} {spec!r}",
            why="the formula is looked up by its name",
            fix=f"for example {argument}={{'name': {next(iter(table))!r}}}, or an object of your own class",
        )
    arguments = dict(spec)
    name = arguments.pop("name")
    require_choice(argument, name, table)
    known = [field.name for field in dataclasses.fields(table[name])]
    for key in arguments:
        require_choice(f"an argument of {name} in {argument}", key, known)
    return table[name](**arguments)


def _require_side(loss: Loss, table: dict[str, type[Loss]], argument: str) -> None:
    sides = {"forget_loss": FORGET_LOSSES, "retain_loss": RETAIN_LOSSES, "anchor_loss": ANCHOR_LOSSES}
    own = [side for side, losses in sides.items() if type(loss) in losses.values()]
    if own and argument not in own:
        raise input_error(
            expected=f"{argument} to be one of {', '.join(table)} (or a Loss class of your own)",
            got=f"{type(loss).__name__}, which belongs to the other side, {own[0]}",
            why="the forget side would be kept, or rows to keep forgotten or left out",
            fix=f"swap the two arguments, or pass it as {own[0]}",
        )
