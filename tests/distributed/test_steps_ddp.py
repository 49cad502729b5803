"""Step wrappers, weighting and losses of hidden states on two processes under gloo, against one. Not ZeRO or FSDP."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from distributed import steps_script
from distributed.launcher import fork

pytestmark = pytest.mark.distributed

RUNS = list(steps_script.RUNS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What two processes wrote; one launch for all runs, since starting takes longer than training."""
    folder = tmp_path_factory.mktemp("steps_ddp")
    fork(Path(steps_script.__file__), folder, *RUNS)
    return folder


@pytest.fixture(scope="module")
def one_process(tmp_path_factory) -> Callable[[str], dict[str, Any]]:
    """The same run in this process, once for all tests."""
    return cache(lambda name: steps_script.run(name, tmp_path_factory.mktemp("alone"), world_size=1))


def results(folder: Path, name: str) -> list[dict[str, Any]]:
    """What each rank wrote, after a look at whether there were two that knew of each other."""
    ranks = [torch.load(folder / f"{name}-2-{rank}.pt", weights_only=True) for rank in range(2)]
    assert [each["num_processes"] for each in ranks] == [2, 2]
    assert [each["wrapped"] for each in ranks] == ["DistributedDataParallel"] * 2
    return ranks


def compared(entries: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in entry.items() if name not in ("epoch", "step")} for entry in entries]


@pytest.mark.parametrize("name", RUNS)
def test_both_ranks_end_with_the_same_weights(folder, name):
    first, second = results(folder, name)
    assert all(torch.equal(weight, second["weights"][key]) for key, weight in first["weights"].items())
    assert all(torch.equal(weight, second["start"][key]) for key, weight in first["start"].items())
    assert any(not torch.equal(weight, first["start"][key]) for key, weight in first["weights"].items())


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_are_one(folder, one_process, name):
    alone = one_process(name)
    assert alone["wrapped"] != "DistributedDataParallel"
    for rank in results(folder, name):
        for one, other in zip(compared(rank["logs"]), compared(alone["logs"]), strict=True):
            assert one == pytest.approx(other, rel=1e-5, abs=1e-6)
        for key, weight in alone["weights"].items():
            torch.testing.assert_close(rank["weights"][key], weight, rtol=1e-9, atol=1e-9)
        assert all(torch.equal(*pair) for pair in zip(rank["targets"], alone["targets"], strict=True))
    first, last = alone["logs"][0], alone["logs"][-1]
    assert first["grad_norm"] > 1e-3 and first["loss"] != last["loss"]
    assert len(alone["targets"]) == name.startswith("rmu")


@pytest.mark.parametrize("name", [name for name in RUNS if name.startswith("rmu") and "lora" not in name])
def test_what_lies_above_the_layer_is_left_alone_on_both_ranks(folder, name):
    for rank in results(folder, name):
        above = [key for key in rank["weights"] if "layers.1." in key]
        assert len(above) > 5
        assert all(torch.equal(rank["weights"][key], rank["start"][key]) for key in above)


def test_the_primal_dual_weight_moves_and_is_one_number(folder):
    first, second = ([log["retain_weight"] for log in rank["logs"]] for rank in results(folder, "primal_dual"))
    assert first == second and len(set(first)) == 3


def test_the_bound_holds_some_rows_of_the_hidden_run(one_process):
    assert 0 < one_process("rmu_bound")["logs"][0]["bound_share"] < 1
