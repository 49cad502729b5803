"""One recipe in three ways: an example under accelerate, the command under ZeRO-2, a plain script. One result."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fixtures.examples import environment
from fixtures.forked import run_python
from hf_unlearn.results.record import load_record
from hf_unlearn.tasks.arguments import RunArguments
from hf_unlearn.tasks.recipe_files import find_recipe, read_recipe

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
# Two of twenty epochs and 24 rows of 200 show the same; the script takes no arguments, so a copy has them written in.
SHORT = ["--num_train_epochs", "2", "--evaluated_rows", "24"]
SHORTER = {
    "num_train_epochs=20": "num_train_epochs=2",
    "min(200, ": "min(24, ",
    'in_scope=lab.datasets["paraphrase"]': 'in_scope=lab.datasets["paraphrase"].select(range(24))',
}
# What a user of a command can do nothing about, and bars that would write a line an update into a log.
NOISE = re.compile("FutureWarning|DeprecationWarning|Setting accelerator to CPU|Loading weights:|Tokenizing the .*%")
ONE_CPU = ["launch", "--cpu", "--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no"]

pytestmark = [pytest.mark.slow, pytest.mark.distributed]


def run(folder: Path, *command: str) -> Path:
    done = subprocess.run(
        command,
        cwd=folder.parent,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,  # DeepSpeed compiles its communication on the first run
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert [line for line in done.stdout.splitlines() if NOISE.search(line)] == []
    assert "after: answers to prompts\n" in done.stdout  # a line a phase, where there is no terminal
    return folder


def forked(folder: Path, *words: str) -> Path:
    """`python WORDS`, whose start is not what is compared."""
    done = run_python(*words, environment=environment(), folder=folder.parent, seconds=600, merged=True)
    assert done.returncode == 0, done.stdout[-5000:]
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("same")
    example, script = str(REPOSITORY / "examples" / "harmful.py"), root / "plain_script.py"
    script.write_text(shorter((REPOSITORY / "examples" / "plain_script.py").read_text(encoding="utf-8")))
    train = [sys.executable, "-m", "hf_unlearn.cli", "train", "--config", "harmful_lab", "--use_cpu", *SHORT]
    launched = [str(BIN / "accelerate"), *ONE_CPU, example, *SHORT]
    return {
        "example": run(root / "example", *launched, "--output_dir", "example"),
        "zero2": run(root / "zero2", *train, "--accelerate_config", "zero2", "--output_dir", "zero2"),
        "script": forked(root / "script", str(script), "script"),
    }


def shorter(text: str) -> str:
    """The plain script with fewer epochs and rows."""
    for written, instead in SHORTER.items():
        assert text.count(written) == 1
        text = text.replace(written, instead)
    return text


def test_the_script_has_the_recipes_numbers():
    """Those that the runs here shorten."""
    recipe = read_recipe(find_recipe("harmful_lab"))
    assert recipe["num_train_epochs"] == 20 and recipe.get("evaluated_rows", RunArguments().evaluated_rows) == 200


def test_each_ran_as_it_was_asked_to(runs):
    strategies = {name: load_record(folder).hardware["strategy"] for name, folder in runs.items()}
    assert strategies == {"example": "one process", "zero2": "ZeRO-2", "script": "one process"}
    assert {name: load_record(folder).steps for name, folder in runs.items()} == dict.fromkeys(runs, 30)


def test_the_example_and_the_script_give_one_adapter_bit_for_bit(runs):
    one, other = (load_file(runs[name] / "adapter_model.safetensors") for name in ("example", "script"))
    assert one.keys() == other.keys() and len(one) == 24
    assert all(one[name].equal(other[name]) for name in one)


@pytest.mark.parametrize(("way", "tolerance"), [("script", 0), ("zero2", 1e-3)])
def test_all_give_one_result(runs, way, tolerance):
    """ZeRO-2 keeps its own flat copy of the weights, so that sums differ in their last bits."""
    expected, found = load_record(runs["example"]), load_record(runs[way])
    assert len(expected.evaluations) == 3
    for model, result in expected.evaluations.items():
        other = found.evaluations[model]
        shown = [name for name in result.headline if name in result.metrics]
        assert len(shown) > 8 and result.rows == other.rows
        for name in shown:
            assert other[name].value == pytest.approx(result[name].value, rel=tolerance, abs=tolerance), name
    losses = [[entry["loss"] for entry in record.log if "loss" in entry] for record in (expected, found)]
    assert len(losses[0]) == 3 and losses[1] == pytest.approx(losses[0], rel=max(tolerance, 1e-9))
