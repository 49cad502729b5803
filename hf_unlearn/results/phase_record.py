"""What a run keeps of each of its phases (an edit, a training, a suppression), and what they come to together."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from .edit_report import EditReport
from .record_parts import ComponentRecord, LevelQuality, ObjectiveRecord
from .suppression_report import SuppressionReport

if TYPE_CHECKING:
    from .record import RunRecord

Report = TypeVar("Report", EditReport, SuppressionReport)
EDIT, TRAIN, SUPPRESS = KINDS = ("edit", "train", "suppress")
# Arguments of a run that say how its rows become tokens, whatever its phases are.
_OF_ROWS = ("template", "max_length", "chat_template_kwargs")


@dataclass
class PhaseRecord:
    """One phase of a run.

    Attributes:
        kind: "edit", "train" or "suppress".
        name: of the edit or suppression; of a training those of its forget losses.
        report: of an edit.
        suppression: of a suppression.
        objective: of a training, as the other keys below.
        reference: how the model before unlearning was known to the losses.
        arguments: of UnlearningConfig, those that are not the default's.
        adapter: kind, rank and the like, where one was trained and then merged.
        trained: weights that were trained.
        steps: optimizer steps taken.
        planned_steps: that were to be taken.
        epochs: of the forget set.
        resumed_from: step of the checkpoint that the training went on from.
        stop_reason: why it ended early, or None.
        holdout_nll: of unseen rows before unlearning, nats per token.
        levels: how the levels of the forget rows were estimated.
        cost: `seconds`, and where they are known `cpu_seconds`, `tokens` and `peak_memory_mb`.
        log: Trainer's log history.
        signs: what was noticed in training.
    """

    kind: str
    name: str
    report: EditReport | None = None
    suppression: SuppressionReport | None = None
    objective: ObjectiveRecord | None = None
    reference: str = "none"
    arguments: dict[str, Any] = field(default_factory=dict)
    adapter: dict[str, Any] | None = None
    trained: int = 0
    steps: int = 0
    planned_steps: int = 0
    epochs: float = 0.0
    resumed_from: int = 0
    stop_reason: str | None = None
    holdout_nll: float | None = None
    levels: LevelQuality | None = None
    cost: dict[str, float] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    signs: list[str] = field(default_factory=list)

    @classmethod
    def of_edit(cls, report: EditReport) -> "PhaseRecord":
        """Of an edit; of a report that holds a model, all else."""
        return cls(EDIT, _name(report.edit), report=_bare(report, EditReport), cost=_cost(report))

    @classmethod
    def of_suppression(cls, report: SuppressionReport) -> "PhaseRecord":
        """Of a suppression; of a report that holds a suppressor, all else."""
        bare = _bare(report, SuppressionReport)
        return cls(SUPPRESS, _name(report.suppression), suppression=bare, cost=_cost(report))

    @classmethod
    def of_training(cls, record: "RunRecord") -> "PhaseRecord":
        """Of a trainer's own record."""
        shared = {
            name: getattr(record, name)
            for name in (
                *("objective", "reference", "arguments", "steps", "planned_steps", "epochs", "resumed_from"),
                *("stop_reason", "holdout_nll", "levels", "cost", "log", "signs"),
            )
        }
        model = record.model
        return cls(TRAIN, " + ".join(record.methods), adapter=model.adapter, trained=model.trained, **shared)

    @property
    def parts(self) -> Iterator[ComponentRecord]:
        """Everything in it that has a paper."""
        if self.report is not None:
            yield self.report.edit
        if self.suppression is not None:
            yield self.suppression.suppression
        if self.objective is not None:
            yield from (*self.objective.terms, *self.objective.step_wrappers, self.objective.weighting)

    @property
    def reads_holdout(self) -> bool:
        """Whether it was fitted to one half of the holdout rows."""
        if any(one is not None and one.rows.get("holdout") for one in (self.report, self.suppression)):
            return True
        anchored = self.objective is not None and any(term.side == "anchor" for term in self.objective.terms)
        return anchored or (self.levels is not None and self.levels.calibration_rows > 0)


def suppression_of(record: "RunRecord") -> SuppressionReport | None:
    """The suppression that a run ends with; None where its weights answer by themselves."""
    return record.phases[-1].suppression if record.phases else None


def _name(component: ComponentRecord) -> str:
    return component.own or component.name


def _bare(report: Report, kind: type[Report]) -> Report:
    """A report without what a subclass of its kind holds in memory."""
    return kind(**{part.name: getattr(report, part.name) for part in fields(kind)})


def _cost(report: EditReport | SuppressionReport) -> dict[str, float]:
    return {"seconds": report.seconds, "cpu_seconds": report.cpu_seconds, "tokens": float(report.tokens)}


def sum_phases(record: "RunRecord") -> None:
    """Put into the record of a run what its phases come to: the last training's objective, the cost of all.

    Args:
        record: of the run; one without phases stays as it is.
    """
    if not record.phases:
        return
    trainings = [phase for phase in record.phases if phase.kind == TRAIN]
    last = trainings[-1] if trainings else PhaseRecord(TRAIN, "")
    of_rows = {name: record.arguments[name] for name in _OF_ROWS if name in record.arguments}
    record.objective = last.objective or ObjectiveRecord()
    record.reference, record.levels, record.holdout_nll = last.reference, last.levels, last.holdout_nll
    record.arguments = last.arguments or of_rows
    record.steps, record.planned_steps, record.epochs = last.steps, last.planned_steps, last.epochs
    record.resumed_from, record.stop_reason, record.log = last.resumed_from, last.stop_reason, last.log
    record.signs = [sign for phase in record.phases for sign in phase.signs]
    record.model.trained = max([phase.trained for phase in trainings], default=0)
    names = dict.fromkeys(name for phase in record.phases for name in phase.cost)
    spent = {name: [phase.cost[name] for phase in record.phases if name in phase.cost] for name in names}
    record.cost = {name: max(parts) if name == "peak_memory_mb" else sum(parts) for name, parts in spent.items()}
