"""The record of a run: what was to be forgotten, how, and what came of it. JSON without any row's text.

The card, the report and the push are made from it alone, so that they can be made again at any time.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .errors import input_error
from .evaluation.result import EvaluationResult, restored

RECORD_FILE = "results.json"
_FORMAT = 2  # raised when the file's keys change


@dataclass
class PartRecord:
    """A loss, a step wrapper or a weighting: its name, its arguments and what it computes, in the paper's notation."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    formula: str = ""
    paper: str = ""


@dataclass
class TermRecord(PartRecord):
    """A term of the objective.

    Attributes:
        side: "forget" or "retain".
        weight: within its side.
    """

    side: str = "forget"
    weight: float = 1.0


@dataclass
class ObjectiveRecord:
    """L = w_f * sum_i w_i L_forget_i + w_r * sum_j w_j L_retain_j, with its numbers.

    Attributes:
        terms: of both sides, forget first.
        forget_weight: w_f.
        retain_weight: w_r, the first one where a weighting moves it.
        weighting: how w_r is set.
        step_wrappers: what wrapped the gradient steps.
        optimizer: by Trainer's name.
        bound: where a forget row stopped pushing: `setting` as in UnlearningConfig, and in nats per token `nats`, or
            `low` and `high` where each row had its own level.
    """

    terms: list[TermRecord] = field(default_factory=list)
    forget_weight: float = 1.0
    retain_weight: float = 1.0
    weighting: PartRecord = field(default_factory=lambda: PartRecord("fixed"))
    step_wrappers: list[PartRecord] = field(default_factory=list)
    optimizer: str = ""
    bound: dict[str, Any] = field(default_factory=dict)


@dataclass
class ModelRecord:
    """The model before unlearning, and what of it was trained.

    Attributes:
        id: on the Hub; None for a local folder or a model in memory, of which no path is kept.
        origin: "hub", "lab" or "local".
        revision: of the Hub's repository, where it was named.
        architecture: class of the model.
        parameters: of the model, adapters included.
        trained: of them, those that were trained.
        dtype: of the base weights.
        adapter: kind ("LORA"), rank and the like; None for full parameters.
        merged: whether the adapter has been merged into the weights that lie beside the record.
        fitted_from: what a run fitted to the rows first, so that there is something to forget: a repository's id, or
            words for a model that is not on the Hub; None where it took the model as it was.
    """

    id: str | None = None
    origin: str = "local"
    revision: str | None = None
    architecture: str = ""
    parameters: int = 0
    trained: int = 0
    dtype: str = ""
    adapter: dict[str, Any] | None = None
    merged: bool = False
    fitted_from: str | None = None


@dataclass
class SetRecord:
    """A set of rows: how many, which (by hash), and from where.

    Attributes:
        rows: None for a stream.
        sha256: of the token ids and labels of every row, in order.
        origin: "hub", "lab", or "local" for files, rows in memory and all else whose origin is not known.
        id: of the dataset on the Hub, or of the lab's world.
        revision: commit of the dataset on the Hub.
    """

    rows: int | None = None
    sha256: str | None = None
    origin: str = "local"
    id: str | None = None
    revision: str | None = None


@dataclass
class AttackRecord:
    """An attack that was tried on the model after unlearning.

    Attributes:
        name: e.g. "relearning".
        settings: in a line, e.g. "25 AdamW steps at 1e-4 on 40 forget rows".
        outcome: in a line, e.g. "held for 12 steps".
        held: whether the forgotten stayed away.
    """

    name: str
    settings: str
    outcome: str
    held: bool | None = None


@dataclass
class CardMetadata:
    """What only the user knows, for the card.

    Attributes:
        model_name: title of the card.
        license: key of a licence on the Hub, e.g. "apache-2.0".
        language: ISO codes.
        tags: beside those that every card has.
        datasets: ids on the Hub, beside those that the sets have.
    """

    model_name: str | None = None
    license: str | None = None
    language: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)


