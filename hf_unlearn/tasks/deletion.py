"""The task deletion: rows that somebody asks to have deleted, and rows that stay; without any, the lab's people."""

import secrets
import sys
from dataclasses import dataclass, field
from functools import partial

from datasets import Dataset, concatenate_datasets

from ..data.formats import detect_format, format_columns
from ..data.perturbed_rows import perturbed_rows
from ..data.row_cache import RowCache
from ..data.text_digests import text_digests
from ..errors import input_error, require_choice, value_error
from ..evaluation import custom
from ..lab import load_lab
from ..requests import Ledger
from ..requests.rows_store import RowsStore
from ..results.deletion_record import GIVEN, PERTURBED, DeletionRecord
from ..training.config import row_cache_of
from .arguments import Parsed
from .generated_retain import Answerer
from .row_sets import RowSetArguments, load_sets
from .task import SuiteOf, Task, first, measured_rows, require_unused

DEFAULT_RECIPE = "deletion_lab"
LAB_PEOPLE, LAB_FACTS = 2, 5  # who ask to be deleted where nobody else does, and rows about each
_STAND_INS, _STAND_INS_A_ROW = 400, 4  # the fewest and, for each forget row, that are made where there are so many


@dataclass
class Arguments(RowSetArguments):
    """What is to be deleted, and what stays."""

    holdout_from: str = field(
        default="perturbed",
        metadata={
            "help": "Where there is no --holdout_dataset: perturbed (rows to keep with names and numbers exchanged, "
            "which makes levels approximate), or none."
        },
    )

    ledger: str | None = field(
        default=None, metadata={"help": "Folder of a ledger, with --requests: its rows are to be forgotten."}
    )
    requests: list[str] | None = field(
        default=None, metadata={"help": "Ids of the ledger's requests that are carried out."}
    )
    held: list[str] | None = field(
        default=None, metadata={"help": "Ids of earlier requests whose rows are held at their level."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("holdout_from", self.holdout_from, (PERTURBED, "none"))
        if (self.ledger is None) != (not self.requests) or (self.held and self.ledger is None):
            raise value_error("--ledger", "given together with --requests", self.ledger or "none")
        if self.ledger is not None and self.forget_dataset is not None:
            raise value_error("--forget_dataset", "left out with --ledger, which has the rows", "both")


def make_task(parsed: Parsed) -> Task:
    """The task of the arguments, or the lab's: two of its people ask, the others stay."""
    script, args = parsed.script, parsed.args
    cache = row_cache_of(args)
    with cache.closed_on_error(), args.main_process_first(local=True, desc="loading data"):
        asked = asked_rows(script)
        own = parsed.model.model_name_or_path is not None and script.continue_from is None
        from_lab = script.forget_dataset is None and script.retain_dataset is None and not own
        model, sets = _lab_sets(parsed, asked) if from_lab else _own_sets(parsed, cache, asked)
        deletion = _prepare(sets, parsed, asked)
    if asked is not None:
        deletion.rows, deletion.held_rows = asked.count, len(asked.rows) - asked.count
        deletion.requests, deletion.held = list(script.requests), list(script.held or [])
    sets = {name: rows if name == "forget" else first(rows, script.limit) for name, rows in sets.items()}
    # Held rows are forgotten before the run: beside them the figures would not show what it does to the new ones.
    measured = sets if asked is None else sets | {"forget": first(sets["forget"], asked.count)}
    task = Task(model, sets, _suite_of(parsed, measured), script.oracle, from_lab=from_lab, cache=cache)
    task.deletion = deletion
    task.notes += [f"Rows to keep that were left out, since they are to be deleted: {deletion.left_out}."]
    task.notes += deletion.warnings
    return task


@dataclass(frozen=True)
class AskedRows:
    """Rows of a ledger's requests.

    Attributes:
        rows: of the requests, then those of held ones that are not among them.
        count: of the former.
        salt: of the ledger's digests.
        digests: of the rows of all requests of the ledger, whatever became of them.
    """

    rows: Dataset
    count: int
    salt: bytes
    digests: set[str]


def asked_rows(script: Arguments) -> AskedRows | None:
    """The rows of the requests that the arguments name; None without a ledger.

    Raises:
        ValueError: an unknown request, rows that cannot be had, or requests in formats that do not go together.
    """
    if script.ledger is None or script.requests is None:
        return None
    ledger = Ledger(script.ledger)
    state, store = ledger.state(), RowsStore(ledger)
    sets, known, count = [], set[str](), 0
    for name in (*script.requests, *(script.held or ())):
        rows = without(store.rows(name), known, ledger.salt)
        known |= set(text_digests(rows, ledger.salt))
        sets.append(rows.select_columns(format_columns(detect_format(rows.column_names, "forget"), rows.column_names)))
        count += len(rows) if name in script.requests else 0
    columns = {tuple(sorted(rows.column_names)) for rows in sets}
    if len(columns) > 1:
        raise input_error(
            expected="requests whose rows have one format",
            got=" and ".join(sorted(", ".join(names) for names in columns)),
            why="they are forgotten together in one run",
            fix="add the request again with rows in the format of the others (--columns renames)",
        )
    asked = {digest for request in state.requests.values() for digest in request.digests}
    return AskedRows(concatenate_datasets(sets), count, ledger.salt, asked)


def _lab_sets(parsed: Parsed, asked: AskedRows | None) -> tuple[str, dict[str, Dataset]]:
    """The lab's people: those who ask to be deleted, those who stay (the former among them), and unseen ones."""
    script, args = parsed.script, parsed.args
    require_unused(
        "forget_dataset",
        retain_prompts=script.retain_prompts,
        holdout_dataset=script.holdout_dataset,
        oracle=script.oracle,
        template=args.template,
    )
    lab = load_lab(world="people")
    args.template = lab.template
    rows = {name: lab.datasets[name] for name in ("forget", "retain", "holdout")}
    rows["retain"] = concatenate_datasets([rows["retain"], rows["forget"]])
    rows["forget"] = rows["forget"].select(range(LAB_PEOPLE * LAB_FACTS)) if asked is None else asked.rows
    return str(lab.model_path), rows


def _own_sets(parsed: Parsed, cache: RowCache, asked: AskedRows | None) -> tuple[str, dict[str, Dataset]]:
    model = parsed.model.model_name_or_path
    sets = load_sets(parsed.script, model, cache, Answerer.of(parsed), forget=None if asked is None else asked.rows)
    assert model is not None  # or load_sets would have refused it
    return model, sets


def _prepare(sets: dict[str, Dataset], parsed: Parsed, asked: AskedRows | None) -> DeletionRecord:
    """Leave rows that are to be deleted out of those to keep, make stand-ins for unseen rows, and say both."""
    script = parsed.script
    salt = secrets.token_bytes(16) if asked is None else asked.salt  # without a ledger nobody keeps the digests
    deleted = set(text_digests(sets["forget"], salt)) if asked is None else asked.digests
    deletion = DeletionRecord(rows=len(sets["forget"]))
    kept = without(sets["retain"], deleted, salt)
    deletion.left_out, deletion.kept = len(sets["retain"]) - len(kept), len(kept)
    if len(kept) == 0:
        raise input_error(
            expected="rows to keep beside those that are to be deleted",
            got=f"{len(sets['retain'])} rows, each of which is to be deleted",
            why="nothing would tell the model what it is to keep",
            fix="pass other rows with --retain_dataset",
        )
    sets["retain"] = kept
    if "holdout" in sets:
        deletion.holdout = GIVEN
        _require_unseen(sets, deleted, salt)
    elif script.holdout_from == PERTURBED:
        deletion.holdout = PERTURBED
        count = max(_STAND_INS, _STAND_INS_A_ROW * len(sets["forget"]))
        sets["holdout"] = perturbed_rows(kept, seed=parsed.args.seed, known=deleted, salt=salt, count=count)
        if parsed.args.process_index == 0:
            print(f"Warning: {deletion.warnings[0]}", file=sys.stderr)
    return deletion


def without(rows: Dataset, digests: set[str], salt: bytes) -> Dataset:
    """The rows whose text is not among these digests."""
    places = [place for place, digest in enumerate(text_digests(rows, salt)) if digest not in digests]
    return rows if len(places) == len(rows) else rows.select(places)


def _require_unseen(sets: dict[str, Dataset], deleted: set[str], salt: bytes) -> None:
    """Raise for unseen rows among which are rows that the model was trained on."""
    known = deleted | set(text_digests(sets["retain"], salt))
    seen = len(sets["holdout"]) - len(without(sets["holdout"], known, salt))
    if seen:
        raise input_error(
            expected="--holdout_dataset with rows that the model has never seen",
            got=f"{seen} that are rows to forget or to keep too",
            why="the level of a row never seen would be that of a row which the model knows",
            fix="take them out of it, or leave it out: --holdout_from perturbed makes stand-ins",
        )


def _suite_of(parsed: Parsed, sets: dict[str, Dataset]) -> SuiteOf:
    script, args = parsed.script, parsed.args
    for name, rows in sets.items():
        detect_format(rows.column_names, name)
    return partial(
        custom,
        **{
            name: measured_rows(rows, script.evaluated_half, script.evaluated_rows)
            for name, rows in sets.items()
            if name != "holdout"
        },
        max_new_tokens=script.max_new_tokens,
        max_length=args.max_length,
        template=args.template,
        chat_template_kwargs=args.template_variables,
    )
