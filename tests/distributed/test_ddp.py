"""Two processes under gloo against one on the same rows: one trajectory, evaluation and cache. Not ZeRO or FSDP."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from distributed import ddp_script
from distributed.launcher import fork
from fixtures.examples import assert_four_parts
from fixtures.models import FORGET, RETAIN, tiny_model, tiny_tokenizer
from hf_unlearn.cli import main
from hf_unlearn.training.checkpoints.lock import LOCK_FILE

pytestmark = pytest.mark.distributed

RUNS = list(ddp_script.RUNS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What two processes wrote; one launch for all runs, since starting takes longer than training."""
    folder = tmp_path_factory.mktemp("ddp")
    tiny_model().save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    for name, rows in (("forget", FORGET[:4]), ("retain", RETAIN[:4])):
        lines = [json.dumps({side: row[side] for side in ("prompt", "completion")}) + "\n" for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "locked/out").mkdir(parents=True)
    with FileLock(folder / "locked/out" / LOCK_FILE):
        fork(Path(ddp_script.__file__), folder, "cache", "locked", *RUNS, "stopped", "forced")
    return folder


def results(folder: Path, name: str) -> list[dict[str, Any]]:
    """What each rank wrote, after a look at whether there were two that knew of each other."""
    ranks = [torch.load(folder / f"{name}-2-{rank}.pt", weights_only=True) for rank in range(2)]
    assert [each["num_processes"] for each in ranks] == [2, 2]
    return ranks


def compared(entries: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in entry.items() if name not in ("epoch", "step")} for entry in entries]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory) -> Callable[[str], dict[str, Any]]:
    """The same run in this process, once for all tests."""
    return cache(lambda name: ddp_script.run(name, tmp_path_factory.mktemp("alone"), world_size=1))


def assert_one_trajectory(ranks: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    assert [each["wrapped"] for each in ranks] == ["DistributedDataParallel"] * 2
    assert alone["wrapped"] != "DistributedDataParallel"
    for one, other in zip(compared(ranks[0]["logs"]), compared(alone["logs"]), strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-7)
    first, last = alone["logs"][0], alone["logs"][-1]
    assert first["grad_norm"] > 1e-3 and first["loss"] != last["loss"]
    for name, weight in alone["weights"].items():
        for each in ranks:
            torch.testing.assert_close(each["weights"][name], weight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_are_one(folder, one_process, name):
    assert_one_trajectory(results(folder, name), one_process(name))


@pytest.mark.parametrize("name", RUNS)
def test_ranks_share_the_rows_between_them(folder, one_process, name):
    first, second = (each["seen"] for each in results(folder, name))
    for role, rows in one_process(name)["seen"].items():
        assert first[role] or second[role]
        assert first[role] != second[role], f"both ranks saw the same {role} rows"
        assert sorted(first[role] + second[role]) == sorted(rows)


@pytest.mark.parametrize("name", RUNS)
def test_an_evaluation_is_the_same_on_every_rank(folder, one_process, name):
    first, second = (each["metrics"] for each in results(folder, name))
    assert {"eval_forget_nll", "eval_retain_nll", "eval_forget_probability"} <= first.keys()
    assert first == second
    assert first == pytest.approx(one_process(name)["metrics"], rel=1e-5)


def test_a_cached_reference_is_shared_by_the_ranks(folder):
    first, second = results(folder, "cache")
    assert first["files"] == second["files"] and len(first["files"]) == 2  # forget rows and their alternates
    # Both ranks score their half once; the second trainer reads.
    assert first["calls"] == second["calls"] == [2, 2]
    assert first["logs"][0] == first["logs"][1]


def test_a_folder_that_another_process_trains_into_is_refused_on_both_ranks(folder):
    first, second = (each["refusals"] for each in results(folder, "locked"))
    assert first == second and len(first) == 2  # a run and a save
    for words in first:
        assert_four_parts(words, "one whose lock another process holds", str(folder / "locked/out"))


def test_the_preflight_stops_both_ranks(folder):
    for each in results(folder, "stopped"):
        assert each["status"] == 2
        assert_four_parts(each["said"].partition("hf-unlearn train: ")[2], "near that of a random model", "--force")


def test_a_forced_run_of_two_ranks_is_whole(folder, capsys):
    """Evaluated again, reported and pushed in one process."""
    first, second = results(folder, "forced")
    assert first["status"] == second["status"] == 0
    assert "The preflight is overruled (force)" in first["said"], "warned of once"
    assert "overruled" not in second["said"]
    run = folder / "command"
    record = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert record["hardware"]["processes"] == 2 and len(record["forced"]) == 1
    assert len([entry for entry in record["log"] if "loss" in entry]) == 1
    assert main(["evaluate", *ddp_script.arguments(folder), "--name", "again", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)["metrics"]
    after = record["evaluations"]["after"]["metrics"]
    assert again.keys() == after.keys()
    for name, metric in after.items():
        assert again[name]["value"] == pytest.approx(metric["value"], rel=1e-4, abs=1e-6), name
    assert main(["report", str(run)]) == 0 and (run / "report.html").is_file()
    capsys.readouterr()
    assert main(["push", str(run), "tester/model", "--dry-run", "--json"]) == 0
    sent = json.loads(capsys.readouterr().out)["files"]
    assert {"README.md", "results.json", "config.json", "model.safetensors", "tokenizer.json"} <= {*sent}
    assert not (run / ".rows").exists()