@dataclass
class RunRecord:
    """All that a card, a report and a push say of a run.

    Attributes:
        name: of the run: its output folder's.
        task: of `hf-unlearn train`, or None for a script of one's own.
        recipe: name of the packaged recipe, where there was one.
        model: before unlearning, and what was trained.
        sets: training sets by role (forget, retain, holdout).
        objective: what was minimised.
        reference: how the model before unlearning was known to the losses: "none", "precomputed", "adapter", "copy".
        stop_reason: why the run ended early, or None.
        steps: optimizer steps taken.
        planned_steps: optimizer steps that were to be taken.
        epochs: of the forget set.
        resumed_from: step of the checkpoint that the run went on from; cost covers the steps since then.
        holdout_nll: of unseen rows before unlearning, nats per token.
        cost: `seconds` and `peak_memory_mb` of the training, and `tokens` seen where Trainer counts them.
        emissions_kg: CO2 equivalents of the training, where codecarbon measured them.
        hardware: `device`, `processes`, `strategy`, `precision`, `platform`.
        seed: of the run.
        arguments: of UnlearningConfig, those that are not the default's; no path and no token.
        versions: of the libraries.
        evaluations: results of a suite by model: "before", "after", "oracle". Scores of single rows are not kept here.
        trainer_metrics: figures of the last `trainer.evaluate()`.
        attacks: what was tried on the model after unlearning; empty where it was not attacked.
        metadata: what only the user knows.
        log: Trainer's log history: the components of the loss over the steps.
    """

    name: str = ""
    task: str | None = None
    recipe: str | None = None
    model: ModelRecord = field(default_factory=ModelRecord)
    sets: dict[str, SetRecord] = field(default_factory=dict)
    objective: ObjectiveRecord = field(default_factory=ObjectiveRecord)
    reference: str = "none"
    stop_reason: str | None = None
    steps: int = 0
    planned_steps: int = 0
    epochs: float = 0.0
    resumed_from: int = 0
    holdout_nll: float | None = None
    cost: dict[str, float] = field(default_factory=dict)
    emissions_kg: float | None = None
    hardware: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    arguments: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    evaluations: dict[str, EvaluationResult] = field(default_factory=dict)
    trainer_metrics: dict[str, float] = field(default_factory=dict)
    attacks: list[AttackRecord] = field(default_factory=list)
    metadata: CardMetadata = field(default_factory=CardMetadata)
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def methods(self) -> list[str]:
        """Names of the forget losses, in order."""
        return [term.name for term in self.objective.terms if term.side == "forget"]

    @property
    def parts(self) -> list[PartRecord]:
        """Everything that has a paper: losses, step wrappers, weighting."""
        return [*self.objective.terms, *self.objective.step_wrappers, self.objective.weighting]

    @property
    def public(self) -> bool:
        """Whether every set is known to come from where anybody can read it: the Hub, or the lab."""
        return bool(self.sets) and all(each.origin in ("hub", "lab") for each in self.sets.values())

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        shallow = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "evaluations"}
        plain = {name: _plain(value) for name, value in shallow.items()}
        plain["evaluations"] = {name: _without_rows(result) for name, result in self.evaluations.items()}
        return {"format": _FORMAT} | plain

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write results.json into a folder, so that a reader sees a whole file or none."""
        target = Path(folder) / RECORD_FILE
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        unfinished.replace(target)
        return target


def load_record(path: str | os.PathLike[str]) -> RunRecord:
    """The record of a run's folder (or of its results.json).

    Raises:
        ValueError: there is no record, or it is of another kind or format.
    """
    file = Path(path) / RECORD_FILE if Path(path).is_dir() else Path(path)
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _no_record(file, f"what cannot be read ({type(error).__name__})") from None
    if not isinstance(stored, Mapping) or stored.get("format") != _FORMAT or "objective" not in stored:
        raise _no_record(file, "a JSON file of another kind, or of another version of hf_unlearn")
    try:
        return _restored(stored)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _no_record(file, "a JSON file with other content") from None


def _restored(stored: Mapping[str, Any]) -> RunRecord:
    values = {name: value for name, value in stored.items() if name != "format"}
    objective = dict(values["objective"])
    objective["terms"] = [TermRecord(**each) for each in objective["terms"]]
    objective["step_wrappers"] = [PartRecord(**each) for each in objective["step_wrappers"]]
    objective["weighting"] = PartRecord(**objective["weighting"])
    values["objective"] = ObjectiveRecord(**objective)
    values["model"] = ModelRecord(**values["model"])
    values["sets"] = {name: SetRecord(**each) for name, each in values["sets"].items()}
    values["attacks"] = [AttackRecord(**each) for each in values["attacks"]]
    values["metadata"] = CardMetadata(**values["metadata"])
    values["evaluations"] = {name: restored(each) for name, each in values["evaluations"].items()}
    return RunRecord(**values)


def _without_rows(result: EvaluationResult) -> dict[str, Any]:
    return result.to_dict() | {"row_scores": {}}


def _plain(value: Any) -> Any:
    """As JSON takes it: dataclasses as mappings, numbers that are not finite as words."""
    if hasattr(value, "__dataclass_fields__"):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _no_record(file: Path, got: str) -> ValueError:
    return input_error(
        expected=f"a run's folder with a {RECORD_FILE}, as trainer.save_model and hf-unlearn train write it",
        got=f"{file.name}: {got}",
        why="cards, reports and pushes are made from it",
        fix="pass the output_dir of a run; a run of an older version is to be trained again",
    )
