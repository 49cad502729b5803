"""Every request that was carried out, measured and attacked again on the present weights; what came back re-opens."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from datasets import Dataset
from peft import PeftModel

from ...attacks import attack as attack_model
from ...attacks.subjects import FEWEST
from ...data.holdout_split import calibration_rows, measurement_rows
from ...evaluation import custom, evaluate
from ...lab import load_lab
from ...model.loading import load_tokenizer
from ...model.weight_files import OF_BASE, loaded_file_hashes
from ...requests import Entry, Ledger, LedgerState, Request
from ...requests.check import check_ledger
from ...requests.rows_store import RowsStore
from ...requests.state import CARRIED_OUT, DONE, HOLDS, OPEN, REOPENED, VERIFIED
from ...requests.sufficient import EXACT
from ...results.attack_report import AttackReport
from ...results.evaluation_result import EvaluationResult
from ...results.files import atomic_write_text
from ...results.gate import read_policy
from ...results.lineage import file_hash, now
from ...results.schema import as_json
from ...training.model_setup import load_model, move_unless_quantized
from .. import deletion
from ..arguments import Parsed
from ..command_file import read_command
from ..saved_run import load_saved
from ..task import Task, first
from .carry_out import present_model, private_cache
from .verdict import Verdict, figures_of, verdict_of
from .verification import Verification, Verified

VERIFICATIONS = "verifications"  # folder in the ledger's runs
_REMOVABLE = (
    "The present weights are an adapter on a base that still knows the rows: whoever has the base has them. Give away "
    "merged weights (hf-unlearn push --merge), and delete the base."
)
_RETAIN_ROWS = 50  # of those to keep, that each request is measured beside


def verify(
    ledger: Ledger,
    attack: Any = "quick",
    *,
    again: bool = False,
    wait: float = 10.0,
    tell: Callable[[str], None] | None = None,
) -> Verification:
    """Measure and attack every request that was carried out on the present weights, and enter what came of it.

    A request whose rows are known more than rows never seen, by the limits of its policy, is open again. Verifications
    of these very weights are kept, so that a call that was cut off goes on with the others.

    Args:
        ledger: of the requests.
        attack: suite of attacks, attacks as `hf_unlearn.attacks.attack` takes them, or None for none.
        again: measure what was verified on these weights anew.
        wait: seconds for which to wait for another process on the ledger.
        tell: called with a line for each request when it is begun.

    Raises:
        ValueError: another process holds the ledger, an entry was changed, or rows cannot be had.
    """
    with ledger.locked(wait):
        state = ledger.state()
        run = present_model(ledger, state)
        present = run or _base_folder(ledger)
        problems = [str(problem) for problem in check_ledger(ledger, None if run else present)]
        weights = state.weights if present is None else loaded_file_hashes(str(present))
        problems += _changed_base(state.weights, weights)
        known = {} if again else _verified(ledger, state, weights, attack)
        carried_out = state.with_status(CARRIED_OUT, HOLDS)
        asked = [request for request in carried_out if request.rows_kept]
        erased = [request.id for request in carried_out if not request.rows_kept]
        todo = [request for request in asked if request.id not in known]
        done = {name: _of_entry(entry) for name, entry in known.items()}
        measure = _Measure.of(ledger, state, todo, attack) if todo else None
        for request in todo:
            assert measure is not None
            if tell is not None:
                tell(f"Verifying {request.id} ({request.rows} rows)")
            done[request.id] = _verify_one(ledger, request, measure, weights, attack)
        if measure is not None:
            measure.close()
        open_again = [request.id for request in state.with_status(OPEN) if request.reopened]
        return Verification(problems, [done[request.id] for request in asked], open_again, erased)


def _changed_base(wanted: dict[str, str], present: dict[str, str]) -> list[str]:
    """What is wrong with the model below an adapter, which does not lie in the adapter's folder."""
    below = {name for name in {*wanted, *present} if name.startswith(OF_BASE)}
    changed = sorted(name.removeprefix(OF_BASE) for name in below if wanted.get(name) != present.get(name))
    return [f"Of the base of the present adapter these files are others: {', '.join(changed)}."] if changed else []


def _base_folder(ledger: Ledger) -> Path | None:
    """The folder of the model that the ledger was opened with; None where it is on the Hub."""
    _, parsed = read_command(ledger.folder)
    model = parsed.model.model_name_or_path or load_lab(world="people").model_path
    return Path(model) if Path(model).is_dir() else None


def _verified(ledger: Ledger, state: LedgerState, weights: dict[str, str], attack: Any) -> dict[str, Entry]:
    """The last verification of each request, where it is of these weights and attacks."""
    last: dict[str, Entry] = {}
    for entry in ledger.entries():
        if entry.event == VERIFIED:
            last[entry.data["request"]] = entry
        elif entry.event == DONE:
            for name in entry.data["requests"]:
                last.pop(name, None)
    same = as_json(attack)
    return {
        name: entry
        for name, entry in last.items()
        if entry.data["weights"] == weights and entry.data.get("attack") == same and name in state.requests
    }


def _of_entry(entry: Entry) -> Verified:
    data = entry.data
    kept = (data["why"], data.get("notes", []), data["figures"])
    return Verified(data["request"], data["holds"], *kept, file=data["file"], earlier=True)


