"""Evaluations on two processes under gloo against one: the same figures and answers, each row scored by one rank."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from distributed import evaluation_script
from distributed.evaluation_script import PROMPTS, ROWS, RUNS, Killed, run
from distributed.launcher import fork

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What two processes wrote; one of them is given what a single process left when it was killed."""
    folder = tmp_path_factory.mktemp("evaluation_ddp")
    with pytest.raises(Killed):
        run("sampled", folder / "partial", batches=4)
    fork(Path(evaluation_script.__file__), folder, *RUNS, "refused", "resumed", "callback")
    return folder


@pytest.fixture(scope="module")
def one_process() -> Callable[[str], dict[str, Any]]:
    """The same evaluation in this process, once for all tests."""
    return cache(run)


def results(folder: Path, name: str) -> list[dict[str, Any]]:
    """What each rank wrote, after a look at whether there were two that knew of each other."""
    ranks = [torch.load(folder / f"{name}-2-{rank}.pt", weights_only=True) for rank in range(2)]
    assert [each["num_processes"] for each in ranks] == [2, 2]
    return ranks


def assert_same_findings(ranks: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    first, second = ranks
    for name in ("metrics", "row_scores", "rows", "warnings", "cost"):
        assert first[name] == second[name]
    assert (first["rows"], first["warnings"], first["cost"]) == (alone["rows"], alone["warnings"], alone["cost"])
    assert first["metrics"].keys() == alone["metrics"].keys()
    for name, (value, n, *_) in alone["metrics"].items():
        assert first["metrics"][name][:2] == [pytest.approx(value, rel=1e-5, abs=1e-6), n], name
    for name, scores in alone["row_scores"].items():
        assert first["row_scores"][name] == pytest.approx(scores, rel=1e-5)
    assert first["answers"] == alone["answers"]
    assert second["answers"] is None, "the main process measures, and it alone"
    for name, rows in alone["tokens"].items():
        for one, other in zip(first["tokens"][name], rows, strict=True):
            torch.testing.assert_close(torch.tensor(one), torch.tensor(other), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_find_what_one_finds(folder, one_process, name):
    ranks, alone = results(folder, name), one_process(name)
    assert_same_findings(ranks, alone)
    assert alone["num_processes"] == 1
    if name != "few_rows":
        assert len({value for value, *_ in alone["metrics"].values()}) > 12
        assert len({answer for answers in alone["answers"].values() for answer in answers}) > 3


def test_sampled_answers_are_not_the_greedy_ones(one_process):
    assert one_process("sampled")["answers"] != one_process("greedy")["answers"]


def test_each_row_is_scored_by_one_of_the_ranks(folder, one_process):
    first, second = (each["scored"] for each in results(folder, "greedy"))
    assert sum(one_process("greedy")["scored"]) == ROWS
    assert (sum(first), sum(second)) == (ROWS // 2, ROWS // 2)
    assert max(first) == max(second) == 3 and len(first) == len(second) == 5


def test_answers_are_scored_by_one_of_the_ranks_too(folder, one_process):
    scored = [sum(each["scored"]) for each in results(folder, "fluency")]
    greedy = [sum(each["scored"]) for each in results(folder, "greedy")]
    asked_of_forget = 11
    assert sum(scored) - sum(greedy) == asked_of_forget < PROMPTS
    assert "answer_perplexity" in results(folder, "fluency")[0]["metrics"]


def test_two_processes_go_on_from_what_one_left(folder, one_process):
    """Four batches of three were scored before; the other 16 rows are shared."""
    ranks = results(folder, "resumed")
    assert [sum(each["scored"]) for each in ranks] == [8, 8]
    assert_same_findings(ranks, one_process("sampled"))
    assert not (folder / "partial").exists()


def test_a_suite_in_a_run_gives_every_rank_the_same_figures(folder, tmp_path):
    first, second = results(folder, "callback")
    assert first["steps"] == second["steps"] == [1, 2]
    assert first["logged"] == second["logged"] and first["logged"][0] != first["logged"][1]
    alone = evaluation_script.run_callback(tmp_path, world_size=1)
    assert first["best"] == second["best"] == pytest.approx(alone["best"], rel=1e-4)
    for one, other in zip(first["logged"], alone["logged"], strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)


def test_an_error_of_one_process_reaches_the_others(folder):
    first, second = (each["errors"] for each in results(folder, "refused"))
    assert first == second
    assert first[0] == "no such answer" and "logits that are not finite" in first[1]
