"""What a run's record is made of: parts of the objective, the model, sets, attacks, what only the user knows."""

from dataclasses import dataclass, field
from typing import Any, TypedDict

# Where levels come from, as `LevelQuality.source` holds it -> its words on the card and in the report.
LEVEL_WORDS = {
    "ngram": "estimated by a 4-gram counted on the retain rows",
    "holdout": "quantiles of what unseen rows get, dealt out to the forget rows",
    "model": "estimated by another language model that was named as one that never saw the rows",
    "given": "given row by row",
}
# Reference mode, as `RunRecord.reference` holds it -> its words on the card and in the report.
REFERENCE_WORDS = {
    "none": "no loss compares with the model before unlearning",
    "precomputed": "log-probs of the model before unlearning, computed once before the first step",
    "adapter": "the model before unlearning, as the same weights with the adapter as it was before training",
    "copy": "the model before unlearning, as a frozen copy",
    "topk": "the likeliest tokens of the model before unlearning, computed once before the first step (approximate)",
}


@dataclass
class ComponentRecord:
    """A loss, a step wrapper or a weighting, and where it comes from.

    Attributes:
        name: as configs and logs have it.
        arguments: by name.
        formula: what it computes, in the paper's notation.
        paper: where it was published.
        own: class of the user's own, which no name stands for; None for what has a name.
        package: that a plugin's comes from; None for this package's own.
        version: of that package; "" where it has none.
        module: of that package, which declares it.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    formula: str = ""
    paper: str = ""
    own: str | None = None
    package: str | None = None
    version: str | None = None
    module: str | None = None

    @property
    def origin(self) -> str:
        """The package with its version; "" for what is this package's own or the user's."""
        return f"{self.package} {self.version or ''}".rstrip() if self.package else ""


@dataclass
class TermRecord(ComponentRecord):
    """A term of the objective.

    Attributes:
        side: "forget", "retain" or "anchor".
        weight: within its side.
    """

    side: str = "forget"
    weight: float = 1.0


@dataclass
class ObjectiveRecord:
    """L = w_f * sum_i w_i L_forget_i + w_r * sum_j w_j L_retain_j + w_a * sum_k w_k L_anchor_k, with its numbers.

    Attributes:
        terms: of all sides, forget first, anchor last.
        forget_weight: w_f.
        retain_weight: w_r, the first one where a weighting moves it.
        weighting: how w_r is set.
        step_wrappers: what wrapped the gradient steps.
        optimizer: by Trainer's name.
        bound: where a forget row stopped pushing: `setting` as in UnlearningConfig, and in nats per token `nats`, or
            `low` and `high` where each row had its own level; `sides` is "both" where rows past it were pulled back.
        anchor_weight: w_a.
    """

    terms: list[TermRecord] = field(default_factory=list)
    forget_weight: float = 1.0
    retain_weight: float = 1.0
    weighting: ComponentRecord = field(default_factory=lambda: ComponentRecord("fixed"))
    step_wrappers: list[ComponentRecord] = field(default_factory=list)
    optimizer: str = ""
    bound: dict[str, Any] = field(default_factory=dict)
    anchor_weight: float = 0.5


class BoundKeys(TypedDict, total=False):
    """What `ObjectiveRecord.bound` holds in a file."""

    setting: str | float | None
    nats: float | None
    low: float | None
    high: float | None
    sides: str


class HardwareKeys(TypedDict, total=False):
    """What `RunRecord.hardware` holds in a file."""

    device: str | None
    processes: int | None
    cores: int | None
    strategy: str | None
    precision: str | None
    platform: str | None


class ArgumentKeys(TypedDict, total=False):
    """What `RunRecord.arguments` holds in a file of those that a resumed run calculates with."""

    per_device_train_batch_size: int
    gradient_accumulation_steps: int


class LogKeys(TypedDict, total=False):
    """What an entry of `RunRecord.log` holds in a file, beside figures by their names."""

    step: int
    epoch: float
    loss: float


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
        fitted_origin: where that came from, as `origin`.
        vocabulary: rows of the embeddings that the adapter's folder brings with it, to which the base model is resized
            before the adapter is loaded; None where it brings none.
        resized: rows of the embeddings when the run began, where they had been resized since the model was loaded;
            None where they had not, or where nobody can tell.
        start: hashes of values of the weights before the first step, by which a resumed run knows them again: "model",
            and "reference" where a ref_model was given.
        earlier_run: name of the unlearning run that the model comes from; that model, not its base, is then the model
            before unlearning and the reference. None where it comes from none.
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
    fitted_origin: str | None = None
    vocabulary: int | None = None
    resized: int | None = None
    start: dict[str, str] = field(default_factory=dict)
    earlier_run: str | None = None

    @property
    def public(self) -> bool:
        """Whether the weights that the run started from are the Hub's or the lab's, as far as the run knows."""
        return (self.fitted_origin or self.origin) in ("hub", "lab")


@dataclass
class SetRecord:
    """A set of rows: how many, which (by hash), and from where.

    Attributes:
        rows: None for a stream.
        sha256: of the token ids and labels of every row, in order.
        origin: "hub", "lab", or "local" for files, rows in memory and all else whose origin is not known.
        id: of the dataset on the Hub, or of the lab's world.
        revision: commit of the dataset on the Hub.
        untouched: whether the rows are known to be the source's own, as a task of this package loads them. Whoever
            holds a set may have put other rows into it.
    """

    rows: int | None = None
    sha256: str | None = None
    origin: str = "local"
    id: str | None = None
    revision: str | None = None
    untouched: bool = False


@dataclass(frozen=True)
class LevelQuality:
    """How levels were estimated, and how well their profile tells the NLL of unseen rows.

    Attributes:
        source: "ngram", "holdout", "model" or "given".
        calibration_rows: unseen rows that the levels were fitted on; 0 for levels that were given.
        forget_rows: rows that have a level.
        pearson: correlation of the NLL of unseen rows with what the profile predicts of them, cross-validated; None
            where there is no profile, or too few rows to tell.
        spearman: the same of their ranks.
        error: mean absolute error of that prediction, nats per token.
        intercept: a of tau = a + b p, nats per token.
        slope: b of it; 0 where there is no profile.
        mean: of the levels of the forget rows, nats per token.
        warnings: what is poor about them and what follows, a sentence each.
    """

    source: str
    calibration_rows: int
    forget_rows: int
    mean: float
    pearson: float | None = None
    spearman: float | None = None
    error: float | None = None
    intercept: float | None = None
    slope: float | None = None
    warnings: tuple[str, ...] = field(default=())


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
        repo_id: repository that the card's code loads from, where `hf-unlearn card` was told.
    """

    model_name: str | None = None
    license: str | None = None
    language: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    repo_id: str | None = None


