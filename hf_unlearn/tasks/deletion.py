"""The task deletion: rows that somebody asks to have deleted, and rows that stay; without any, the lab's people."""

import secrets
import sys
from dataclasses import dataclass, field
from functools import partial

from datasets import Dataset, concatenate_datasets

from ..data.formats import detect_format
from ..data.perturbed_rows import perturbed_rows
from ..data.row_cache import RowCache
from ..data.text_digests import text_digests
from ..errors import input_error, require_choice
from ..evaluation import custom
from ..lab import load_lab
from ..results.deletion_record import GIVEN, PERTURBED, DeletionRecord
from ..training.config import row_cache_of
from .arguments import Parsed
from .generated_retain import Answerer
from .row_sets import RowSetArguments, load_sets
from .task import SuiteOf, Task, first, require_unused

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

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("holdout_from", self.holdout_from, (PERTURBED, "none"))


def make_task(parsed: Parsed) -> Task:
    """The task of the arguments, or the lab's: two of its people ask, the others stay."""
    script, args = parsed.script, parsed.args
    cache = row_cache_of(args)
    with cache.closed_on_error(), args.main_process_first(local=True, desc="loading data"):
        from_lab = script.forget_dataset is None
        model, sets = _lab_sets(parsed) if from_lab else _own_sets(parsed, cache)
        if from_lab:
            sets["forget"] = sets["forget"].select(range(LAB_PEOPLE * LAB_FACTS))
        deletion = _prepare(sets, parsed)
    sets = {name: rows if name == "forget" and from_lab else first(rows, script.limit) for name, rows in sets.items()}
    task = Task(model, sets, _suite_of(parsed, sets), script.oracle, from_lab=from_lab, cache=cache)
    task.deletion = deletion
    task.notes += [f"Rows to keep that were left out, since they are to be deleted: {deletion.left_out}."]
    task.notes += deletion.warnings
    return task


def _lab_sets(parsed: Parsed) -> tuple[str, dict[str, Dataset]]:
    """The lab's people: those who may ask to be deleted, those who stay (the former among them), and unseen ones."""
    script, args = parsed.script, parsed.args
    require_unused(
        "forget_dataset",
        model_name_or_path=parsed.model.model_name_or_path,
        retain_dataset=script.retain_dataset,
        retain_prompts=script.retain_prompts,
        holdout_dataset=script.holdout_dataset,
        oracle=script.oracle,
        template=args.template,
    )
    lab = load_lab(world="people")
    args.template = lab.template
    rows = {name: lab.datasets[name] for name in ("forget", "retain", "holdout")}
    return str(lab.model_path), rows | {"retain": concatenate_datasets([rows["retain"], rows["forget"]])}


def _own_sets(parsed: Parsed, cache: RowCache) -> tuple[str, dict[str, Dataset]]:
    model = parsed.model.model_name_or_path
    sets = load_sets(parsed.script, model, cache, Answerer.of(parsed))
    assert model is not None  # or load_sets would have refused it
    return model, sets


def _prepare(sets: dict[str, Dataset], parsed: Parsed) -> DeletionRecord:
    """Leave rows that are to be deleted out of those to keep, make stand-ins for unseen rows, and say both."""
    script, salt = parsed.script, secrets.token_bytes(16)  # digests that nobody keeps
    deleted = set(text_digests(sets["forget"], salt))
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
        **{name: first(rows, script.evaluated_rows) for name, rows in sets.items() if name != "holdout"},
        max_new_tokens=script.max_new_tokens,
        max_length=args.max_length,
        template=args.template,
        chat_template_kwargs=args.template_variables,
    )
