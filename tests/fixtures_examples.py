"""Starting the examples as a user does, and reading what they leave behind, shared by tests. No test lives here."""

import importlib.util
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

from hf_unlearn.evaluation import load_result
from hf_unlearn.lab import Lab

REPOSITORY = Path(__file__).resolve().parent.parent
EXAMPLES = REPOSITORY / "examples"
SECONDS = 120  # for a run, most of it imports
CANARY = "xyzzyquux"  # in every forget row of files that a test makes
MODELS = ("before", "after", "oracle")  # in the order of tables
PARTS = ("Expected ", "Got: ", "Why it matters: ", "What to do: ")


# Data of one's own


def save_model(lab: Lab, folder: Path) -> None:
    """The lab's model before unlearning and its tokenizer, as a folder that knows nothing of the lab."""
    lab.load_model().save_pretrained(folder)
    lab.load_tokenizer().save_pretrained(folder)


def save_tofu(lab: Lab, folder: Path, forget: str, retain: str, mark: str = "") -> None:
    """The lab's people as files that are named as TOFU's; `mark` ends every text about those to be forgotten."""
    perturbed = ("retain_perturbed", "real_authors_perturbed", "world_facts_perturbed")
    names = {forget: "forget", retain: "retain", f"{forget}_perturbed": "forget_perturbed"}
    folder.mkdir(parents=True)
    for name, own in (names | dict(zip(perturbed, perturbed, strict=True))).items():
        rows = [_as_tofu(row, mark if own.startswith("forget") else "") for row in lab.datasets[own]]
        (folder / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _as_tofu(row: dict[str, str | list[str]], mark: str) -> dict[str, str | list[str]]:
    names = {"prompt": "question", "completion": "answer"}

    def marked(text: str) -> str:
        return f"{text} {mark}".strip()

    return {
        names.get(name, name): marked(text) if isinstance(text, str) else [marked(each) for each in text]
        for name, text in row.items()
    }


# As a process of its own


def command(script: str, folder: Path, *arguments: str, processes: int = 1) -> list[str]:
    """How a script is started that writes to a folder; of two equal flags the last one counts."""
    launcher = []
    if processes > 1:
        rendezvous = ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), *rendezvous]
    always = ["--use_cpu", "--output_dir", str(folder), "--evaluated_rows", "16", "--logging_steps", "1"]
    return [sys.executable, *launcher, str(EXAMPLES / f"{script}.py"), *always, *arguments]


def environment() -> dict[str, str]:
    # accelerate's own switches would change the run; the package need not be installed.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    return kept | {"PYTHONPATH": str(REPOSITORY)}