def reference_words(reference: str) -> str:
    """How the losses knew the model before unlearning; "" for modes that have no words, from a later version."""
    return "; ".join(REFERENCE_WORDS[mode] for mode in reference.split(" + ") if mode in REFERENCE_WORDS)


def level_words(levels: LevelQuality, *, by_task: bool, every: int | None = None) -> str:
    """Where the levels of a run come from, how well they are known, and which unseen rows are left for measuring.

    Args:
        levels: of the run.
        by_task: whether a task of this package has run it, whose suites measure the other half.
        every: so many steps after which they were estimated again (`recalibrate_steps`), or None.
    """
    words = f"{LEVEL_WORDS.get(levels.source, levels.source)}; mean {levels.mean:.2f} nats per token"
    words += f" before the first step, estimated again every {every} steps" if every else ""
    if not levels.calibration_rows:
        return f"{words}."
    words += f"; calibrated on {levels.calibration_rows:,} holdout rows"
    if levels.spearman is not None and levels.error is not None:
        words += (
            f", of which it predicts the NLL with a rank correlation of {levels.spearman:.2f} and a mean error of "
            f"{levels.error:.2f} nats per token (five-fold cross-validation)"
        )
    measured = "suites measure unseen rows on the other half" if by_task else "the other half is left for measuring"
    return f"{words}. They are one half of the holdout set; {measured}."
