"""Search spaces: which arguments of a recipe are varied, in which ranges. YAML files; one is packaged for each method.

A parameter is named as in a recipe (`learning_rate`), or as ARGUMENT.COMPONENT.PARAMETER (`forget_loss.npo.beta`).
"""

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...component import Component
from ...errors import choice_error, input_error, nearest, value_error
from ...losses import ANCHOR_LOSSES, FORGET_LOSSES, RETAIN_LOSSES
from ...results.files import read_yaml
from ...steps import STEP_WRAPPERS
from ...steps.weighting import WEIGHTINGS
from ...training.method_specs import parse_text, spec_to_data

if TYPE_CHECKING:
    import optuna

SPACES = Path(__file__).resolve().parent / "spaces"
RATE_AND_WEIGHTS = "rate_and_weights"  # the packaged space that any recipe has
_TABLES: dict[str, Mapping[str, type[Component]]] = {
    "forget_loss": FORGET_LOSSES,
    "retain_loss": RETAIN_LOSSES,
    "anchor_loss": ANCHOR_LOSSES,
    "step_wrappers": STEP_WRAPPERS,
    "weighting": WEIGHTINGS,
}
_SIDES = {"retain_weight": "retain_loss", "anchor_weight": "anchor_loss"}  # a weight of nothing is not searched
_KEYS = ("low", "high", "log", "whole", "times", "choices")
# Not of a method: the model, the rows, how they are measured, where and for how long a run is.
_FIXED = ("output_dir", "seed", "task", "evaluated_half", "measure", "model_name_or_path", "limit", "evaluated_rows")


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One argument that is varied.

    Attributes:
        path: its name, in parts.
        low, high: its range; 0 where there are choices.
        log: whether it is drawn on a logarithmic scale.
        whole: whether it is a whole number.
        choices: the values that it may have, in place of a range.
    """

    path: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()

    def suggest(self, trial: "optuna.trial.Trial") -> Any:
        """The value that a trial is to take."""
        if self.choices:
            return trial.suggest_categorical(self.path, list(self.choices))
        if self.whole:
            return trial.suggest_int(self.path, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.path, self.low, self.high, log=self.log)

    def holds(self, value: Any) -> bool:
        """Whether a value is one that could be drawn."""
        if self.choices:
            return value in self.choices
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def ends(self) -> tuple[Any, Any]:
        """The two values that are furthest apart."""
        if self.choices:
            return self.choices[0], self.choices[-1]
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)


def read_space(name: str | None, known: Mapping[str, Any]) -> list[Parameter]:
    """The parameters of a search.

    Args:
        name: a YAML file, or `rate_and_weights`; None for the packaged space of the recipe's method: that, and the own
            parameters of its losses, wrappers, weighting and optimizer.
        known: every argument of the recipe with its value, defaults included.

    Raises:
        ValueError: no such file, no parameter in it, an unknown one, a range that is none, or one without the recipe's
            own value, which is tried first.
    """
    if name is None:
        entries = _packaged(known)
    elif name == RATE_AND_WEIGHTS:
        entries = _rate_and_weights(known)
    elif Path(name).expanduser().is_file():
        entries = _read(Path(name).expanduser())
    else:
        raise value_error("--space", f"a YAML file, or {RATE_AND_WEIGHTS}", name)
    parameters = [_parameter(path, entry, known) for path, entry in entries.items()]
    if not parameters:
        raise input_error(
            expected="a search space with at least one parameter",
            got="an empty one",
            why="every run would be the same",
            fix="add a line such as `learning_rate: {times: [0.25, 4]}`",
        )
    return parameters


def value_at(path: str, known: Mapping[str, Any]) -> Any:
    """The recipe's own value of a parameter, or the default."""
    argument, *rest = path.split(".")
    if not rest:
        return known[argument]
    component, field = rest
    term = next(term for term in _terms(known[argument]) if term["name"] == component)
    defaults = {one.name: one.default for one in dataclasses.fields(_TABLES[argument][component])}
    return term.get(field, defaults[field])


