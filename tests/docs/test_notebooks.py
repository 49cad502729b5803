"""The walkthroughs: notebooks are made from the pages, and run as they stand in kernels of their own, shorter."""

import json
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from fixtures.docs import docs_script
from fixtures.notebook_kernel import STATUSES
from hf_unlearn.lab import load_lab
from hf_unlearn.results.record import load_record

pytestmark = pytest.mark.slow

FEW = ["--max_steps", "6", "--evaluated_rows", "16", "--max_new_tokens", "12", "--use_cpu"]
SHORTER = {
    "train": FEW,
    "attack": ["--attacks", "quantize", "remove_adapter", "--rows", "40", "--use_cpu"],
}


def test_the_notebooks_are_what_the_script_writes(tmp_path, capsys):
    script = docs_script("make_notebooks")
    assert script.main(["--check"]) == 0, "run python docs/make_notebooks.py"
    script.NOTEBOOKS = tmp_path / "notebooks"
    assert script.main(["--check"]) == 1 and script.main([]) == 0 and script.main(["--check"]) == 0
    assert capsys.readouterr().out.count("out of date") == 3
    for path in script.NOTEBOOKS.iterdir():
        nbformat.validate(nbformat.read(path, as_version=4))


PAGES = docs_script("make_notebooks").PAGES


def executed(name: str, folder: Path, monkeypatch) -> tuple[str, list[tuple[str, int]]]:
    """What a notebook prints when it is run in a folder, and each of its commands with its exit status."""
    load_lab()  # built once, in the tests' cache, before a kernel waits for it
    notebook = nbformat.reads(json.dumps(docs_script("make_notebooks").notebook(*PAGES[name])), as_version=4)
    told = f"from fixtures.notebook_kernel import run_commands_here\nrun_commands_here(get_ipython(), {SHORTER!r})"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(told))
    # The kernel imports what the tests import, whatever the folder.
    roots = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(roots))
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):  # not those of who runs the tests
        monkeypatch.setenv(name, str(folder / ".jupyter"))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    )
    lines = (folder / STATUSES).read_text(encoding="utf-8").splitlines()
    return printed, [tuple(json.loads(line)) for line in lines]


def test_harmful_behaviour(tmp_path, monkeypatch):
    printed, statuses = executed("harmful", tmp_path, monkeypatch)
    assert statuses == [
        ("train", 0), ("train", 0), ("attack", 0), ("report", 0), ("gate", 1), ("gate", 1), ("push", 0),
    ]  # fmt: skip
    assert all(question in printed for question in ("Removed?", "Rest intact?", "Stays gone?"))
    assert (tmp_path / "report.html").is_file() and load_record(tmp_path / "unlearned/harmful-lab").attack_report
    assert "before" in printed and "oracle" in printed


def test_an_own_loss_and_metric(tmp_path, monkeypatch):
    printed, statuses = executed("own_loss", tmp_path, monkeypatch)
    assert statuses == [("train", 0), ("train", 0), ("compare", 0)] and (tmp_path / "comparison.html").is_file()
    assert (
        "[1.0, 0.0] [0.25, 0.25, 0.0]" in printed
    )  # (margin - nll) / 2 rows: a quarter for each of the first row's tokens
    for loss in ("hinge_ascent", "npo"):
        record = load_record(tmp_path / "unlearned" / loss)
        assert record.objective.terms[0].name == loss and "answer_words" in record.evaluations["after"].metrics