@dataclass
class _Measure:
    """What requests are measured with: the present model, the model before, and rows.

    Attributes:
        task: of the ledger's base arguments, with the rows to keep and the unseen ones.
        parsed: these arguments.
        model: the present one.
        before: the one that the ledger was opened with; None where no attack needs it.
        attack: what is tried.
        store: of the requests' rows.
        accelerator: on whose device they are.
    """

    task: Task
    parsed: Parsed
    model: Any
    before: Any
    attack: Any
    store: RowsStore
    accelerator: Accelerator

    @classmethod
    def of(cls, ledger: Ledger, state: LedgerState, requests: Sequence[Request], attack: Any) -> "_Measure":
        """Load them."""
        ids = [request.id for request in requests]
        words = ["--ledger", str(ledger.folder), "--row_cache_dir", private_cache(ledger), "--requests", *ids]
        _, parsed = read_command(ledger.folder, *words)
        task = deletion.make_task(parsed)
        accelerator = Accelerator(cpu=parsed.args.use_cpu)
        folder, device = present_model(ledger, state), accelerator.device
        base = None if folder is None and attack is None else load_model(task.model, parsed.args)
        present = load_model(task.model, parsed.args) if folder is None else load_saved(str(folder), parsed)
        before = None if base is None or attack is None else move_unless_quantized(base, device)
        return cls(
            task, parsed, move_unless_quantized(present, device), before, attack, RowsStore(ledger), accelerator
        )

    def evaluated(self, rows: Dataset) -> EvaluationResult:
        """The suite `custom` on the rows of a request, beside some rows to keep and unseen rows that no run read."""
        script, args = self.parsed.script, self.parsed.args
        holdout = self.task.sets.get("holdout")
        unseen = {} if holdout is None else {"holdout": measurement_rows(holdout)}
        suite = custom(
            forget=rows,
            retain=first(self.task.sets["retain"], _RETAIN_ROWS),
            **unseen,
            max_new_tokens=script.max_new_tokens,
            max_length=args.max_length,
            template=args.template,
            chat_template_kwargs=args.template_variables,
        )
        return evaluate(
            self.model,
            self._tokenizer(),
            suite,
            batch_size=args.per_device_eval_batch_size,
            accelerator=self.accelerator,
            seed=args.seed,
        )

    def attacked(self, rows: Dataset) -> AttackReport | None:
        """What attacks get out of the rows; None where there are none, or too few rows for them."""
        holdout, args = self.task.sets.get("holdout"), self.parsed.args
        if self.attack is None or holdout is None or len(rows) < FEWEST:
            return None
        return attack_model(
            self.model,
            self._tokenizer(),
            {"forget": rows, "retain": self.task.sets["retain"], "related": calibration_rows(holdout)},
            self.attack,
            controls=measurement_rows(holdout),
            before=self.before,
            seed=args.seed,
            batch_size=args.per_device_eval_batch_size,
            template=args.template,
            max_length=args.max_length,
            chat_template_kwargs=args.template_variables,
            accelerator=self.accelerator,
        )

    def close(self) -> None:
        """Let go of the rows."""
        if self.task.cache is not None:
            self.task.cache.close()

    def _tokenizer(self) -> Any:
        return load_tokenizer(self.task.model, self.parsed.model.model_revision, self.parsed.args.init_kwargs)


def _verify_one(ledger: Ledger, request: Request, measure: _Measure, weights: dict[str, str], attack: Any) -> Verified:
    """Measure a request, write the file and the entries."""
    rows = measure.store.rows(request.id)
    result, report = measure.evaluated(rows), measure.attacked(rows)
    exact = request.way in EXACT
    decided = verdict_of(result.metrics, report, read_policy(request.policy), rows=len(rows), exact=exact)
    if attack is not None and report is None:
        decided.notes.append(f"It was not attacked: attacks need {FEWEST} rows, and unseen rows.")
    if isinstance(measure.model, PeftModel):
        decided.notes.append(_REMOVABLE)
    file = _write(ledger, request, result, report, decided)
    figures = figures_of(result.metrics, report)
    data = {
        **{"request": request.id, "holds": decided.holds, "why": decided.why, "notes": decided.notes},
        **{"figures": figures, "attack": as_json(attack), "weights": weights},
        **{"file": f"{VERIFICATIONS}/{file.name}", "record": file_hash(file)},
    }
    ledger.append(VERIFIED, data)
    if not decided.holds:
        ledger.append(REOPENED, {"request": request.id, "why": decided.why})
    return Verified(request.id, decided.holds, decided.why, decided.notes, figures, data["file"])


def _write(
    ledger: Ledger, request: Request, result: EvaluationResult, report: AttackReport | None, decided: Verdict
) -> Path:
    """All figures of a verification, without any row's text or score, as a file of its own."""
    folder = ledger.runs / VERIFICATIONS
    folder.mkdir(parents=True, exist_ok=True)
    number = 1 + sum(entry.event == VERIFIED for entry in ledger.entries())
    stored = {
        **{"request": request.id, "date": now(), "policy": request.policy, "holds": decided.holds},
        **{"why": decided.why, "notes": decided.notes},
        "evaluation": result.to_dict() | {"row_scores": {}},
        "attacks": None if report is None else as_json(report.without_rows()),
    }
    file = folder / f"{number:03d}-{request.id}.json"
    return atomic_write_text(file, json.dumps(stored, indent=2, allow_nan=False) + "\n")
