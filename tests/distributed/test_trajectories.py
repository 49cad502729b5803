"""DDP, ZeRO-1, 2 and 3 and FSDP2 on two processes under gloo, through the packaged configs, against one process."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from distributed import trajectory_script
from distributed.launcher import fork, launch
from distributed.trajectory_script import (
    BROKEN,
    EVALUATED,
    MODES,
    PROFILES,
    RESUMED,
    ROUTER,
    RUNS,
    SAVED,
    STAGES,
    STEPS,
    chosen,
    runs_of,
)
from fixtures.examples import assert_four_parts
from hf_unlearn.training.checkpoints.mark import fault_of
from local_hub.server import HubServer

pytestmark = pytest.mark.distributed

SECONDS = 300
# Started by `accelerate launch`; the others are told the same by its own functions.
LAUNCHED = ("zero2",)
# Modes that are resumed and evaluated too.
MORE = pytest.mark.parametrize("mode", [mode for mode in MODES if runs_of(mode) != chosen(mode)], indirect=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The model that all runs start from, and what they write."""
    folder = tmp_path_factory.mktemp("trajectories")
    trajectory_script.prepared(folder)
    return folder


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    """Where the runs push what they have trained."""
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module", params=MODES)
def mode(request, folder, hub) -> str:
    """A way of distributing a run, launched; one launch for all of its runs, since starting takes longer."""
    script, name = Path(trajectory_script.__file__), request.param
    # Its caches stay those of the tests.
    environment = {key: value for key, value in hub.environment(folder).items() if key != "HF_HOME"}
    start = launch if name in LAUNCHED else fork
    start(script, folder, name, config=name, seconds=SECONDS, environment=environment)
    return name


@pytest.fixture(scope="module")
def one_process(folder) -> Callable[[str], dict[str, Any]]:
    """The same run in this process, once for all tests."""
    return cache(lambda name: trajectory_script.result(name, folder, "alone"))


def written(folder: Path, mode: str, name: str) -> dict[str, Any]:
    return torch.load(folder / mode / f"{name}.pt", weights_only=True)


def compared(entries: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in entry.items() if name not in ("epoch", "step")} for entry in entries]


def assert_one_trajectory(entries: list[dict[str, float]], others: list[dict[str, float]]) -> None:
    for one, other in zip(compared(entries), compared(others), strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)


def test_the_mode_was_engaged(folder, mode):
    """Every run was what its launcher's config says, on two processes."""
    for name in set(runs_of(mode)).difference(trajectory_script.REFUSED):
        assert_engaged(written(folder, mode, name)["engaged"], mode)


def assert_engaged(engaged: dict[str, Any], mode: str) -> None:
    assert engaged == {
        "num_processes": 2,
        "wrapped": engaged["wrapped"],
        "deepspeed": mode in STAGES,
        "stage": STAGES.get(mode),
        "fsdp": mode == "fsdp2",
        "sharded": mode == "fsdp2",
        "partitioned": mode == "zero3",
    }
    assert engaged["wrapped"].startswith(
        {"ddp": "DistributedDataParallel", "fsdp2": "FSDP"}.get(mode, "DeepSpeedEngine")
    )


