"""A task: model, sets and the suite that measures it; and the checks before a run."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from ..data.holdout_split import evaluated_half, measurement_rows
from ..data.row_cache import RowCache
from ..errors import input_error
from ..evaluation import EvaluationResult, Judge, Suite
from ..results.deletion_record import DeletionRecord
from ..results.hub.names import is_repository
from ..training.checkpoints.selection import last_checkpoint, no_checkpoint
from ..training.config import UnlearningConfig
from ..training.levels.setting import splits_holdout

if TYPE_CHECKING:  # it holds a task itself
    from .continued_run import Continued

RETRAINED = "the same model trained without the forget rows"
NAMED_ORACLE = "a model that the user names as one that has never seen the forget rows"

# What brings unseen rows to a task, and a recipe that needs none.
_NEEDS_NONE = "take a recipe that needs none: --config"
WITHOUT_UNSEEN = {
    "harmful": ("holdout_dataset", f"{_NEEDS_NONE} methods/npo --forget_nll_bound log_vocab"),
    "privacy": ("holdout_dataset", f"{_NEEDS_NONE} privacy_opt1.3b"),
    "copyright": ("holdout_book", f"{_NEEDS_NONE} copyright_opt1.3b"),
    "deletion": ("holdout_dataset", "let stand-ins be made: --holdout_from perturbed"),
}

# A suite, given `holdout` rows where there are any and the results to compare with: `oracle` and `before`, None where
# there is none yet.
SuiteOf = Callable[..., Suite]


@dataclass
class Task:
    """A model, what it is to forget and to keep, and what it is measured by.

    Attributes:
        model: name or folder of the model before unlearning.
        sets: training sets by role.
        suite: makes the suite, of rows that it holds and of the holdout rows that it is given.
        oracle: name or folder of a model that has never seen the forget rows, or None.
        oracle_is: what that model is, as the end of a sentence.
        from_lab: whether the model is the lab's.
        fitted_from: what the model was before the task fitted it to the rows, for its record; None where it did not.
        fitted_origin: where that came from: "hub", "lab" or "local".
        notes: lines for people below the table.
        judge: of generated answers, where a judge says what has leaked; None where overlap with the row does.
        cache: the folder of rows that came from files; None where none did.
        checkpoint: folder of a model from before it learnt the forget rows, for edits that start from one; None where
            there is none.
        deletion: what was asked and left out, of a task that carries out deletion requests; None for others.
        continued: the run whose weights it takes, or None.
    """

    model: str
    sets: dict[str, Dataset]
    suite: SuiteOf
    oracle: str | None = None
    oracle_is: str = NAMED_ORACLE
    from_lab: bool = False
    fitted_from: str | None = None
    fitted_origin: str | None = None
    notes: list[str] = field(default_factory=list)
    judge: Judge | None = None
    cache: RowCache | None = None
    checkpoint: str | None = None
    deletion: DeletionRecord | None = None
    continued: "Continued | None" = None


def suite_of(
    task: Task, *, unfitted: bool, count: int | None, half: str | None = None, **compared: EvaluationResult | None
) -> Suite:
    """A task's suite; its unseen rows are the first of those that the run was not fitted to.

    Args:
        task: of the run.
        unfitted: whether the run reads one half of the holdout rows (`levels`), so that the other half is measured.
        count: of unseen rows, at most; None for all.
        half: of `data.holdout_split.HALVES`, which the task's other rows are of; None where they are all.
        compared: results that it compares with: `before`, `oracle`.
    """
    suite = _with_unseen(task, unfitted=unfitted, count=count, half=half, **compared)
    return suite if half is None else replace(suite, settings={**suite.settings, "rows": f"{half} half"})


def _with_unseen(
    task: Task, *, unfitted: bool, count: int | None, half: str | None, **compared: EvaluationResult | None
) -> Suite:
    holdout = task.sets.get("holdout")
    if holdout is None:
        return task.suite(**compared)
    if not unfitted:
        return task.suite(holdout=measured_rows(holdout, half, count), **compared)
    unseen = measurement_rows(holdout)
    if len(unseen) == 0:
        raise input_error(
            expected="holdout rows enough to measure on half of them",
            got=f"{len(holdout)}, none of them in the half that the run is not fitted to",
            why="rows that levels were fitted on are no unseen rows any more",
            fix="pass more holdout rows, or raise --limit",
        )
    suite = task.suite(holdout=measured_rows(unseen, half, count), **compared)
    return replace(suite, settings={**suite.settings, "holdout": "measurement half"})


def first(rows: Dataset | None, count: int | None) -> Dataset | None:
    """The first rows of a set; all of them where count is None."""
    return rows if rows is None or count is None else rows.select(range(min(len(rows), count)))


def measured_rows(rows: Dataset | None, half: str | None, count: int | None) -> Dataset | None:
    """The rows of a set that a model is measured on: the first ones of a half (`data.holdout_split`), or of all."""
    return first(rows if rows is None else evaluated_half(rows, half), count)


def require_unseen(name: str, task: Task, args: UnlearningConfig) -> None:
    """Raise for levels or an anchor, which the lab's recipes have as defaults, on own rows without unseen ones.

    Args:
        name: of the task.
        task: whose rows they are.
        args: of the run.
    """
    if name not in WITHOUT_UNSEEN or "holdout" in task.sets or not splits_holdout(args):
        return
    flag, other = WITHOUT_UNSEEN[name]
    raise input_error(
        expected=f"unseen rows (--{flag}) beside your own, for levels and an anchor",
        got=f"only {', '.join(task.sets)} rows",
        why="the defaults are those of the lab's recipe, which leads each row to what unseen rows of its kind get",
        fix=f"add --{flag} with rows that the model was never trained on, or {other}",
    )


def require_unused(data_flag: str, **given: Any) -> None:
    """Raise where arguments came that only data of one's own has a use for, and the lab is about to be taken.

    Args:
        data_flag: names the data that is missing.
        given: arguments by name, None where they were left out.
    """
    unused = [name for name, value in given.items() if value is not None]
    if unused:
        raise input_error(
            expected=f"--{data_flag} together with --{unused[0]}",
            got=f"--{unused[0]} alone",
            why="without the data it is the lab that runs, which has no use for it",
            fix=f"add --{data_flag}, or leave --{unused[0]} out to run on the lab",
        )


def require_model(name: str | None) -> None:
    """Raise for what is neither a folder nor written like the id of a model on the Hub."""
    if name is None or Path(name).is_dir() or is_repository(name):
        return
    raise input_error(
        expected="a model's folder, or its id on the Hub (name, or owner/name)",
        got=f"{name!r}, where there is no folder",
        why="there is nothing to load",
        fix=f"check the path; looked for {Path(name).absolute()}",
    )


def require_checkpoint(args: UnlearningConfig) -> None:
    """Raise where the checkpoint to go on from is not there, before anything is loaded.

    Whether it is whole and of this run, the trainer asks, which knows the run.
    """
    asked = str(args.resume_from_checkpoint)
    if asked.lower() == "true":
        last_checkpoint(args.output_dir)
    elif asked.lower() not in ("none", "false") and not Path(asked).is_dir():
        raise no_checkpoint(Path(args.output_dir), asked)


def require_output(args: UnlearningConfig, *, adapter: bool) -> None:
    """Raise for an output folder that is a file, or that holds the other kind of model."""
    folder = Path(args.output_dir)
    others = ("model.safetensors", "model.safetensors.index.json") if adapter else ("adapter_model.safetensors",)
    weights = [name for name in others if (folder / name).is_file()]
    if folder.is_file() or weights:
        raise input_error(
            expected=f"--output_dir to be a folder for {'an adapter' if adapter else 'a whole model'}",
            got="a file" if folder.is_file() else f"one that holds {weights[0]} of another run",
            why="the results would lie in no folder, or two models in one",
            fix="name a new folder",
        )
