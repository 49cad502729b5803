"""`AttackReport`: what attacks got out of a model, set against controls, as JSON. It holds numbers and no text."""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import input_error
from .files import atomic_write_text, read_json
from .schema import SchemaError, as_json, build, check_schema, shown, wrong_file

ATTACKS_FILE = "attacks.json"
# What an attack was run on.
MODEL, ORACLE, UNSEEN, BEFORE = "model", "oracle", "unseen", "before"
SUBJECTS = (MODEL, ORACLE, UNSEEN, BEFORE)
CONTROLS = (ORACLE, UNSEEN)
# What attackers can reach, from the least to the most; the values of `hf_unlearn.attacks.Threat`.
THREATS = ("queries", "logits", "weights", "weights_and_before")
_FORMAT = 1  # raised when the file's keys change


@dataclass(frozen=True)
class Excess:
    """How much more an attack gets than from the controls, with a 95% interval that holds for all attacks together.

    Attributes:
        value: leak(model) - max(leak(oracle), leak of never-seen rows), as means over the rows reported.
        low: of the interval.
        high: of the interval.
        control: which control was the higher one: "oracle" or "unseen".
    """

    value: float
    low: float
    high: float
    control: str


@dataclass(frozen=True)
class SettingLeak:
    """The leak in one setting of an attack.

    Attributes:
        setting: what was tried.
        tuned: mean over the half on which settings are chosen; None where all of it was given.
        reported: mean over the other half.
        utility: of the attacked model, as a share of what it was; None for attacks that leave the weights.
        kept: whether it may be chosen: attacks that destroy the model are left out.
    """

    setting: dict[str, Any]
    tuned: float | None
    reported: float
    utility: float | None = None
    kept: bool = True


@dataclass(frozen=True)
class SubjectLeak:
    """What an attack got out of one model, or of rows never seen.

    Attributes:
        leak: mean over the rows reported, in the setting that was chosen.
        low: of its 95% interval.
        high: of its 95% interval.
        setting: the one with the highest mean over the other half of the rows.
        untouched: the mean before anything was done, in the same score.
        rows: leak of the rows reported, in their order; empty in the record of a run.
        settings: all that were tried.
        steps_to_half: of an attack that trains: steps until half of the leak of the model before unlearning came
            back; None where it did not, or where that is not known.
        seconds: that it took.
    """

    leak: float
    low: float
    high: float
    setting: dict[str, Any]
    untouched: float
    rows: list[float] = field(default_factory=list)
    settings: list[SettingLeak] = field(default_factory=list)
    steps_to_half: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class AttackFinding:
    """One attack on the model and its controls.

    Attributes:
        name: of the attack.
        arguments: its budget.
        threat: what its attacker can reach: "queries", "logits", "weights" or "weights_and_before".
        given: what the attacker knows beside the model.
        score: what a leak of 1 means.
        formula: in a line.
        paper: where it is from.
        subjects: by what it was run on: "model", "oracle" (of several the one that gave away most), "unseen" and
            "before".
        excess: None where there is no control.
        recovered: share of the rows reported whose leak is at least half of their leak in the model before (half of
            1 without it), and above that of 95% of the control's rows.
        content: whether a high leak gives away what a row says; False for attacks that only tell that it was trained
            on, which recover nothing.
    """

    name: str
    arguments: dict[str, Any]
    threat: str
    given: str
    score: str
    formula: str
    paper: str
    subjects: dict[str, SubjectLeak]
    excess: Excess | None
    recovered: float
    content: bool = True


@dataclass(frozen=True)
class WorstCase:
    """The attack of a threat class that gets most.

    Attributes:
        attack: its name.
        excess: of it; the interval is that of the largest excess of the class.
        recovered: share of the rows reported that any attack of the class, or of a weaker one, recovers.
    """

    attack: str
    excess: Excess | None
    recovered: float


