"""`hf-unlearn plan`: what it prints, from flags and from recipes, and what it refuses. Not whether it is right."""

import json

import pytest

from fixtures.examples import assert_user_error
from hf_unlearn.cli import main
from hf_unlearn.planning import KNOWN_SHAPES

SMALL = ["--model_name_or_path", "opt-125m", "--max_length", "64", "--per_device_train_batch_size", "1"]


def planned(capsys, *arguments: str) -> dict:
    assert main(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments: str) -> str:
    assert main(["plan", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("hf-unlearn plan: ")
    assert_user_error(err)
    return err


def test_a_plan_as_text(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")  # the table in one piece
    assert main(["plan", *SMALL, "--num_gpus", "2"]) == 0
    out = capsys.readouterr().out
    assert "opt-125m: 12 blocks, hidden 768, vocabulary 50272, 0.13B parameters, all trained" in out
    assert "npo + nll, fp32 weights, adamw_torch_fused" in out
    assert "2 rows of 64 tokens a GPU and step; reference: precomputed" in out
    header, _, *rows = out.split("\n\n")[1].splitlines()
    assert header.split()[:4] == ["GiB", "per", "GPU", "fits"]
    assert [row.split()[0] for row in rows] == ["ddp", "zero1", "zero2", "zero3", "fsdp2", "zero3_offload"]
    for row in rows:
        total, *parts = [float(word) for word in row.split() if word.replace(".", "").isdigit()]
        assert row.split()[1] == "yes" and len(parts) == 6
        assert sum(parts) == pytest.approx(total, abs=0.35)
    assert "Cheapest that fits: ddp\n  hf-unlearn train --accelerate_config ddp --num_processes 2 ..." in out


def test_flags_reach_the_plan(capsys):
    full = planned(capsys, *SMALL)
    lora = planned(
        capsys,
        *SMALL,
        "--use_peft",
        "--lora_r",
        "8",
        "--lora_target_modules",
        "q_proj",
        "v_proj",
        "--retain_loss",
        "kl",
    )
    assert full["trained_parameters"] == full["parameters"] == 125_239_296
    assert lora["trained_parameters"] == 12 * 2 * 8 * 2 * 768
    assert lora["options"][0]["reference"] == "adapter + precomputed"
    assert full["cheapest"] == "none" and full["options"][0]["peak"] > lora["options"][0]["peak"]
    assert full["usable"] == pytest.approx(0.92 * 80 * 2**30, rel=1e-6)
    half = planned(capsys, *SMALL, "--gpu_memory=40", "--reserve", "0")
    assert half["usable"] == 40 * 2**30


def test_a_recipe_is_planned_by_its_name(capsys):
    found = planned(capsys, "--config", "harmful_opt1.3b", "--num_gpus", "8", "--accelerate_config", "zero2")
    assert (found["model"], found["rows"], found["length"]) == ("facebook/opt-1.3b", 2 + 2 + 10, 512)
    (option,) = found["options"]
    assert option["name"] == "zero2" and option["reference"] == "copy" and found["cheapest"] == "zero2"
    assert sum(option["parts"].values()) == option["peak"] == max(option["moments"].values())
    shorter = planned(capsys, "--config", "harmful_opt1.3b", "--max_length", "128")
    assert shorter["length"] == 128


def test_the_shapes_are_listed(capsys):
    assert main(["plan", "--list_shapes"]) == 0
    assert capsys.readouterr().out.split() == list(KNOWN_SHAPES)


def test_what_does_not_fit_is_told(capsys):
    assert main(["plan", *SMALL, "--gpu_memory", "0.5"]) == 0
    assert "Nothing fits." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--model_name_or_path"),
        (["--model_name_or_path", "llama-9b"], "llama-8b"),
        ([*SMALL, "--lora_rank", "8"], "lora_r"),
        ([*SMALL, "--forget_loss", "npoo"], "npo"),
        ([*SMALL, "--optim", "lomo"], "adamw_torch"),
        ([*SMALL, "--num_gpus", "0"], "num_gpus"),
        ([*SMALL, "--accelerate_config", "zero4"], "zero3"),
        ([*SMALL, "--max_length", "4096"], "2048"),
        (["--config", "harmful_lab"], "lab"),
    ],
)
def test_what_cannot_be_planned_is_refused(capsys, arguments, words):
    assert words in refused(capsys, *arguments)


def test_a_flag_of_its_own_that_is_misspelt_is_named(capsys):
    assert "did you mean 'num_gpus'" in refused(capsys, "--model_name_or_path", "opt-125m", "--num_gpu", "8")
