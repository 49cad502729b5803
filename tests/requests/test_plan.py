"""The way in which a request is carried out: the cheapest that is sufficient, and its reasons."""

import json
from typing import Any

import pytest

from hf_unlearn.cli import main
from hf_unlearn.requests import Ledger
from hf_unlearn.requests.ledger import LEDGER_FILE
from hf_unlearn.requests.plan import Evidence, grouped, held_requests, plan
from hf_unlearn.requests.state import (
    CALIBRATED,
    CARRIED_OUT,
    CHECKPOINT,
    DROP_COHORT,
    NOTHING,
    PLANNED,
    REPLAY,
    WAYS,
    LedgerState,
    Request,
)
from hf_unlearn.requests.sufficient import _RULES

from .conftest import MODEL

# Rows 0 to 9 in the order of the training, one a step; 8 and 9 in the adapter of a cohort; 10 and up never.
LOG = Evidence(
    log_sha256="e" * 64,
    rows_logged=40,
    first_steps={str(row): row + 1 for row in range(8)},
    total_steps=10,
    checkpoint_steps=(0, 4, 8),
    cohorts={"8": "spring", "9": "spring"},
    cohort_rows={"spring": 6},
)


def _state(requests: dict[str, tuple[str, ...]], **done: str) -> LedgerState:
    made = {name: Request(name, len(rows), list(rows), "2026-11-29") for name, rows in requests.items()}
    for name, way in done.items():
        made[name].way, made[name].status = way, CARRIED_OUT
    return LedgerState(opened={"model": MODEL}, base=MODEL, weights=MODEL, requests=made)


def _evidence(**changes: Any) -> Evidence:
    return Evidence(**{**vars(LOG), **changes})


def test_every_way_has_a_rule_in_the_order_of_ways() -> None:
    assert list(_RULES) == list(WAYS)


@pytest.mark.parametrize(
    ("rows", "evidence", "way", "cost", "words"),
    [
        (("10", "11"), LOG, NOTHING, 0.0, "names 40 rows and none of the 2"),
        (("8", "10"), LOG, DROP_COHORT, 5 / 40, "also holds 5 rows that nobody asked"),
        (("8", "9"), _evidence(cohort_rows={}), DROP_COHORT, 0.0, "holds no row that nobody asked"),
        (("6", "10"), LOG, REPLAY, 0.6, "step 7 of 10, and the checkpoint of step 4 was kept: the 6 steps"),
        (("4",), LOG, REPLAY, 0.6, "step 4 was kept"),  # the state after step 4 does not hold the row of step 5
        (("3",), LOG, REPLAY, 1.0, "step 0 was kept"),
        (("3",), _evidence(checkpoint_steps=(4, 8)), CALIBRATED, None, "from before step 4"),
        (("7",), _evidence(checkpoint_steps=(8,)), CALIBRATED, None, "from before step 8"),
        (("6", "8"), LOG, CALIBRATED, None, "adapter of a cohort holds 1 row of it"),
        (("8",), _evidence(first_steps={"8": 5}), CALIBRATED, None, "trained into weights that all cohorts share"),
        (("6",), LOG, REPLAY, 0.6, "adapters of cohorts were trained on other weights"),
        (("6",), _evidence(checkpoint_steps=(), checkpoint="m"), CHECKPOINT, None, "(rewind)"),
        (("6",), Evidence(checkpoint="m"), CHECKPOINT, None, "(msa)"),
        (("10",), Evidence(), CALIBRATED, None, "no log"),
        (("10",), _evidence(weights={"model.safetensors": "b"}), CALIBRATED, None, "log is that of other weights"),
    ],
)
def test_the_cheapest_sufficient_way(
    rows: tuple[str, ...], evidence: Evidence, way: str, cost: float | None, words: str
) -> None:
    (one,) = plan(_state({"R1": rows}), ["R1"], evidence)
    assert (one.way, one.cost) == (way, pytest.approx(cost) if cost else cost)
    assert words in " ".join(one.why)
    assert all(sentence.endswith(".") for sentence in one.why)
    assert evidence.checkpoint not in str(grouped([one])[0].entry()).split("'")  # no place goes into the ledger