@dataclass(frozen=True)
class AttackReport:
    """What attacks found.

    Attributes:
        findings: attack by attack.
        worst: by threat class; a class holds the attacks of weaker classes too, as who has the weights can ask.
        skipped: attacks that were not tried, each with the reason, as the end of a sentence.
        suite: name of the suite of attacks; None where they were named.
        attacked_rows: forget rows that were attacked.
        reported_rows: of them, those that figures are means over.
        unseen_rows: never-seen rows that were attacked as a control; 0 without any.
        oracles: retrained models that were attacked as controls.
        sha256: of the attacked rows' token ids.
        weights: SHA-256 of the model that was attacked.
        seed: of everything that was drawn.
        seconds: that all of it took.
        warnings: what a reader must know.
        versions: of the libraries.
    """

    findings: list[AttackFinding] = field(default_factory=list)
    worst: dict[str, WorstCase] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    suite: str | None = None
    attacked_rows: int = 0
    reported_rows: int = 0
    unseen_rows: int = 0
    oracles: int = 0
    sha256: str = ""
    weights: str = ""
    seed: int = 0
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, attack: str) -> AttackFinding:
        for finding in self.findings:
            if finding.name == attack:
                return finding
        raise KeyError(attack)

    def without_rows(self) -> "AttackReport":
        """The same without the leaks of single rows, as the record of a run keeps it."""
        bare = [
            replace(finding, subjects={name: replace(leak, rows=[]) for name, leak in finding.subjects.items()})
            for finding in self.findings
        ]
        return replace(self, findings=bare)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; numbers that are not finite are words."""
        return {"format": _FORMAT} | {name: as_json(value) for name, value in vars(self).items()}

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write attacks.json into a folder, so that a reader sees a whole file or none."""
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False)
        return atomic_write_text(Path(folder) / ATTACKS_FILE, text + "\n")


def recovered_rows(subjects: Mapping[str, Sequence[float]]) -> NDArray[np.bool_]:
    """[R] flags of the rows that an attack recovers: half of what they once gave away, and more than chance.

    That is at least half of their leak in the model before unlearning (half of 1 without it), and above the leak of
    95% of the control's rows: of never-seen rows, of the oracle where there are none.

    Args:
        subjects: leaks of the rows reported by what was attacked, "model" among them.
    """
    rows = {name: np.asarray(leaks, dtype=np.float64) for name, leaks in subjects.items() if len(leaks)}
    flags = rows[MODEL] >= (rows[BEFORE] / 2 if BEFORE in rows else 0.5)
    control = rows.get(UNSEEN, rows.get(ORACLE))
    return flags if control is None else flags & (rows[MODEL] > np.quantile(control, 0.95))


def load_attack_report(path: str | os.PathLike[str]) -> AttackReport:
    """The report in a run's folder (or its attacks.json).

    Raises:
        ValueError: there is none, or it is of another kind, or a key of it was changed.
    """
    file = Path(path) / ATTACKS_FILE if Path(path).is_dir() else Path(path)
    try:
        stored = read_json(file)
    except (OSError, ValueError) as error:
        raise _no_report(file, f"what cannot be read ({type(error).__name__})") from None
    if not isinstance(stored, Mapping) or stored.get("format") != _FORMAT:
        raise _no_report(file, "a JSON file of another kind, or of another version of hf_unlearn")
    plain = {name: value for name, value in stored.items() if name != "format"}
    try:
        check_report(plain)
    except SchemaError as error:
        why = "what may be released is decided by it"
        raise wrong_file(file.name, error, why, "undo the change of the file, or attack again") from None
    report: AttackReport = build(plain, AttackReport)
    return report


def check_report(stored: Any, where: str = "") -> None:
    """Raise a SchemaError unless a value of JSON is what `AttackReport.to_dict` writes, its format aside.

    Args:
        stored: as it was read.
        where: its path in its file.
    """
    check_schema(stored, AttackReport, where)
    inside = f"{where}." if where else ""
    for index, finding in enumerate(stored.get("findings", [])):
        place = f"{inside}findings[{index}]"
        _require(f"{place}.threat", finding["threat"], THREATS)
        if MODEL not in finding["subjects"]:
            raise SchemaError(f"{place}.subjects.{MODEL}", "a value", "no such key")
        for name, leak in finding["subjects"].items():
            _require(f"{place}.subjects.{name}", name, SUBJECTS)
            settings = [leak["setting"], *(tried["setting"] for tried in leak.get("settings", []))]
            check_schema(settings, list[dict[str, float | str | bool | None]], f"{place}.subjects.{name}.settings")
        _check_control(finding["excess"], place)
    for threat, worst in stored.get("worst", {}).items():
        _require(f"{inside}worst.{threat}", threat, THREATS)
        _require(f"{inside}worst.{threat}.attack", worst["attack"], [f["name"] for f in stored.get("findings", [])])
        _check_control(worst["excess"], f"{inside}worst.{threat}")


def _check_control(excess: Mapping[str, Any] | None, where: str) -> None:
    if excess is not None:
        _require(f"{where}.excess.control", excess["control"], CONTROLS)


def _require(where: str, value: str, options: Collection[str]) -> None:
    if value not in options:
        raise SchemaError(where, f"one of {', '.join(options)}", shown(value))


def _no_report(file: Path, got: str) -> ValueError:
    return input_error(
        expected=f"a run's folder with an {ATTACKS_FILE}, as hf-unlearn attack writes it",
        got=f"{file.name}: {got}",
        why="what attacks get out of the model is not known without it",
        fix="run hf-unlearn attack on the run's folder",
    )
