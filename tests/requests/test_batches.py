"""Batches of a ledger: in sequence, cut off anywhere and gone on with, held alone; verified and re-opened."""

import json
import shutil
from pathlib import Path

import pytest

from fixtures.examples import CANARY, save_model
from hf_unlearn.cli import main
from hf_unlearn.lab import load_lab
from hf_unlearn.lab.people import rows_by_person
from hf_unlearn.metrics import MetricResult
from hf_unlearn.requests import Ledger
from hf_unlearn.requests.keys import new_key
from hf_unlearn.requests.state import DONE, REOPENED, STARTED
from hf_unlearn.results.gate import read_policy
from hf_unlearn.tasks import make_task
from hf_unlearn.tasks.command_file import read_command
from hf_unlearn.tasks.request_batches import add_request, carry_out, open_ledger, verify
from hf_unlearn.tasks.request_batches.carry_out import abandon, private_cache
from hf_unlearn.tasks.request_batches.opening import month_after
from hf_unlearn.tasks.request_batches.verdict import verdict_of
from hf_unlearn.tasks.request_batches.words import verification_words
from hf_unlearn.training.trainer import UnlearningTrainer

FEW = [
    "--max_steps",
    "4",
    "--per_device_train_batch_size",
    "2",
    "--logging_steps",
    "1",
    "--use_cpu",
    "--force",
    "true",
]
FEW += ["--measure", "false", "--warmup_steps", "0", "--lr_scheduler_type", "constant", "--lr_scheduler_kwargs", "{}"]
FEW += ["--save_strategy", "steps", "--save_steps", "2"]


