"""One batch of requests: an ordinary run of the task deletion on top of the present weights, between two entries."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import input_error, require_choice, value_error
from ...model.weight_files import loaded_file_hashes, weight_file_hashes
from ...requests import Ledger, LedgerState
from ...requests.plan import held_requests
from ...requests.state import (
    ABANDONED,
    CALIBRATED,
    CHECKPOINT,
    DONE,
    DROP_COHORT,
    NOTHING,
    OPEN,
    PLANNED,
    REOPENED,
    REPLAY,
    STARTED,
    WAYS,
)
from ...results.lineage import file_hash
from ...results.record import RECORD_FILE, RunRecord, load_record
from ...training.checkpoints.selection import whole_steps
from .. import make_task
from ..command_file import COMMAND_FILE, read_command
from .exact import Logged, exact_batch

_SAVES = 20  # checkpoints of a run whose recipe saves none, so that a killed one does not begin anew
_EDITS = ("rewind", "msa")


def carry_out(
    ledger: Ledger,
    requests: Sequence[str] | None = None,
    way: str | None = None,
    *,
    why: str = "",
    edit: Mapping[str, Any] | None = None,
    logged: Logged | None = None,
    wait: float = 10.0,
) -> dict[str, Any] | None:
    """Carry out open requests as one batch; or go on with one that was cut off, whatever else is open.

    Between the entries `started` and `done` the process may be killed at any moment: the next call goes on from the
    last checkpoint of the batch, or enters what was done.

    Args:
        ledger: of the requests.
        requests: ids; None for all that are open.
        way: of `WAYS`; None for calibrated.
        why: nothing is to be done, where `way` is "nothing"; None takes the evidence of the last plan.
        edit: name and arguments of the edit of the way "checkpoint": "rewind" or "msa".
        logged: the log of the training, and what makes it again, for the ways "replay" and "drop_cohort".
        wait: seconds for which to wait for another process on the ledger.

    Returns:
        data of the entry `done`, None where nothing is open.

    Raises:
        ValueError: another process holds the ledger, a request that is not open, other requests than those of a batch
            that was cut off, a way that cannot be gone; and whatever the run raises, after which the batch stays
            unfinished.
    """
    with ledger.locked(wait):
        state = ledger.state()
        batch = state.unfinished or _new_batch(ledger, state, requests, way, why, edit)
        if batch is None:
            return None
        _require_same_batch(batch, requests, way)
        if batch["way"] == NOTHING:
            done = _nothing_done(batch)
        elif batch["way"] in (DROP_COHORT, REPLAY):
            done = exact_batch(ledger, batch, run_folder(ledger, batch["batch"]), logged)
        else:
            done = _run(ledger, ledger.state(), batch)
        ledger.append(DONE, done)
        if done["run"] is not None:
            for checkpoint in (ledger.runs / done["run"]).glob("checkpoint-*"):
                shutil.rmtree(checkpoint)  # weights on their way, which still know the rows
        return done


def planned_ways(ledger: Ledger, requests: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Open requests by the way that the last plan of each names, in the order of `WAYS`; "calibrated" without a plan.

    Args:
        ledger: of the requests.
        requests: ids; None for all that are open.
    """
    state = ledger.state()
    names = [request.id for request in state.with_status(OPEN)] if requests is None else list(requests)
    ways: dict[str, str] = {}
    for entry in ledger.entries():
        if entry.event == PLANNED:
            ways |= dict.fromkeys(entry.data["requests"], entry.data["way"])
        elif entry.event in (DONE, REOPENED):  # what was planned before is no plan any more
            for name in entry.data.get("requests") or [entry.data.get("request")]:
                ways.pop(name, None)
    groups = {way: [name for name in names if ways.get(name, CALIBRATED) == way] for way in WAYS}
    return {way: members for way, members in groups.items() if members}


def abandon(ledger: Ledger, why: str, wait: float = 10.0) -> dict[str, Any]:
    """Give a batch up that was started and is not done; its requests stay open, and its folder is removed.

    Raises:
        ValueError: there is none.
    """
    with ledger.locked(wait):
        batch = ledger.state().unfinished
        if batch is None:
            raise value_error("--abandon", "used where a batch was started and is not done", "none")
        shutil.rmtree(run_folder(ledger, batch["batch"]), ignore_errors=True)
        data = {"batch": batch["batch"], "requests": batch["requests"], "why": why}
        ledger.append(ABANDONED, data)
        return data


def run_folder(ledger: Ledger, batch: int) -> Path:
    """The folder of a batch's run."""
    return ledger.runs / f"{batch:03d}"


def present_model(ledger: Ledger, state: LedgerState) -> Path | None:
    """The folder of the present weights; None for the model that the ledger was opened with."""
    return None if state.run is None else ledger.runs / state.run


def private_cache(ledger: Ledger) -> str:
    """A folder outside of the ledger for rows and token ids while a run needs them, the same for each of its runs.

    So the next run clears what a killed one has left there.
    """
    name = hashlib.sha256(str(ledger.folder.resolve()).encode()).hexdigest()[:16]
    return str(Path(tempfile.gettempdir()) / f"hf_unlearn-rows-{name}")


