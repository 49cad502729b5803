"""Attacks the saved model of a run, with the run's own rows and controls, and keeps the report in its folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..attacks import attack
from ..attacks.runner import attacks_of
from ..data.holdout_split import calibration_rows, measurement_rows
from ..data.sources import load_rows
from ..errors import input_error
from ..model.loading import load_tokenizer
from ..results.attack_report import AttackReport
from ..results.record import RECORD_FILE, RunRecord
from ..results.report import read_run
from ..training.model_setup import load_model, move_unless_quantized
from .arguments import Parsed
from .saved_run import load_saved, require_weights, update_record
from .task import Task, require_model

PARTIAL = "attacks.partial"  # folder in the run's, for attacks of an interrupted call


@dataclass(frozen=True)
class AttackOptions:
    """How a run is attacked.

    Attributes:
        attacks: name of a suite, or names of attacks with their arguments.
        budget: minutes after which no further attack is begun.
        oracles: models retrained without the forget rows, beside the task's own.
        unrelated: file or dataset of texts that relearning is tried with.
        rows: forget rows and controls that are attacked, at most.
        seed: of everything that is drawn.
    """

    attacks: Any = "quick"
    budget: float | None = None
    oracles: tuple[str, ...] = ()
    unrelated: str | None = None
    rows: int = 200
    seed: int = 0


def attack_saved(task: Task, parsed: Parsed, options: AttackOptions) -> AttackReport:
    """Attack the model in a run's folder; the report goes into attacks.json, record, plots and card.

    Never-seen rows are those holdout rows that no run is fitted to (`measurement_rows`); the other half is what the
    attacker has of the same form.

    Raises:
        ValueError: no model in the folder, no control, an unknown attack, one that does not fit.
    """
    folder = Path(parsed.args.output_dir)
    oracles = require_attacks(task, options.attacks, options.oracles)
    require_weights(folder)
    if (folder / RECORD_FILE).is_file():
        read_run(folder)  # the report is put in there: whether it can be is asked before anything is tried
    holdout = task.sets.get("holdout")
    accelerator, args = Accelerator(cpu=parsed.args.use_cpu), parsed.args
    place = partial(move_unless_quantized, device=accelerator.device)
    report = attack(
        place(load_saved(str(folder), parsed)),
        load_tokenizer(task.model, parsed.model.model_revision, args.init_kwargs),
        _sets(task, options.unrelated),
        options.attacks,
        controls=None if holdout is None else measurement_rows(holdout),
        oracle=[place(load_saved(oracle, parsed)) for oracle in oracles],
        before=place(load_model(task.model, args)),
        budget=options.budget,
        seed=options.seed,
        batch_size=args.per_device_eval_batch_size,
        limit=options.rows,
        judge=task.judge,
        template=args.template,
        max_length=args.max_length,
        chat_template_kwargs=args.template_variables,
        partial=folder / PARTIAL,
        accelerator=accelerator,
    )
    if accelerator.is_main_process:
        report.save(folder)
        update_record(folder, partial(_put, report))
    accelerator.wait_for_everyone()
    return report


def require_attacks(task: Task, attacks: Any, oracles: Sequence[str]) -> list[str]:
    """Raise for unknown attacks and without a control, before anything is loaded; else all retrained models by name.

    Args:
        task: of the run.
        attacks: as `attack` takes them.
        oracles: names of models beside the task's own.
    """
    attacks_of(attacks)
    names = [*oracles, *([] if task.oracle is None else [task.oracle])]
    if task.sets.get("holdout") is None and not names:
        raise input_error(
            expected="holdout rows in the run, or a model retrained without the forget rows (--oracle)",
            got="neither",
            why="what an attack gets counts only beyond what it gets where nothing was ever learnt",
            fix="name such a model, or train with holdout rows",
        )
    for name in names:
        require_model(name)
    return names


def _sets(task: Task, unrelated: str | None) -> dict[str, Any]:
    """The sets of an attack: the run's own, the calibration half of its holdout rows, and texts of the user's."""
    holdout = task.sets.get("holdout")
    related = None if holdout is None else calibration_rows(holdout)
    sets = {
        "forget": task.sets["forget"],
        "retain": task.sets.get("retain"),
        "related": related,
        "unrelated": None if unrelated is None else load_rows(unrelated),
    }
    return {name: rows for name, rows in sets.items() if rows is not None and len(rows)}


def _put(report: AttackReport, record: RunRecord) -> None:
    record.attack_report = report.without_rows()
