"""The exact ways: a logged training replayed without rows, and cohorts' adapters dropped."""

import importlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, Trainer

from ...errors import input_error
from ...model.loading import load_tokenizer, loading
from ...model.merging import merge
from ...model.weight_files import loaded_file_hashes
from ...requests import Ledger
from ...requests.rows_store import RowsStore
from ...requests.state import DROP_COHORT, NOTHING
from ...unlearnable import TrainingLog, drop_cohort, load_cohorts, read_log, replay

MakeTrainer = Callable[[str], Trainer]


@dataclass(frozen=True)
class Logged:
    """What the exact ways need beside the ledger.

    Attributes:
        log: folder of the training's log, or of its cohorts.
        make_trainer: makes the trainer of the logged training again, its UnlearnableCallback too, given an output
            folder; for a replay.
        base: name or folder of the model that the cohorts' adapters are on; for dropping one.
    """

    log: str | os.PathLike[str]
    make_trainer: MakeTrainer | None = None
    base: str | None = None


def named_function(name: str) -> MakeTrainer:
    """The function that `module:function` names.

    Raises:
        ValueError: there is none.
    """
    module, _, function = name.partition(":")
    try:
        made: MakeTrainer = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise input_error(
            expected="--trainer as module:function, which Python finds",
            got=f"{name!r} ({type(error).__name__})",
            why="it makes the trainer of the logged training again",
            fix="write a function that takes an output folder and returns the trainer, in a module on PYTHONPATH",
        ) from None
    return made


def exact_batch(ledger: Ledger, batch: Mapping[str, Any], folder: Path, logged: Logged | None) -> dict[str, Any]:
    """Carry a batch out exactly; the folder of the weights is whole or absent, so that it can be begun again.

    Args:
        ledger: of the requests.
        batch: data of its entry `started`.
        folder: of its run.
        logged: the log, and what makes the training again.

    Returns:
        data of the entry `done`.

    Raises:
        ValueError: no log, or what it does not fit.
    """
    drops = batch["way"] == DROP_COHORT
    if logged is None or (logged.base if drops else logged.make_trainer) is None:
        raise input_error(
            expected=f"--log with {'--base' if drops else '--trainer'}, for the way {batch['way']}",
            got="no log" if logged is None else "the log alone",
            why="the training is undone by its log",
            fix="name the folder of the log, and the model below the adapters or the function that makes the trainer",
        )
    started, log = time.perf_counter(), read_log(logged.log)
    # A way that starts from the training itself: rows of every request are left out, whatever else became of them.
    state = ledger.state()
    earlier = [one.id for one in state.requests.values() if one.way not in (None, NOTHING)]
    rows = [row for name in dict.fromkeys([*batch["requests"], *earlier]) for row in RowsStore(ledger).rows(name)]
    if not folder.is_dir():
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        (_drop if drops else _replay)(log, rows, unfinished, logged)
        unfinished.rename(folder)
    kept = {key: batch[key] for key in ("batch", "requests", "way", "held")}
    return {
        **kept,
        **{"run": folder.name, "record": None, "weights": loaded_file_hashes(str(folder)), "log_sha256": log.sha256},
        "cost": {"seconds": time.perf_counter() - started},
    }


def _replay(log: TrainingLog, rows: list[Any], folder: Path, logged: Logged) -> None:
    """Train the logged training again without the rows, and save the model."""
    assert logged.make_trainer is not None
    never = set(log.never_trained(rows))
    trainer = replay(
        logged.make_trainer(str(folder)), log.folder, [digest for digest in log.digests(rows) if digest not in never]
    )
    trainer.save_model(str(folder))
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def _drop(log: TrainingLog, rows: list[Any], folder: Path, logged: Logged) -> None:
    """Drop the cohorts that have any of the rows, and save the base with the adapters that are left merged."""
    assert logged.base is not None
    for name in log.cohorts_of(rows):
        drop_cohort(log.folder, name)
    left = read_log(log.folder).cohorts
    with loading(logged.base):
        model = AutoModelForCausalLM.from_pretrained(logged.base, dtype="float32")
    whole = merge(load_cohorts(log.folder, model)) if left else model
    whole.save_pretrained(folder)
    load_tokenizer(logged.base).save_pretrained(folder)
