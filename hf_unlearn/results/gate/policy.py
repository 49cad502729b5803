"""Policies: YAML files with what a way of release may give away at most, and what must have been tried before it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

from ...errors import input_error, nearest, require_choice, require_range, value_error
from ..attack_report import THREATS
from ..files import read_yaml

PACKAGED = Path(str(resources.files("hf_unlearn.results.gate"))).resolve() / "policies"


@dataclass(frozen=True)
class Way:
    """A way of release.

    Attributes:
        exposes: classes of attackers that it lets in.
        words: what is released.
        attacks: that must have been tried, whatever the policy says.
    """

    exposes: tuple[str, ...]
    words: str
    attacks: tuple[str, ...] = ()


WAYS = {
    "adapter": Way(THREATS, "the adapter, beside its base"),
    "merged": Way(THREATS[:3], "whole weights, without an adapter to take off"),
    "quantized": Way(THREATS[:3], "whole weights in fewer bits", ("quantize",)),
    "api_logprobs": Way(THREATS[:2], "answers and probabilities of tokens, behind an API"),
    "api_text": Way(THREATS[:1], "answers alone, behind an API"),
}


@dataclass(frozen=True)
class Limits:
    """What is allowed, and what must have been tried.

    Attributes:
        excess: largest upper end of the interval of an attack's excess.
        membership: the same of attacks that only tell that a row was trained on, of which .5 is all that there is;
            None sets no limit.
        recovered: largest share of the rows that attacks recover together.
        rows: fewest rows that the figures are means over.
        utility: least share that the suite's utility metric keeps of its value before unlearning; None asks for none.
        classes: that must have been attacked, of those that a way exposes.
        attacks: by class, those that must have been tried where it is exposed.
    """

    excess: float
    membership: float | None
    recovered: float
    rows: int
    utility: float | None
    classes: tuple[str, ...]
    attacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_KEYS = tuple(limit.name for limit in fields(Limits))
_NEEDED = tuple(name for name in _KEYS if name != "attacks")


@dataclass(frozen=True)
class Policy:
    """Limits by way of release.

    Attributes:
        name: of a packaged policy, or of its file.
        ways: the limits of each way that the policy decides on.
    """

    name: str
    ways: Mapping[str, Limits]


def packaged_policies() -> list[str]:
    """Names of the packaged policies."""
    return sorted(path.stem for path in PACKAGED.glob("*.yaml"))


def read_policy(name: str) -> Policy:
    """A policy by the path of its file, or a packaged one by its name.

    Raises:
        ValueError: there is neither, or a key is unknown, missing or out of range.
    """
    path = Path(name).expanduser()
    if not path.is_file():
        path = PACKAGED / f"{name}.yaml"
        if name not in packaged_policies():
            hint = nearest(name, packaged_policies())
            raise value_error("--policy", "a YAML file or the name of a packaged policy", name, hint)
    try:
        stored = read_yaml(path)
    except ValueError as error:
        raise _no_policy(path, str(error)) from None
    return policy_of(stored, path.stem)


def policy_of(stored: Mapping[str, Any], name: str) -> Policy:
    """A policy as its file has it.

    Args:
        stored: limits of every way, and under `ways` by name those that differ; with `ways` it decides on these alone.
        name: of the policy.

    Raises:
        ValueError: a key is unknown, missing or out of range.
    """
    _known(stored, (*_KEYS, "ways"), "")
    shared = {key: value for key, value in stored.items() if key != "ways"}
    missing = [key for key in _NEEDED if key not in shared]
    if missing:
        raise input_error(
            expected=f"{', '.join(missing)} in the policy {name}",
            got="no such key",
            why="what is not limited would be released without a word",
            fix="write the limit down; null for membership or utility asks for none",
        )
    named = stored.get("ways", dict.fromkeys(WAYS))
    if not isinstance(named, Mapping) or not named:
        raise value_error("ways", f"ways of release by name, each with its own limits: {', '.join(WAYS)}", named)
    _known(named, WAYS, "ways")
    ways = {}
    for way, own in named.items():
        if own is not None and not isinstance(own, Mapping):
            raise value_error(f"ways.{way}", "limits by name, or {} for those of all ways", own)
        _known(own or {}, _KEYS, f"ways.{way}")
        ways[way] = _limits(shared | dict(own or {}), f"ways.{way}." if own else "")
    return Policy(name, ways)


def _limits(values: Mapping[str, Any], where: str) -> Limits:
    for key in ("excess", "recovered"):
        require_range(f"{where}{key}", values[key], at_least=0, at_most=1)
    require_range(f"{where}rows", values["rows"], at_least=1, whole=True)
    for key in ("membership", "utility"):
        if values[key] is not None:
            require_range(f"{where}{key}", values[key], at_least=0, at_most=1)
    by_class = values.get("attacks") or {}
    if not isinstance(by_class, Mapping):
        raise value_error(f"{where}attacks", "names of attacks by class", by_class)
    _known(by_class, THREATS, f"{where}attacks")
    classes = _names(values["classes"], f"{where}classes")
    for name in classes:
        require_choice(f"{where}classes", name, THREATS)
    attacks = {threat: _names(names, f"{where}attacks.{threat}") for threat, names in by_class.items()}
    return Limits(
        excess=float(values["excess"]),
        membership=None if values["membership"] is None else float(values["membership"]),
        recovered=float(values["recovered"]),
        rows=values["rows"],
        utility=None if values["utility"] is None else float(values["utility"]),
        classes=classes,
        attacks=attacks,
    )


def _names(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise value_error(where, "a list of names", value)
    return tuple(value)


def _known(given: Iterable[Any], options: Iterable[str], where: str) -> None:
    """Raise for a key that means nothing: a limit with a slip in its name would limit nothing."""
    options = list(options)
    for name in given:
        if name not in options:
            raise input_error(
                expected=f"keys that a policy has{f' under {where}' if where else ''}",
                got=repr(name),
                why="a limit that is not read limits nothing",
                fix=nearest(str(name), options),
            )


def _no_policy(path: Path, got: str) -> ValueError:
    return input_error(
        expected=f"{path.name} to hold the limits of a release, a line `name: value` each",
        got=got,
        why="whether the run may be released is decided by them",
        fix=f"compare it with a packaged policy ({', '.join(packaged_policies())})",
    )