def _new_batch(
    ledger: Ledger,
    state: LedgerState,
    requests: Sequence[str] | None,
    way: str | None,
    why: str,
    edit: Mapping[str, Any] | None,
) -> dict[str, Any] | None:
    """The entry `started` of a batch, appended; None where nothing is open."""
    still_open = [request.id for request in state.with_status(OPEN)]
    asked = list(dict.fromkeys(still_open if requests is None else requests))
    for name in asked:
        require_choice("--requests", name, still_open)
    if not asked:
        return None
    taken = way or CALIBRATED
    require_choice("--way", taken, WAYS)
    data: dict[str, Any] = {"requests": asked, "held": held_requests(state, asked), "way": taken}
    if taken == NOTHING:
        data["held"], data["evidence"] = [], _evidence(ledger, asked, why)
    if taken == CHECKPOINT:
        chosen = dict(edit or {"name": "msa"})
        require_choice("--edit", chosen.get("name"), _EDITS)
        data["edit"] = chosen
    started = [entry.data["batch"] for entry in ledger.entries() if entry.event == STARTED]
    data["batch"] = max(started, default=0) + 1
    ledger.append(STARTED, data)
    return data


def _evidence(ledger: Ledger, requests: Sequence[str], why: str) -> Any:
    """Why nothing is to be done: what the last plan says of these requests, or who keeps the ledger."""
    if why:
        return {"said": why}
    plans = [entry for entry in ledger.entries() if entry.event == PLANNED and entry.data["way"] == NOTHING]
    for entry in reversed(plans):
        if set(requests) <= set(entry.data["requests"]):
            return {"plan": entry.number, **{key: entry.data.get(key) for key in ("why", "evidence")}}
    raise input_error(
        expected="evidence that no row was ever trained on, for the way nothing",
        got="no plan that says so, and no reason",
        why="the ledger would say that a request was carried out, and not how anybody knows",
        fix="run hf-unlearn request plan with the log of the training, or give the reason with --why",
    )


def _require_same_batch(batch: Mapping[str, Any], requests: Sequence[str] | None, way: str | None) -> None:
    """Raise where something else was asked for than the batch that was cut off."""
    others = requests is not None and set(requests) != set(batch["requests"])
    if others or way not in (None, batch["way"]):
        raise input_error(
            expected=f"batch {batch['batch']} to be finished first ({', '.join(batch['requests'])}; {batch['way']})",
            got="other requests" if others else f"the way {way}",
            why="it was started and is not done, and two batches would each start from the other's former weights",
            fix="run it without --requests and --way, or give it up with --abandon REASON",
        )


def _nothing_done(batch: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: batch[key] for key in ("batch", "requests", "way", "evidence")}
    return {**kept, "run": None, "record": None, "weights": {}, "cost": {}}


def _run(ledger: Ledger, state: LedgerState, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Train, or go on with the training, and say what came of it."""
    folder = run_folder(ledger, batch["batch"])
    if _finished(folder) is None:
        _train(ledger, state, batch, folder)
    record = _finished(folder)
    if record is None:
        raise input_error(
            expected=f"results and weights of batch {batch['batch']}",
            got=f"none in {folder.name}",
            why="the run has ended without them",
            fix="run it again; it goes on from its last checkpoint",
        )
    return {
        **{key: batch[key] for key in ("batch", "requests", "way", "held")},
        **{"run": folder.name, "record": file_hash(folder / RECORD_FILE), "weights": loaded_file_hashes(str(folder))},
        "cost": {**record.cost, "steps": record.steps},
        "stopped": record.stop_reason,
    }


def _train(ledger: Ledger, state: LedgerState, batch: Mapping[str, Any], folder: Path) -> None:
    from ..run import run  # it takes seconds to import

    name, parsed = read_command(ledger.folder, *_words(ledger, state, batch, folder))
    parsed.args.set_save(strategy="steps", steps=_save_steps(parsed.args), total_limit=1)
    task = make_task(name, parsed)
    try:
        trainer = run(task, name, parsed)
        trainer.accelerator.end_training()
    finally:
        if task.cache is not None:
            task.cache.close()


def _words(ledger: Ledger, state: LedgerState, batch: Mapping[str, Any], folder: Path) -> list[str]:
    """The flags of a batch on top of the ledger's base arguments."""
    words = ["--output_dir", str(folder), "--ledger", str(ledger.folder), "--row_cache_dir", private_cache(ledger)]
    words += ["--requests", *batch["requests"]]
    if batch["held"]:
        words += ["--held", *batch["held"]]
    present = present_model(ledger, state)
    if present is not None and batch["way"] != CHECKPOINT:
        # What a replay or a dropped cohort left is a model of no run.
        whole = (present / RECORD_FILE).is_file()
        words += ["--continue_from" if whole else "--model_name_or_path", str(present)]
    if batch["way"] == CHECKPOINT:
        words += ["--phases", json.dumps([{"edit": batch["edit"]}])]
    # A run of phases goes on from its last finished phase, which need not be there.
    if whole_steps(folder) or (batch["way"] == CHECKPOINT and folder.is_dir()):
        words += ["--resume_from_checkpoint", "true"]
    return words


def _save_steps(args: Any) -> float:
    """Every so many steps as the recipe saves, or often enough where it saves none."""
    if str(args.save_strategy) != "SaveStrategy.NO" and args.save_strategy != "no":
        return args.save_steps
    return max(1, args.max_steps // _SAVES) if args.max_steps > 0 else 1 / _SAVES


def _finished(folder: Path) -> RunRecord | None:
    """The record of a run that has ended with its results and weights; None where it has not."""
    if not (folder / RECORD_FILE).is_file() or not (folder / COMMAND_FILE).is_file():
        return None
    record = load_record(folder)
    known = {} if record.lineage is None else record.lineage.weights_out
    whole = ("after" in record.evaluations) == ("before" in record.evaluations)  # neither where nothing is measured
    return record if whole and known and known == weight_file_hashes(folder) else None
