"""The README's code runs as it stands, and its tables and tree say what is there."""

import re
from pathlib import Path

import pytest
from transformers import DataCollatorForSeq2Seq

from hf_unlearn.data.tokenization import tokenize_rows
from hf_unlearn.lab import load_lab
from hf_unlearn.losses import FORGET_LOSSES, RETAIN_LOSSES
from hf_unlearn.steps import STEP_WRAPPERS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EVALUATION = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"), ids=["five lines", "composition", "wrappers", "measuring"])
def test_python_blocks_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("code", blocks("python", EVALUATION), ids=["evaluate", "callback", "metric", "scope"])
def test_python_blocks_of_the_evaluation_page_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "evaluation.md", "exec"), {"__name__": "evaluation"})


@pytest.fixture(scope="module")
def lab_rows():
    lab = load_lab()
    tokenizer = lab.load_tokenizer()
    tokens = {
        name: tokenize_rows(lab.datasets[name], tokenizer, role=name, max_length=None) for name in ("forget", "retain")
    }
    return lab, tokenizer, {name: rows.select(range(32)) for name, rows in tokens.items()}


@pytest.mark.parametrize("side", ["-", "+"], ids=["before", "after"])
def test_both_sides_of_the_drop_in_diff_run(side, lab_rows, tmp_path, monkeypatch):
    """The script as it was with plain Trainer, and the same script after the change that the diff shows."""
    monkeypatch.chdir(tmp_path)
    lab, tokenizer, sets = lab_rows
    (diff,) = blocks("diff")
    other = "+" if side == "-" else "-"
    lines = [line[1:] for line in diff.splitlines() if not line.startswith(other)]
    before = {name: p.clone() for name, p in lab.load_model().named_parameters()}
    script = {
        "model": lab.load_model(),
        "tokenizer": tokenizer,
        "rows": sets["retain"],
        "forget": sets["forget"],
        "DataCollatorForSeq2Seq": DataCollatorForSeq2Seq,
    }
    exec(compile("\n".join(lines), "README.md", "exec"), script)
    moved = [name for name, p in script["trainer"].model.named_parameters() if not p.cpu().equal(before[name])]
    assert len(moved) == len(before)
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_the_drop_in_diff_changes_three_things():
    (diff,) = blocks("diff")
    removed = [line[1:].strip() for line in diff.splitlines() if line.startswith("-")]
    assert [line.split("(")[0].split("=")[0] for line in removed] == [
        "from transformers import Trainer, TrainingArguments",
        "trainer ",
        "args",
        "train_dataset",
    ]


def test_the_tables_have_every_loss_and_wrapper_with_its_defaults():
    for part in (*FORGET_LOSSES.values(), *RETAIN_LOSSES.values(), *STEP_WRAPPERS.values()):
        arguments = ", ".join(f"{field}={value!r}" for field, value in vars(part()).items() if field != "weight")
        row = rf"^\| `{part.name}`[^|]*\| `{part.__name__}\({re.escape(arguments)}\)` \|"
        assert re.search(row, README, re.MULTILINE), part.__name__
        formula = part.formula.replace("|", r"\|")
        assert f"| {formula} |" in README, part.__name__


def test_the_tree_names_every_module():
    tree = README.split("## The package")[1]
    package = ROOT / "hf_unlearn"
    folders = (package / name for name in ("data", "evaluation", "metrics", "optimizers", "steps"))
    for path in [*package.glob("*.py"), *(path for folder in folders for path in folder.glob("*.py"))]:
        assert path.name == "__init__.py" or path.name in tree, path.name