def test_the_trajectory_is_that_of_one_process(folder, mode, one_process, subtests):
    for name in chosen(mode):
        with subtests.test(name):
            run, alone = written(folder, mode, name), one_process(name)
            assert len(run["logs"]) == STEPS
            assert_one_trajectory(run["logs"], alone["logs"])
            assert run["weights"].keys() == alone["weights"].keys()
            for key, weight in alone["weights"].items():
                torch.testing.assert_close(run["weights"][key], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", RUNS)
def test_the_trajectory_goes_somewhere(folder, one_process, name):
    alone = one_process(name)
    losses = [entry["loss"] for entry in alone["logs"]]
    assert len(set(losses)) == STEPS and all(entry["grad_norm"] > 1e-2 for entry in alone["logs"])
    start = load_file(folder / RUNS[name].get("model", "model") / "model.safetensors")
    lora = {key: weight for key, weight in alone["weights"].items() if "lora_B" in key}
    moved = list(lora.values()) or [weight - start[key] for key, weight in alone["weights"].items() if key in start]
    assert len(moved) >= 4 and all(float(each.abs().max()) > 1e-4 for each in moved)


def test_the_router_loss_of_experts_is_in_every_step(one_process):
    logs = one_process("router_full")["logs"]
    assert len({entry["router_loss"] for entry in logs}) == STEPS and min(entry["router_loss"] for entry in logs) > 1


def test_objectives_and_adapters_make_different_trajectories(one_process):
    losses = {name: one_process(name)["logs"][-1]["loss"] for name in RUNS}
    assert losses["in_parts_experts"] == pytest.approx(losses.pop(ROUTER), rel=1e-6)
    plain = [loss for name, loss in losses.items() if not name.endswith("_checkpointing")]
    # NPO's cached and frozen references are one and the same but for the bound of the cached one.
    assert len({round(loss, 4) for loss in plain}) == len(plain)
    assert 0 < one_process("npo_cached_full")["logs"][0]["bound_share"] < 1


# What is measured before the first step


def test_estimated_levels_are_those_of_one_process(folder, mode, one_process, subtests):
    names = [name for name in PROFILES if name in chosen(mode)]
    assert names
    for name in names:
        with subtests.test(name):
            run, alone = written(folder, mode, name)["measured"], one_process(name)["measured"]
            assert len(set(alone["bound"])) > 5
            assert run["bound"] == pytest.approx(alone["bound"], rel=1e-5)


def test_references_and_levels_are_those_of_one_process(folder, mode, one_process, subtests):
    names = [name for name in chosen(mode) if name.startswith("npo_cached")]
    assert len(names) == 2
    for name in names:
        with subtests.test(name):
            run, alone = written(folder, mode, name)["measured"], one_process(name)["measured"]
            assert len(set(alone["bound"])) > 5
            assert run["bound"] == pytest.approx(alone["bound"], rel=1e-5)
            assert run["retain_nll"] == pytest.approx(alone["retain_nll"], rel=1e-5)
            assert run["reference"].keys() == alone["reference"].keys() == {"forget"}
            torch.testing.assert_close(run["reference"]["forget"], alone["reference"]["forget"], rtol=1e-5, atol=1e-5)


def test_cached_references_have_the_keys_of_one_process(folder, mode, one_process):
    for name in ("npo_cached_full", "npo_cached_lora"):
        one_process(name)
    keys = {path.name for path in (folder / "alone" / "reference").iterdir()}
    assert len(keys) == 2  # with an adapter and without
    assert {path.name for path in (folder / mode / "reference").iterdir()} == keys


# Saving and resuming


@pytest.mark.parametrize("name", SAVED)
def test_what_is_saved_loads_in_one_process(folder, mode, one_process, name):
    saved = folder / mode / name
    tokens = torch.arange(10, 26).unsqueeze(0)
    base = AutoModelForCausalLM.from_pretrained(folder / "model")
    untrained = base(tokens).logits.detach()
    if "lora" in name:
        assert not list(saved.glob("model*")), "the adapter alone"
        assert all("lora_" in key for key in load_file(saved / "adapter_model.safetensors"))
        model = PeftModel.from_pretrained(base, saved)
    else:
        model = AutoModelForCausalLM.from_pretrained(saved)
    trained = model.state_dict()
    for key, weight in one_process(name)["weights"].items():
        torch.testing.assert_close(trained[key], weight, rtol=1e-4, atol=1e-5)
    expected = saved_alone(folder, name)(tokens).logits.detach()
    torch.testing.assert_close(model(tokens).logits, expected, rtol=1e-4, atol=1e-4)
    assert float((expected - untrained).abs().max()) > 0.1


@pytest.mark.parametrize("name", SAVED)
def test_what_is_pushed_is_what_is_saved(folder, mode, hub, name):
    weights = "adapter_model.safetensors" if "lora" in name else "model.safetensors"
    files = hub.files(f"tester/{mode}-{name.rpartition('_')[2]}")
    assert files[weights] == (folder / mode / name / weights).read_bytes()
    assert {"README.md", "results.json", "tokenizer.json"} < files.keys()
    assert not [path for path in files if path.endswith((".bin", ".pt"))]


def saved_alone(folder: Path, name: str) -> Any:
    if "lora" in name:
        return PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(folder / "model"), folder / "alone" / name
        )
    return AutoModelForCausalLM.from_pretrained(folder / "alone" / name)


