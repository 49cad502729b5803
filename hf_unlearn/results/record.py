"""The record of a run (results.json): what was to be forgotten, how, and what came of it, without any row's text.

The card, the report and the push are made from it alone, so that they can be made again at any time.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..errors import input_error
from .attack_report import AttackReport, check_report
from .deletion_record import DeletionRecord
from .evaluation_result import EvaluationResult, check_result, restored
from .files import atomic_write_text, read_json
from .lineage import Lineage
from .phase_record import KINDS, PhaseRecord
from .record_parts import (
    ArgumentKeys,
    AttackRecord,
    BoundKeys,
    CardMetadata,
    ComponentRecord,
    HardwareKeys,
    LevelQuality,
    LogKeys,
    ModelRecord,
    ObjectiveRecord,
    SetRecord,
    TermRecord,
)
from .redaction import redacted
from .schema import NOT_FINITE, SchemaError, as_json, build, check_schema, shown, wrong_file

RECORD_FILE = "results.json"
PLOTS = "plots"  # folder beside the record
ATTACK_PLOTS = "attacks"  # how the names of those of attacks begin
PLOTS_OF = "of.txt"  # in it: the hash of the figures that the plots show
_Figure = float | str | bool | None  # what Trainer and its callbacks log
_FORMAT = 2  # raised when the file's keys change


@dataclass
class RunRecord:
    """All that a card, a report and a push say of a run.

    Attributes:
        name: of the run: its output folder's.
        task: of `hf-unlearn train`, or None for a script of one's own.
        recipe: name of the packaged recipe, where there was one.
        model: before unlearning, and what was trained.
        sets: training sets by role (forget, retain, holdout).
        objective: what was minimised; of a run of phases by its last training.
        phases: of a run of several, in order; () for one that is a training and nothing else. The keys of the run sum
            up theirs.
        reference: how the model before unlearning was known to the losses: keys of REFERENCE_WORDS, joined by " + ".
        stop_reason: why the run ended early, or None.
        steps: optimizer steps taken.
        planned_steps: optimizer steps that were to be taken.
        epochs: of the forget set.
        resumed_from: step of the checkpoint that the run went on from; cost covers the steps since then.
        holdout_nll: of unseen rows before unlearning, nats per token.
        levels: how the levels of the forget rows were estimated, and how well they are known; None without any.
        cost: `seconds` of the training, `peak_memory_mb` of the process (on a GPU, of what it allocated there), and
            `tokens` seen, where Trainer counts them.
        emissions_kg: CO2 equivalents of the training, where codecarbon measured them.
        hardware: `device`, `processes`, `strategy`, `precision`, `platform`.
        seed: of the run.
        arguments: of UnlearningConfig, those that are not the default's; no path and no token.
        versions: of the libraries.
        evaluations: results of a suite by model: "before", "after", "oracle". Scores of single rows are not kept here.
        oracle: what the model of the evaluation "oracle" is, as the end of a sentence: "the same model trained without
            the forget rows"; None where it is not known.
        trainer_metrics: figures of the last `trainer.evaluate()`.
        attacks: what was tried on the model after unlearning by other means; empty where nothing was.
        attack_report: what the attacks of this package got out of it, without the leaks of single rows; None where it
            was not attacked.
        metadata: what only the user knows.
        log: Trainer's log history: the components of the loss over the steps.
        forced: what the preflight found, where the run was told to go on all the same.
        signs: what was noticed in training: forget NLL that fell, retain rows that were lost.
        deletion: what was asked to be deleted and what was left out for it; None where it was no deletion request.
        card_sha256: SHA-256 of the card that was rendered from the record and lies beside it; a card with another hash
            was edited by hand. None where no card was written.
        lineage: which weights went in and came out, and the run before; None in a record from before it was kept.
    """

    name: str = ""
    task: str | None = None
    recipe: str | None = None
    model: ModelRecord = field(default_factory=ModelRecord)
    sets: dict[str, SetRecord] = field(default_factory=dict)
    objective: ObjectiveRecord = field(default_factory=ObjectiveRecord)
    phases: list[PhaseRecord] = field(default_factory=list)
    reference: str = "none"
    stop_reason: str | None = None
    steps: int = 0
    planned_steps: int = 0
    epochs: float = 0.0
    resumed_from: int = 0
    holdout_nll: float | None = None
    levels: LevelQuality | None = None
    cost: dict[str, float] = field(default_factory=dict)
    emissions_kg: float | None = None
    hardware: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    arguments: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    evaluations: dict[str, EvaluationResult] = field(default_factory=dict)
    oracle: str | None = None
    trainer_metrics: dict[str, float] = field(default_factory=dict)
    attacks: list[AttackRecord] = field(default_factory=list)
    attack_report: AttackReport | None = None
    metadata: CardMetadata = field(default_factory=CardMetadata)
    log: list[dict[str, Any]] = field(default_factory=list)
    forced: list[str] = field(default_factory=list)
    signs: list[str] = field(default_factory=list)
    deletion: DeletionRecord | None = None
    card_sha256: str | None = None
    lineage: Lineage | None = None

    @property
    def methods(self) -> list[str]:
        """Names of the forget losses and edits, in order; the class of one that is the user's own."""
        if self.phases:
            return [name for phase in self.phases for name in phase.name.split(" + ")]
        return [term.own or term.name for term in self.objective.terms if term.side == "forget"]

    @property
    def parts(self) -> list[ComponentRecord]:
        """Everything that has a paper: losses, step wrappers, weighting, edits."""
        if self.phases:
            return [part for phase in self.phases for part in phase.parts]
        return [*self.objective.terms, *self.objective.step_wrappers, self.objective.weighting]

    @property
    def warnings(self) -> list[str]:
        """What a reader must know of the run itself: an overruled preflight, poor levels, signs in training."""
        overruled = [f"The run went on although its preflight found: {noticed}." for noticed in self.forced]
        poor = [] if self.levels is None else [f"Levels: {warning}" for warning in self.levels.warnings]
        reports = [(phase.name, phase.report or phase.suppression) for phase in self.phases]
        edits = [f"{name}: {warning}" for name, report in reports if report for warning in report.warnings]
        stand_in = [] if self.deletion is None else self.deletion.warnings
        return [*overruled, *stand_in, *poor, *edits, *self.signs]

    @property
    def removable_adapter(self) -> bool:
        """Whether an adapter lies beside its base: without it the model is the one before unlearning."""
        return self.model.adapter is not None and not self.model.merged

    @property
    def public(self) -> bool:
        """Whether model and sets are known to come, unchanged, from where others may read them: Hub or lab."""
        sets = self.sets.values()
        return bool(sets) and self.model.public and all(s.untouched and s.origin in ("hub", "lab") for s in sets)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        shallow = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "evaluations"}
        shallow["attack_report"] = None if self.attack_report is None else self.attack_report.without_rows()
        plain = {name: as_json(value) for name, value in shallow.items()}
        plain["evaluations"] = {name: _without_rows(result) for name, result in self.evaluations.items()}
        return {"format": _FORMAT} | plain

    def as_text(self) -> str:
        """The content of results.json. What a user put into the record may have held a path or a token."""
        return json.dumps(redacted(self).to_dict(), indent=2, allow_nan=False) + "\n"

    def as_saved(self) -> "RunRecord":
        """The record as `load_record` gives it back once it was saved."""
        return _restored(json.loads(self.as_text()))

    def figures_hash(self) -> str:
        """SHA-256 of what plots are drawn from: the log, the evaluations, the bound and attacks."""
        known = self.to_dict()
        drawn = [known["log"], known["evaluations"], known["objective"]["bound"]]
        drawn += [] if self.attack_report is None else [known["attack_report"]]  # the hash of older records stays
        return hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write results.json into a folder, so that a reader sees a whole file or none."""
        return atomic_write_text(Path(folder) / RECORD_FILE, self.as_text())


def load_record(path: str | os.PathLike[str]) -> RunRecord:
    """The record of a run's folder (or of its results.json).

    Raises:
        ValueError: there is no record, or it is of another kind or format.
    """
    file = Path(path) / RECORD_FILE if Path(path).is_dir() else Path(path)
    try:
        stored = read_json(file)
    except (OSError, ValueError) as error:
        raise _no_record(file, f"what cannot be read ({type(error).__name__})") from None
    if not isinstance(stored, Mapping) or stored.get("format") != _FORMAT or "objective" not in stored:
        raise _no_record(file, "a JSON file of another kind, or of another version of hf_unlearn")
    try:
        _check_record(stored)
    except SchemaError as error:
        why = "cards, reports and pushes are made from it, and would fail or say something else"
        fix = "undo the change of the file, or pass the output_dir of another run"
        raise wrong_file(file.name, error, why, fix) from None
    return _restored(stored)


def _check_record(stored: Mapping[str, Any]) -> None:
    """Raise a SchemaError unless a value of JSON is what `RunRecord.to_dict` writes."""
    for name in ("model", "sets", "attacks", "metadata", "evaluations"):
        if name not in stored:
            raise SchemaError(name, "a value", "no such key")
    plain = {name: value for name, value in stored.items() if name not in ("format", "evaluations")}
    if plain.get("attack_report") is not None:
        check_report(plain.pop("attack_report"), "attack_report")
    check_schema(plain, RunRecord)
    check_schema(stored["evaluations"], dict[str, dict[str, Any]], "evaluations")
    for name, result in stored["evaluations"].items():
        check_result(result, f"evaluations.{name}")
    check_schema(plain["objective"].get("bound", {}), BoundKeys, "objective.bound")
    check_schema(plain.get("hardware", {}), HardwareKeys, "hardware")
    check_schema(plain.get("arguments", {}), ArgumentKeys, "arguments")
    check_schema(plain.get("log", []), list[LogKeys], "log")
    check_schema(plain.get("log", []), list[dict[str, _Figure]], "log")
    choices = {f"objective.terms[{i}].side": t.get("side") for i, t in enumerate(plain["objective"].get("terms", []))}
    for where, side in choices.items():
        _check_choice(where, side, ("forget", "retain", "anchor"))
    for index, phase in enumerate(plain.get("phases", [])):
        _check_choice(f"phases[{index}].kind", phase["kind"], KINDS)
    origins = {f"sets.{name}.origin": rows.get("origin") for name, rows in plain["sets"].items()}
    _check_choice("model.origin", plain["model"].get("origin"), ("hub", "lab", "local"))
    for where, origin in origins.items():
        _check_choice(where, origin, ("hub", "lab", "generated", "local"))


def _check_choice(where: str, value: str | None, options: tuple[str, ...]) -> None:
    if value is not None and value not in options:
        raise SchemaError(where, f"one of {', '.join(options)}", shown(value))


def _restored(stored: Mapping[str, Any]) -> RunRecord:
    values = {name: value for name, value in stored.items() if name != "format"}
    # Numbers that are not finite stand in a file as words.
    values |= {name: _read(values[name]) for name in ("epochs", "holdout_nll", "emissions_kg") if name in values}
    values["cost"] = {name: _read(amount) for name, amount in values.get("cost", {}).items()}
    objective = dict(values["objective"])
    objective["bound"] = {name: _read(level) for name, level in objective.get("bound", {}).items()}
    weights = [name for name in ("forget_weight", "retain_weight", "anchor_weight") if name in objective]
    objective |= {name: _read(objective[name]) for name in weights}
    terms = [TermRecord(**term) for term in objective.get("terms", [])]
    objective["terms"] = [replace(term, weight=_read(term.weight)) for term in terms]
    objective["step_wrappers"] = [ComponentRecord(**wrapper) for wrapper in objective.get("step_wrappers", [])]
    objective["weighting"] = ComponentRecord(**objective.get("weighting", {"name": "fixed"}))
    values["objective"] = ObjectiveRecord(**objective)
    if values.get("levels") is not None:
        quality = {name: _read(value) for name, value in values["levels"].items() if name != "warnings"}
        values["levels"] = LevelQuality(**quality, warnings=tuple(values["levels"].get("warnings", ())))
    values["model"] = ModelRecord(**values["model"])
    values["sets"] = {name: SetRecord(**rows) for name, rows in values["sets"].items()}
    values["attacks"] = [AttackRecord(**attack) for attack in values["attacks"]]
    values["phases"] = build(values.get("phases", []), list[PhaseRecord])
    values["attack_report"] = build(values.get("attack_report"), AttackReport | None)
    values["deletion"] = build(values.get("deletion"), DeletionRecord | None)
    values["metadata"] = CardMetadata(**values["metadata"])
    values["lineage"] = build(values.get("lineage"), Lineage | None)
    values["evaluations"] = {name: restored(result) for name, result in values["evaluations"].items()}
    return RunRecord(**values)


def _read(number: Any) -> Any:
    return float(number) if number in NOT_FINITE else number


def _without_rows(result: EvaluationResult) -> dict[str, Any]:
    return result.to_dict() | {"row_scores": {}}


def _no_record(file: Path, got: str) -> ValueError:
    begun = sorted(file.parent.glob("checkpoint-*"))
    again = "pass the output_dir of a run; a run of an older version is to be trained again"
    if begun:
        again = "the run has not ended: go on with --resume_from_checkpoint true, or pass one of its checkpoints"
    return input_error(
        expected=f"a run's folder with a {RECORD_FILE}, as trainer.save_model and hf-unlearn train write it",
        got=f"{file.name}: {got}",
        why="cards, reports and pushes are made from it",
        fix=again,
    )
