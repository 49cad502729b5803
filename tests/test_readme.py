"""The code in README and docs runs as it stands, made pages are what their script writes, links lead somewhere."""

import re
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from transformers import DataCollatorForSeq2Seq

from fixtures.docs import docs_script
from hf_unlearn.data.tokenization import tokenize_rows
from hf_unlearn.lab import load_lab
from hf_unlearn.losses import ANCHOR_LOSSES, FORGET_LOSSES, RETAIN_LOSSES
from hf_unlearn.steps import STEP_WRAPPERS
from hf_unlearn.tasks import parse_task

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
}
LOSSES = PAGES["docs/reference/losses.md"]


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)


# Those of the walkthroughs need each other: they run as notebooks (tests/docs/test_notebooks.py).
PYTHON = {
    f"{name}-{number}": code
    for name, page in PAGES.items()
    if "/walkthroughs/" not in name
    for number, code in enumerate(blocks("python", page), 1)
}


@pytest.mark.parametrize("name", PYTHON)
def test_python_blocks_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(PYTHON[name], name, "exec"), {"__name__": "page"})


def test_the_pages_have_the_python_blocks_that_they_should():
    assert set(PYTHON) == {
        "README.md-1",
        *(f"docs/start.md-{number}" for number in (1, 2)),
        *(f"docs/evaluation.md-{number}" for number in (1, 2, 3, 4, 5, 6)),
        *(f"docs/plugins.md-{number}" for number in (1, 2)),
        "docs/attacks.md-1",
        "docs/compare.md-1",
        *(f"docs/edits.md-{number}" for number in (1, 2)),
        "docs/publishing.md-1",
        "docs/trainer.md-1",
        *(f"docs/unlearnable.md-{number}" for number in (1, 2)),
    }


@pytest.fixture(scope="module")
def lab_rows():
    lab = load_lab()
    tokenizer = lab.load_tokenizer()
    tokens = {
        name: tokenize_rows(lab.datasets[name], tokenizer, set_name=name, max_length=None)
        for name in ("forget", "retain")
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


def test_the_recipe_is_parsed_into_what_it_says(tmp_path):
    recipe, unseen = blocks("yaml", PAGES["docs/start.md"])
    parsed, levelled = (
        parse_task("custom", ["--config", str(_saved(tmp_path / name, text)), "--use_cpu"])
        for name, text in (("my_run.yaml", recipe), ("levels.yaml", yaml.safe_dump(yaml.safe_load(recipe + unseen))))
    )
    assert parsed.args.forget_loss == {"name": "npo", "beta": 0.05}
    assert (parsed.args.retain_loss, parsed.args.output_dir) == ("kl", "unlearned/my-run")
    assert (parsed.model.use_peft, parsed.model.lora_r) == (True, 16)
    assert (parsed.script.forget_dataset, parsed.script.retain_dataset) == ("forget.jsonl", "retain.jsonl")
    assert levelled.args.forget_loss == {"name": "unseen_level", "token_weight": 1.0}
    assert (levelled.args.levels, levelled.args.forget_nll_bound, levelled.args.anchor_loss) == ("ngram", None, "kl")
    assert (levelled.script.holdout_dataset, levelled.args.learning_rate) == ("holdout.jsonl", 1e-4)


def _saved(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_readme_is_short():
    assert len(README.encode()) < 9000


def test_the_made_pages_are_what_the_script_writes(tmp_path, capsys):
    script = docs_script("make_reference")
    for path, text in script.pages().items():
        assert path.read_text(encoding="utf-8") == text, "run python docs/make_reference.py"
    assert script.main(["--check"]) == 0
    stale = tmp_path / "stale.md"
    stale.write_text("as it was\n", encoding="utf-8")
    script.ROOT, script.pages = tmp_path, lambda: {stale: "as it is\n"}
    assert script.main(["--check"]) == 1 and stale.read_text(encoding="utf-8") == "as it was\n"
    assert script.main([]) == 0 and stale.read_text(encoding="utf-8") == "as it is\n"
    assert "stale.md: out of date" in capsys.readouterr().out


def test_the_tables_have_every_loss_and_wrapper_with_its_defaults():
    tables = (FORGET_LOSSES, RETAIN_LOSSES, ANCHOR_LOSSES, STEP_WRAPPERS)
    for part in (part for table in tables for part in table.values()):
        given = [(field.name, getattr(part(), field.name)) for field in fields(part) if field.name != "weight"]
        arguments = ", ".join(f"{name}={value!r}" for name, value in given)
        row = rf"^\| `{part.name}`[^|]*\| `{part.__name__}\({re.escape(arguments)}\)` \|"
        assert re.search(row, LOSSES, re.MULTILINE), part.__name__
        formula = part.formula.replace("|", r"\|")
        assert f"| {formula} |" in LOSSES, part.__name__


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout: nothing says which folders are ours")
def test_the_layout_names_every_folder():
    page = PAGES["docs/layout.md"]
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
    files = [Path(name) for name in listing if (ROOT / name).is_file()]
    folders = {path.parent for path in files if path.parts[0] == "hf_unlearn"}
    folders |= {Path(path.parts[0]) for path in files if len(path.parts) > 1 and not path.parts[0].startswith(".")}
    assert Path("hf_unlearn/losses") in folders and Path("docs") in folders
    assert [str(folder) for folder in sorted(folders) if f"[`{folder.as_posix()}/`]" not in page] == []


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files_and_headings(name):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGES[name]):
        file, _, heading = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings]
            assert heading in anchors, target