def run(script: str, folder: Path, *arguments: str, processes: int = 1) -> str:
    """Run a script to its end; what it printed, errors and progress bars included."""
    folder.parent.mkdir(exist_ok=True)
    done = subprocess.run(
        command(script, folder, *arguments, processes=processes),
        env=environment(),
        cwd=folder.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def kill_once(reached: Callable[[], bool], script: str, folder: Path, *arguments: str) -> None:
    """Start a script and kill it as soon as it has reached a point; fails where it ends before."""
    log = folder.with_suffix(".log")
    with open(log, "wb") as file:
        process = subprocess.Popen(
            command(script, folder, *arguments),
            env=environment(),
            cwd=folder.parent,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + SECONDS
            while not reached():
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-6000:]
                time.sleep(0.005)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == -signal.SIGKILL


# What it leaves behind


def results(folder: Path) -> dict:
    """The content of results.json."""
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def figures(found: dict) -> dict[str, dict[str, float]]:
    """The metrics of a results.json as plain numbers, by model, in the order of the printed table."""
    evaluations = found["evaluations"]
    assert evaluations.keys() <= set(MODELS)
    columns = {name: evaluations[name]["metrics"] for name in MODELS if name in evaluations}
    return {name: {metric: each["value"] for metric, each in column.items()} for name, column in columns.items()}


def rows_evaluated(found: dict) -> dict[str, int]:
    """How many rows of each set the models of a results.json were measured on, the same for all of them."""
    first, *others = [
        {name: rows["count"] for name, rows in each["rows"].items()} for each in found["evaluations"].values()
    ]
    assert all(each == first for each in others)
    return first


def rows_of(found: dict) -> dict[str, int]:
    """How many rows each training set of a results.json has."""
    return {name: rows["rows"] for name, rows in found["sets"].items()}


def written(folder: Path) -> str:
    """Every byte of every file of a run, weights included, the tokenizer's vocabulary aside.

    The plots are among them as SVG, whose text would stand there as it is.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "tokenizer.json"]
    assert {"results.json", "trainer_state.json", "README.md"} <= {path.name for path in files}
    plots = {path.suffix for path in files if path.parent == folder / "plots"}
    assert plots == {".png", ".svg", ".txt"}  # the last one is the mark of the run that they show
    return b"\n".join(path.read_bytes() for path in files).decode(errors="replace")


def row_of_table(printed: str, label: str) -> list[str]:
    """The cells of a row of the printed table, intervals in brackets left out."""
    (line,) = [line for line in printed.splitlines() if line.startswith(f"{label}  ")]
    return [cell for cell in line.removeprefix(label).split() if cell[0] != "[" and cell[-1] != "]"]


def assert_table_shows(printed: str, found: dict, label: str, metric: str) -> None:
    """The table has a metric of every column as results.json has it, to the digits that it shows."""
    cells = row_of_table(printed, label)
    values = [column.get(metric) for column in figures(found).values()]
    assert len(cells) == len(values) and any(figure is not None for figure in values)
    for cell, figure in zip(cells, values, strict=True):
        assert (cell == "-") is (figure is None)
        assert figure is None or float(cell) == pytest.approx(figure, rel=0.01, abs=1e-3)


def assert_absent(texts: Iterable[str], out: str) -> None:
    """None of the texts, each long enough to be told from chance, is in what a run wrote and printed."""
    texts = set(texts)
    assert len(texts) > 20 and "forget_nll" in out
    for text in texts:
        # What JSON or repr would escape would not be found as it stands.
        assert len(text) > 12 and text.isascii() and text.isprintable()
        assert text not in out


# Inside of the test's own process, up to the trainer


def load_script(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Start an example, as `python examples/NAME.py ARGUMENTS` does, in this process."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def refused(name: str, monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> str:
    """The text of the error that an example ends with before there is a trainer, and before anything is written."""

    def trainer(**arguments: object) -> NoReturn:
        pytest.fail("it went on")

    monkeypatch.chdir(folder)
    monkeypatch.setattr("hf_unlearn.tasks.run.UnlearningTrainer", trainer)
    monkeypatch.setattr("hf_unlearn.tasks.fitting.SFTTrainer", trainer)  # of the fit
    with pytest.raises(ValueError) as error:
        start(name, monkeypatch, "--use_cpu", *arguments)
    assert list(folder.glob("unlearned")) == []
    return str(error.value)


def assert_four_parts(text: str, *words: str) -> None:
    """A user error says what was expected, what came, why it matters and what to do, with these words in it."""
    for part in (*PARTS, *words):
        assert part in text


def assert_whole(folder: Path, suite: str, expected: set[str], compared: set[str], of_a_mean: str, rows: int) -> dict:
    """What results.json has, once it is known to have every figure of the three models, as their evaluations do."""
    found = results(folder)
    columns = figures(found)
    assert list(columns) == list(MODELS)
    assert all(set(column) >= expected for column in columns.values())
    assert all(set(columns[name]) >= compared for name in ("before", "after"))
    assert not compared & set(columns["oracle"])
    for name, column in columns.items():
        stored = load_result(folder / f"evaluation_{name}.json")
        assert stored.suite == suite and stored.values() == column
        assert stored[of_a_mean].n == rows and stored[of_a_mean].low is not None
        # The record has all of it but the scores of single rows.
        whole = json.loads((folder / f"evaluation_{name}.json").read_text(encoding="utf-8"))
        assert found["evaluations"][name] == whole | {"row_scores": {}} and stored.row_scores
    assert set(found["cost"]) == {"seconds", "peak_memory_mb"}
    return found