@pytest.mark.parametrize("name", RESUMED)
@MORE
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(folder, mode, one_process, name):
    run, alone = written(folder, mode, name), one_process(name)
    assert len(run["resumed"]) == STEPS
    assert_one_trajectory(run["logs"], alone["logs"])
    assert_one_trajectory(run["resumed"], run["logs"])
    for key, weight in alone["weights"].items():
        torch.testing.assert_close(run["weights"][key], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["fsdp2"], indirect=True)
def test_checkpoints_of_shards_are_resumed_and_end_in_a_model(folder, mode, one_process):
    """Under SHARDED_STATE_DICT, where Trainer itself leaves a finished run's folder without weights."""
    run, alone, out = written(folder, mode, "resumed_shards"), one_process("resumed_lora"), folder / mode
    assert list((out / "resumed_shards").glob("checkpoint-2/pytorch_model_fsdp_0/*.distcp"))
    assert_one_trajectory(run["logs"], alone["logs"])
    assert_one_trajectory(run["resumed"], run["logs"])
    saved = load_file(out / "resumed_shards" / "adapter_model.safetensors")
    assert len(saved) >= 8
    for key, weight in saved.items():
        kept = alone["weights"][key.replace(".weight", ".default.weight")]
        torch.testing.assert_close(weight, kept, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", RESUMED)
@MORE
def test_a_resumed_run_measures_the_model_before_unlearning(folder, mode, name):
    """Without a cache to read, and with the same key: the checkpoint's weights are another model's."""
    run = written(folder, mode, name)
    first, again = run["measured"], run["measured_again"]
    assert again["bound"] == pytest.approx(first["bound"], rel=1e-5)
    assert again["retain_nll"] == pytest.approx(first["retain_nll"], rel=1e-5)
    torch.testing.assert_close(again["reference"]["forget"], first["reference"]["forget"], rtol=1e-5, atol=1e-5)
    keys = {path.name for path in (folder / mode / f"{name}_reference").iterdir()}
    assert len(keys) == 1 and keys <= {path.name for path in (folder / mode / "reference").iterdir()}
    assert abs(run["logs"][STEPS // 2]["forget_nll"] - run["logs"][0]["forget_nll"]) > 1e-2


# Evaluating


@pytest.mark.parametrize("name", EVALUATED)
@MORE
def test_evaluations_are_those_of_one_process(folder, mode, one_process, name):
    run, alone = written(folder, mode, name), one_process(name)
    assert {entry["step"] for entry in run["evaluations"]} == {STEPS // 2, STEPS}
    for one, other in zip(run["evaluations"], alone["evaluations"], strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
    figures = {name for entry in run["evaluations"] for name in entry}
    assert {"eval_retain_nll", "eval_forget_nll", "eval_custom_forget_nll", "eval_custom_forget_rouge"} <= figures
    assert run["metrics"].keys() == alone["metrics"].keys()
    for key, (value, n) in alone["metrics"].items():
        assert run["metrics"][key] == [pytest.approx(value, rel=1e-4, abs=1e-5), n], key
    assert run["answers"] == alone["answers"]
    assert len({answer for answers in alone["answers"].values() for answer in answers}) > 8
    assert_one_trajectory(run["logs"], alone["logs"])  # an evaluation leaves no trace in the training
    assert_one_trajectory(run["logs"], one_process(EVALUATED[name])["logs"])


# What ends a run


@pytest.mark.parametrize("name", BROKEN)
@MORE
def test_a_step_that_is_not_finite_on_one_rank_is_taken_by_none(folder, mode, name):
    run = written(folder, mode, name)
    reason = f"the {name.removeprefix('broken_')} was not finite at step 1"
    assert run["ranks"] == [(2, reason)] * 2
    first, second = run["weights"]
    start = load_file(folder / "model" / "model.safetensors")
    assert max(float((first[key] - weight).abs().max()) for key, weight in start.items()) > 1e-3
    assert all(torch.equal(weight, second[key]) for key, weight in first.items())
    checkpoint = folder / mode / name / "checkpoint-2"
    assert fault_of(checkpoint) is None
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["stateful_callbacks"]["StopRules"]["attributes"]["stop_reason"] == reason
    assert json.loads((folder / mode / name / "results.json").read_text(encoding="utf-8"))["stop_reason"] == reason


@MORE
def test_what_the_probe_refuses_is_refused_on_every_rank(folder, mode):
    first, second = written(folder, mode, "refused")["ranks"]
    assert first == second
    assert_four_parts(first, "logits that are not finite")
