"""Losses from what YAML, a command line or Python gives: names, mappings, objects, lists. No loss is defined here."""

import dataclasses
import json
from typing import Any

from .errors import input_error, nearest
from .losses import FORGET_LOSSES, RETAIN_LOSSES, Loss

LossSpec = str | dict[str, Any] | Loss | list[Any] | None


def forget_losses(spec: LossSpec) -> list[Loss]:
    """The terms of the forget side, e.g. of "npo", {"name": "npo", "beta": 0.1}, NPO(beta=0.1), or a list of such."""
    terms = _terms(spec, FORGET_LOSSES, "forget_loss")
    if not terms:
        raise input_error(
            expected="at least one forget loss",
            got=repr(spec),
            why="without one nothing is forgotten and the run is plain fine-tuning",
            fix=f"pass forget_loss as one of {', '.join(FORGET_LOSSES)}",
        )
    return terms


def retain_losses(spec: LossSpec) -> list[Loss]:
    """The terms of the retain side; "none" and None mean no term."""
    if spec is None or spec == "none":
        return []
    return _terms(spec, RETAIN_LOSSES, "retain_loss")


def loss_to_dict(loss: Loss) -> dict[str, Any]:
    """A loss as the mapping that builds it again: its name and every argument."""
    return {"name": loss.name, **dataclasses.asdict(loss)}


def spec_to_data(spec: LossSpec) -> Any:
    """A spec with its Loss objects turned into mappings, fit for JSON and YAML."""
    if isinstance(spec, Loss):
        return loss_to_dict(spec)
    if isinstance(spec, list | tuple):
        return [spec_to_data(term) for term in spec]
    return spec


def parse_text(spec: LossSpec) -> LossSpec:
    """A spec given as JSON text on a command line, decoded; anything else as it is."""
    if isinstance(spec, str) and spec.lstrip().startswith(("{", "[")):
        try:
            return json.loads(spec)
        except json.JSONDecodeError as error:
            raise input_error(
                expected='a loss name, or JSON such as \'{"name": "npo", "beta": 0.1}\'',
                got=f"text that is not JSON ({error})",
                why="the loss and its arguments are read from it",
                fix="check quotes and brackets; on a shell, put the whole value in single quotes",
            ) from error
    return spec


def _terms(spec: LossSpec, table: dict[str, type[Loss]], argument: str) -> list[Loss]:
    spec = parse_text(spec)
    members = list(spec) if isinstance(spec, list | tuple) else [spec]
    terms = [_term(member, table, argument) for member in members]
    names = [term.name for term in terms]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise input_error(
            expected=f"each loss at most once in {argument}",
            got=f"{', '.join(repeated)} more than once",
            why="components are logged by name, and two of one name could not be told apart",
            fix="merge them into one term and set its weight",
        )
    return terms


def _term(member: Any, table: dict[str, type[Loss]], argument: str) -> Loss:
    if isinstance(member, Loss):
        return _right_side(member, table, argument)
    if isinstance(member, str):
        member = {"name": member}
    if not isinstance(member, dict) or not isinstance(member.get("name"), str):
        raise input_error(
            expected=f"{argument} to be a name, a mapping with a `name`, a Loss object, or a list of these",
            got=f"{type(member).__name__} {member!r}",
            why="the loss is found by its name",
            fix=f"for example {argument}={{'name': {next(iter(table))!r}, 'weight': 1.0}}",
        )
    arguments = dict(member)
    name = arguments.pop("name")
    if name not in table:
        raise input_error(
            expected=f"{argument} to name a known loss",
            got=repr(name),
            why="there is no formula to train on",
            fix=nearest(name, table),
        )
    loss = table[name]
    known = [each.name for each in dataclasses.fields(loss)]
    for key in arguments:
        if key not in known:
            raise input_error(
                expected=f"arguments of the loss {name}",
                got=f"{key!r}",
                why="an argument that no formula reads would be ignored in silence",
                fix=nearest(key, known),
            )
    return loss(**arguments)


def _right_side(loss: Loss, table: dict[str, type[Loss]], argument: str) -> Loss:
    other = RETAIN_LOSSES if table is FORGET_LOSSES else FORGET_LOSSES
    if type(loss) in other.values():
        raise input_error(
            expected=f"{argument} to be one of {', '.join(table)} (or a Loss class of your own)",
            got=f"{type(loss).__name__}, which belongs to the other side",
            why="the forget side would be kept, or the retain side forgotten",
            fix="swap the two arguments",
        )
    return loss