def test_earlier_requests_count() -> None:
    rows = {"R1": ("1",), "R2": ("6",)}
    (alone,) = plan(_state(rows), ["R2"], LOG)
    assert alone.details["step"] == 4
    (after,) = plan(_state(rows, R1=REPLAY), ["R2"], LOG)  # from before the rows of the first, or they would come back
    assert after.details["step"] == 0 and "other requests so far" in " ".join(after.why)
    (lost,) = plan(_state(rows, R1=CALIBRATED), ["R2"], LOG)
    assert lost.way == REPLAY and "what was done to them for R1 is lost" in " ".join(lost.why)
    (late,) = plan(_state(rows, R1=CALIBRATED), ["R2"], _evidence(checkpoint_steps=(4,)))
    assert late.way == CALIBRATED and "rows of R1 are held" in " ".join(late.why)
    assert held_requests(_state(rows, R1=CALIBRATED), ["R2"]) == ["R1"]
    assert held_requests(_state(rows, R1=NOTHING), ["R2"]) == []

    cohort = {"R1": ("6",), "R2": ("8",)}
    (shared,) = plan(_state(cohort, R1=CALIBRATED), ["R2"], LOG)
    assert shared.way != DROP_COHORT and "R1 changed the weights that all cohorts share" in " ".join(shared.why)
    (same,) = plan(_state({"R1": ("9",), "R2": ("8",)}, R1=CALIBRATED), ["R2"], LOG)
    assert same.way == DROP_COHORT and "on top of them is lost" in " ".join(same.why)

    state = _state({"R1": ("10",)}, R1=NOTHING)
    state.requests["R1"].status, state.requests["R1"].reopened = "open", 1
    (again,) = plan(state, ["R1"], LOG)
    assert again.way == CALIBRATED and "the log cannot be complete" in " ".join(again.why)
    state = _state({"R1": ("10",)})
    state.base = {"model.safetensors": "c"}
    assert plan(state, ["R1"], LOG)[0].way == CALIBRATED
    assert plan(state, ["R1"], _evidence(weights=state.base))[0].way == NOTHING


def test_a_way_that_was_asked_for_is_taken_where_it_is_sufficient() -> None:
    state = _state({"R1": ("6",), "R2": ("10",)})
    (one,) = plan(state, ["R1"], LOG, {"R1": CALIBRATED}, steps=5)
    assert one.why[0] == "The way was asked for." and one.cost == 0.5
    for name, way, words in (
        ("R1", NOTHING, "they were trained on"),
        ("R1", DROP_COHORT, "weights that all cohorts share"),
        ("R2", REPLAY, "none of its rows"),
        ("R1", CHECKPOINT, "No model from before"),
        ("R1", "magic", "known name"),
        ("R9", NOTHING, "known name"),
    ):
        with pytest.raises(ValueError, match=words):
            plan(state, [name], LOG, {name: way})
    assert plan(state, ["R1"], LOG, max_replay=0.5)[0].way == CALIBRATED
    with pytest.raises(ValueError, match="request must be"):
        plan(_state({"R1": ("6",)}, R1=CALIBRATED), ["R1"], LOG)  # not open


def test_requests_of_a_way_are_a_batch() -> None:
    requests = {"A": ("10",), "B": ("6",), "C": ("2",), "D": ("8",), "E": ("9",), "F": ("11",)}
    plans = plan(_state(requests), list(requests), LOG)
    batches = grouped(plans)
    assert [(one.way, one.requests) for one in batches] == [
        (NOTHING, ["A", "F"]),
        (DROP_COHORT, ["D", "E"]),
        (REPLAY, ["B", "C"]),
    ]
    assert (batches[2].cost, batches[2].details["step"]) == (1.0, 0)
    assert batches[1].cost == pytest.approx(4 / 40)  # both rows are asked for, in one cohort of six
    assert [one.way for one in grouped(plans, together=True)] == [NOTHING, CALIBRATED]
    entry = batches[1].entry()
    assert entry["evidence"]["cohorts"] == {"spring": 4} and list(entry["why"]) == ["D", "E"]

    few = _evidence(checkpoint_steps=(4,), checkpoint="m")
    mixed = plan(_state(requests), ["B", "C", "A"], few, {"A": CALIBRATED})
    assert [(one.way, one.requests) for one in grouped(mixed)] == [(REPLAY, ["B"]), (CALIBRATED, ["C", "A"])]


def test_the_command_plans_and_writes_it_down(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["request", "plan", str(ledger.folder), "--checkpoint", "/secret/model"]
    assert main([*words, "--way", "calibrated", "R2=checkpoint"]) == 0
    shown = capsys.readouterr().out
    assert "R1, R2: calibrated" in shown and "goes along" in shown and "The way was asked for." in shown
    assert main([*words, "--requests", "R2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["way"] == CHECKPOINT
    planned = [entry.data for entry in ledger.entries() if entry.event == PLANNED]
    assert [(data["requests"], data["way"]) for data in planned] == [(["R1", "R2"], CALIBRATED), (["R2"], CHECKPOINT)]
    assert "secret" not in (ledger.folder / LEDGER_FILE).read_text()
    assert main([*words, "--way", "nothing"]) == 2
    assert "There is no log of the training" in capsys.readouterr().err