def with_values(recipe: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with other values of some parameters; numbers have three digits, so that a person can read them.

    Args:
        recipe: names the losses, wrappers and weightings whose parameters are among the values.
        values: by the names of parameters.
    """
    changed = copy.deepcopy(dict(recipe))
    for path, value in values.items():
        argument, *rest = path.split(".")
        if not rest:
            changed[argument] = rounded(value)
            continue
        terms = _terms(changed[argument])
        changed[argument] = [term | ({rest[1]: rounded(value)} if term["name"] == rest[0] else {}) for term in terms]
        if len(terms) == 1:
            changed[argument] = changed[argument][0]
    return changed


def rounded(value: Any) -> Any:
    """A value as a run takes it: a number has three digits."""
    return float(f"{value:.3g}") if isinstance(value, float) else value


def _terms(spec: Any) -> list[dict[str, Any]]:
    """A loss, a wrapper or a weighting, as it stands in a recipe, as mappings with a name."""
    data = spec_to_data(parse_text(spec))
    listed = data if isinstance(data, list) else [data]
    named = [{"name": term} if isinstance(term, str) else term for term in listed if term not in (None, "none")]
    return [{"name": term["name"], **term} for term in named]


def _rate_and_weights(known: Mapping[str, Any]) -> dict[str, Any]:
    entries = _read(SPACES / f"{RATE_AND_WEIGHTS}.yaml")
    unused = {weight for weight, loss in _SIDES.items() if not _terms(known.get(loss)) or not known.get(weight)}
    return {path: entry for path, entry in entries.items() if path not in unused}


def _packaged(known: Mapping[str, Any]) -> dict[str, Any]:
    """Rate and weights, and what is packaged for the parts of the recipe."""
    entries = _rate_and_weights(known)
    for argument in _TABLES:
        for term in _terms(known.get(argument)):
            file = SPACES / argument / f"{term['name']}.yaml"
            if file.is_file():
                entries |= {f"{argument}.{term['name']}.{field}": entry for field, entry in _read(file).items()}
    file = SPACES / "optim" / f"{known.get('optim')}.yaml"
    return entries | (_read(file) if file.is_file() else {})


def _read(file: Path) -> dict[str, Any]:
    try:
        entries = read_yaml(file)
    except ValueError as error:
        raise input_error(
            expected=f"{file.name} to hold a search space, a line `name: {{low: ..., high: ...}}` for each parameter",
            got=str(error),
            why="the values that are tried are drawn from it",
            fix="see docs/sweep.md",
        ) from None
    return entries


def _parameter(path: str, entry: Any, known: Mapping[str, Any]) -> Parameter:
    """A line of a space, checked against the recipe."""
    _require_path(path, known)
    if not isinstance(entry, Mapping) or not entry:
        raise value_error(path, "a mapping with low and high, times, or choices", entry)
    for key in entry:
        if key not in _KEYS:
            raise choice_error(f"a key of {path} in the search space", key, _KEYS)
    own = value_at(path, known)
    if "choices" in entry:
        parameter = Parameter(path, choices=tuple(_list(path, "choices", entry["choices"], 2)))
    else:
        parameter = _range(path, entry, own)
    if not parameter.holds(own):
        ends = " to ".join(f"{end:g}" if isinstance(end, float) else str(end) for end in parameter.ends())
        raise input_error(
            expected=f"the search space of {path} to hold the recipe's own value, {own!r}",
            got=ends,
            why="the unchanged recipe is tried first, and the others are compared with it",
            fix="widen the range",
        )
    return parameter


def _range(path: str, entry: Mapping[str, Any], own: Any) -> Parameter:
    whole, log = bool(entry.get("whole", False)), bool(entry.get("log", False))
    if "times" in entry:
        if not isinstance(own, int | float) or isinstance(own, bool) or own <= 0:
            raise value_error(path, "a number above 0 in the recipe, for a range of `times`", own)
        low, high = (own * factor for factor in _list(path, "times", entry["times"], 2))
        log, whole = True, whole or isinstance(own, int)
        low, high = (max(1, round(low)), max(1, round(high))) if whole else (low, high)
    else:
        low, high = entry.get("low"), entry.get("high")
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
    if not numbers or not low < high or (log and low <= 0):
        raise value_error(path, f"a range of numbers, low below high{', both above 0' if log else ''}", [low, high])
    return Parameter(path, float(low), float(high), log, whole)


def _list(path: str, key: str, values: Any, fewest: int) -> Sequence[Any]:
    numbers = key != "times" or (
        isinstance(values, list) and len(values) == fewest and all(isinstance(one, int | float) for one in values)
    )
    if not isinstance(values, list) or len(values) < fewest or not numbers:
        raise value_error(f"{key} of {path}", "a list of two numbers" if key == "times" else "a list", values)
    return values


def _require_path(path: str, known: Mapping[str, Any]) -> None:
    """Raise for a parameter that the recipe does not have, with the names that are spelled alike."""
    argument, *rest = path.split(".")
    if argument not in known or argument in _FIXED:
        raise choice_error("a parameter of the search space", path, [name for name in known if name not in _FIXED])
    if not rest:
        if argument in _TABLES:
            hint = nearest(argument, _own_paths(argument, known))
            raise value_error("a parameter of the search space", "a part of a loss or of what wraps it", path, hint)
        return
    own = list(_own_paths(argument, known)) if argument in _TABLES else []
    if path not in own:
        raise choice_error("a parameter of the search space", path, own)


def _own_paths(argument: str, known: Mapping[str, Any]) -> Iterator[str]:
    """The parameters of the parts that an argument of the recipe names."""
    for term in _terms(known[argument]):
        for field in dataclasses.fields(_TABLES[argument][term["name"]]):
            yield f"{argument}.{term['name']}.{field.name}"