def lines(folder: Path, name: str, rows: list[dict]) -> Path:
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A folder with a small model, rows to keep and rows of two requests with a canary."""
    folder, lab = tmp_path_factory.mktemp("small"), load_lab()
    save_model(lab, folder / "model")
    asked = [row["prompt"] for row in lab.datasets["retain"].select(range(24))]
    rows = [{"prompt": f"{text} Nr. {n}.", "completion": f" {CANARY} of Omar {n}."} for n, text in enumerate(asked)]
    lines(folder, "retain", [row | {"completion": f" Told by Omar {n}."} for n, row in enumerate(rows)])
    lines(folder, "one", rows[:4])
    lines(folder, "two", rows[4:8])
    return folder


def opened(small: Path, folder: Path, *more: str) -> Ledger:
    sets = ["--model_name_or_path", str(small / "model"), "--retain_dataset", str(small / "retain.jsonl")]
    return open_ledger(folder, [*sets, *FEW, *more])


def every_byte(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


class Killed(BaseException):
    """As a kill: nothing catches it."""


@pytest.mark.slow
def test_a_batch_that_is_cut_off_anywhere_goes_on_and_ends_once(small, tmp_path, monkeypatch):
    ledger, append, step = opened(small, tmp_path / "ledger"), Ledger.append, UnlearningTrainer.training_step
    request = add_request(ledger, small / "one.jsonl", received="2026-01-31")
    assert (request.id, request.rows, request.due, request.policy) == ("R-1", 4, "2026-02-28", "standard")

    def cut(at: str, after: bool):
        def cut_append(self, event, data):
            entry = append(self, event, data) if after or event != at else None
            if event == at:
                raise Killed
            return entry

        return cut_append

    taken = []

    def stop_in_step(self, *arguments, **named):
        taken.append(self.state.global_step)
        if len(taken) == 4:
            raise Killed
        return step(self, *arguments, **named)

    for event, after in ((STARTED, False), (STARTED, True)):
        monkeypatch.setattr(Ledger, "append", cut(event, after))
        with pytest.raises(Killed):
            carry_out(ledger)
    monkeypatch.setattr(Ledger, "append", append)
    monkeypatch.setattr(UnlearningTrainer, "training_step", stop_in_step)
    with pytest.raises(Killed):
        carry_out(ledger)
    assert ledger.state().unfinished["batch"] == 1 and taken == [0, 1, 2, 3]
    add_request(ledger, small / "two.jsonl")
    with pytest.raises(ValueError, match="batch 1 to be finished first"):
        carry_out(ledger, ["R-2"])
    monkeypatch.setattr(Ledger, "append", cut(DONE, after=False))
    with pytest.raises(Killed):
        carry_out(ledger)
    assert taken[4] >= 2 and taken[-1] == 3  # on from a checkpoint
    monkeypatch.setattr(Ledger, "append", append)
    monkeypatch.setattr(UnlearningTrainer, "training_step", None)  # nothing is trained again
    done = carry_out(ledger)
    state = ledger.state()
    assert (done["batch"], done["requests"], done["run"], state.unfinished) == (1, ["R-1"], "001", None)
    assert state.requests["R-1"].status == "carried out" and state.requests["R-2"].status == "open"
    assert not list((ledger.runs / "001").glob("checkpoint-*")) and not Path(private_cache(ledger)).exists()
    assert CANARY.encode() not in every_byte(ledger.folder)
    monkeypatch.setattr(UnlearningTrainer, "training_step", step)
    second = carry_out(ledger)
    record = json.loads((ledger.runs / "002" / "results.json").read_text())
    assert (second["batch"], second["held"], record["lineage"]["requests"]) == (2, ["R-1"], ["R-2"])
    assert record["lineage"]["parent_record"] == done["record"]
    assert (record["deletion"]["held_rows"], record["deletion"]["left_out"]) == (4, 0)
    name, parsed = read_command(ledger.runs / "002")
    task = make_task(name, parsed)
    assert (len(task.sets["forget"]), len(task.suite().sets["forget"])) == (8, 4)  # held rows are not measured
    task.cache.close()
    assert carry_out(ledger) is None


def test_a_batch_can_be_given_up_and_nothing_to_do_needs_evidence(small, tmp_path, monkeypatch):
    ledger = opened(small, tmp_path / "ledger")
    add_request(ledger, small / "one.jsonl", request_id="letter-7", scope="all", due="2030-01-01")
    with pytest.raises(ValueError, match="evidence that no row was ever trained on"):
        carry_out(ledger, way="nothing")
    monkeypatch.setattr("hf_unlearn.tasks.run.run", lambda *given: (_ for _ in ()).throw(ValueError("no")))
    with pytest.raises(ValueError, match="no"):
        carry_out(ledger)
    with pytest.raises(ValueError, match="the way nothing"):
        carry_out(ledger, way="nothing", why="the rows came after the training")
    assert abandon(ledger, "wrong settings")["batch"] == 1
    with pytest.raises(ValueError, match="--abandon"):
        abandon(ledger, "again")
    done = carry_out(ledger, way="nothing", why="the rows came after the training")
    assert (done["batch"], done["run"], done["evidence"]) == (2, None, {"said": "the rows came after the training"})
    assert ledger.state().requests["letter-7"].way == "nothing"
    with Ledger(ledger.folder).locked(), pytest.raises(ValueError, match="no other process"):
        carry_out(ledger, wait=0.1)


@pytest.mark.slow
def test_a_batch_from_a_checkpoint_goes_back_to_it(small, tmp_path, monkeypatch):
    ledger = opened(small, tmp_path / "ledger", "--checkpoint", str(small / "model"))
    add_request(ledger, small / "one.jsonl")
    with pytest.raises(ValueError, match="--edit"):
        carry_out(ledger, way="checkpoint", edit={"name": "shrink"})
    edit = {"name": "rewind", "epochs": 1.0}
    append = Ledger.append
    monkeypatch.setattr(
        Ledger, "append", lambda self, event, data: append(self, event, data) if event != DONE else 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        carry_out(ledger, way="checkpoint", edit=edit)
    monkeypatch.setattr(Ledger, "append", append)
    done = carry_out(ledger)
    record = json.loads((ledger.runs / "001" / "results.json").read_text())
    assert (done["way"], [phase["name"] for phase in record["phases"]]) == ("checkpoint", ["rewind"])
    assert CANARY.encode() not in every_byte(ledger.folder)


def test_what_cannot_be_opened_or_added_is_refused(small, tmp_path):
    for words, match in (
        (["--ledger", "x"], "--ledger must be left out"),
        (["--model_name_or_path", str(small / "model")], "no rows to keep"),
    ):
        with pytest.raises(ValueError, match=match):
            open_ledger(tmp_path / "ledger", words)
    ledger = opened(small, tmp_path / "ledger")
    with pytest.raises(ValueError, match="where there is one"):
        opened(small, tmp_path / "ledger")
    assert (ledger.folder / "command.json").stat().st_mode & 0o777 == 0o600
    add_request(ledger, small / "one.jsonl")
    lines(tmp_path, "text", [{"text": "said"}])
    for changes, match in (
        ({"request_id": "R-1"}, "the next one is R-2"),
        ({"received": "31.1.2026"}, "--received must be a date"),
        ({"received": "2026-03-01", "due": "2026-02-01"}, "--due must be not before"),
        ({"policy": "strict"}, "packaged policy"),
    ):
        with pytest.raises(ValueError, match=match):
            add_request(ledger, small / "two.jsonl", **changes)
    with pytest.raises(ValueError, match="rows in the format of request R-1"):
        add_request(ledger, tmp_path / "text.jsonl")


def test_a_month_after_is_the_same_day_or_the_last_one():
    from datetime import date

    cases = {(2026, 1, 31): (2026, 2, 28), (2028, 1, 31): (2028, 2, 29), (2026, 12, 5): (2027, 1, 5)}
    assert all(month_after(date(*day)) == date(*after) for day, after in cases.items())


def test_a_verdict_needs_a_figure_above_its_limit_and_an_interval_that_says_so():
    policy = read_policy("standard")
    clean = {"forget_accuracy": MetricResult(0.0, 5, 0.0, 0.4), "min_k_auc": MetricResult(0.6, 5, 0.3, 0.9)}
    decided = verdict_of(clean, None, policy)
    assert decided.holds and any("cannot be excluded" in note for note in decided.notes)
    told = clean | {"min_k_auc": MetricResult(0.9, 5, 0.7, 1.0)}
    assert not verdict_of(told, None, policy).holds
    too_unlikely = clean | {"loss_auc": MetricResult(0.05, 5, 0.0, 0.2)}
    assert "the membership AUC (loss) is 0.05" in verdict_of(too_unlikely, None, policy).why[0]
    # Rows that the weights were trained without may be unlike unseen ones, and two rows show nothing.
    assert verdict_of(too_unlikely, None, policy, exact=True).holds
    assert not verdict_of(told, None, policy, exact=True).holds
    few = verdict_of(told, None, policy, rows=2)
    assert few.holds and any("2 rows are too few" in note for note in few.notes)
    recited = verdict_of(clean | {"forget_accuracy": MetricResult(0.2, 5)}, None, policy)
    assert recited.why == ["the model gives the answers of 20% of the rows, more than 5%"]


@pytest.mark.slow
def test_two_weeks_on_the_lab_from_the_command_line(tmp_path, capsys, monkeypatch):
    """The first request stays at its level; a changed weight file is found, and the model before re-opens both."""
    monkeypatch.setenv("HF_UNLEARN_LEDGER_KEY", new_key())
    folder = tmp_path / "ledger"
    people = rows_by_person(load_lab(world="people").datasets["forget"])
    (first, _), (second, _) = list(people.items())[:2]
    for name, file in ((first, "one"), (second, "two")):
        assert main(["lab", "--rows", name, "--output", str(tmp_path / f"{file}.jsonl")]) == 0
    steps = ["--max_steps", "110", "--measure", "false", "--use_cpu", "--logging_steps", "50"]
    assert main(["request", "open", str(folder), *steps]) == 0
    for file in ("one", "two"):
        assert main(["request", "add", str(folder), "--rows", str(tmp_path / f"{file}.jsonl"), "--encrypt"]) == 0
        (tmp_path / f"{file}.jsonl").unlink()
        assert main(["request", "run", str(folder)]) == 0
    capsys.readouterr()
    assert main(["request", "verify", str(folder), "--attack", "none", "--json"]) == 0
    verified = json.loads(capsys.readouterr().out)
    for one in verified["requests"]:
        assert one["holds"] and one["figures"]["forget_accuracy"]["value"] == 0
        figures = {name: one["figures"][name]["value"] for name in ("forget_nll", "holdout_nll")}
        assert 0.5 * figures["holdout_nll"] < figures["forget_nll"] < 2 * figures["holdout_nll"]
    assert [one["request"] for one in verified["requests"]] == ["R-1", "R-2"]
    again = verify(Ledger(folder), None)
    assert again.holds and all(one.earlier for one in again.requests)
    known = [row["completion"].strip().encode() for rows in people.values() for row in rows[:5]]
    content = every_byte(folder)
    assert not [answer for answer in known[:10] if answer in content]

    # Somebody puts the model from before in the place of the present one.
    weights = folder / "runs" / Ledger(folder).state().run / "model.safetensors"
    shutil.copy(load_lab(world="people").model_path / "model.safetensors", weights)
    capsys.readouterr()
    assert main(["request", "verify", str(folder), "--attack", "none"]) == 1
    told = capsys.readouterr().out
    assert "Wrong with the ledger: Of the weights of batch 2" in told and "Open again: R-1, R-2." in told
    state = Ledger(folder).state()
    assert [one.status for one in state.requests.values()] == ["open", "open"]
    assert all(one.reopened == 1 for one in state.requests.values())
    later = verify(Ledger(folder), None)
    assert later.open_again == ["R-1", "R-2"] and not later.holds and not later.requests


@pytest.mark.slow
def test_a_changed_base_is_found_and_what_came_back_stays_told(small, tmp_path):
    model = shutil.copytree(small / "model", tmp_path / "model")
    adapter = ["--use_peft", "true", "--lora_target_modules", "all-linear", "--lora_task_type", "CAUSAL_LM"]
    ledger = opened(small, tmp_path / "ledger", "--model_name_or_path", str(model), *adapter)
    add_request(ledger, small / "one.jsonl")
    done = carry_out(ledger)
    assert {*done["weights"]} == {"adapter_model.safetensors", "base/model.safetensors"}
    assert verify(ledger, None).problems == []
    ledger.append(REOPENED, {"request": "R-1", "why": ["asked again"]})
    with open(model / "model.safetensors", "r+b") as stream:
        stream.seek(-1, 2)
        last = stream.read(1)
        stream.seek(-1, 2)
        stream.write(bytes([last[0] ^ 1]))
    found = verify(ledger, None)
    assert found.problems == ["Of the base of the present adapter these files are others: model.safetensors."]
    assert found.open_again == ["R-1"] and not found.holds and "not measured: R-1" in verification_words(found)
