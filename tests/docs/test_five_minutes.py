"""The page docs/five_minutes.md: its commands on rows of one's own run as they stand, shorter."""

import re
import shlex

from fixtures.docs import DOCS
from hf_unlearn.cli import main
from hf_unlearn.lab import load_lab
from hf_unlearn.results.record import load_record

PAGE = (DOCS / "five_minutes.md").read_text(encoding="utf-8")
SHORTER = {
    "train": ["--max_steps", "4", "--evaluated_rows", "16", "--max_new_tokens", "12", "--use_cpu"],
    "report": [],
}


def test_own_rows_in_three_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lab = load_lab()
    for part in (lab.load_model(), lab.load_tokenizer()):
        part.save_pretrained("my-model")
    for name in ("forget", "retain"):
        lab.datasets[name].select(range(24)).to_json(f"{name}.jsonl")
    (block,) = (block for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) if "hf-unlearn" in block)
    install, *commands = block.replace("\\\n", " ").splitlines()
    assert install == "pip install ." and len(commands) == 2
    for line in commands:
        words = shlex.split(line)[1:]
        assert main([*words, *SHORTER[words[0]]]) == 0, line
    record = load_record("unlearned/mine")
    assert record.objective.terms[0].name == "npo" and (tmp_path / "unlearned/mine/adapter_config.json").is_file()
    assert (tmp_path / "report.html").is_file()


def test_its_table_is_a_part_of_the_whole_one():
    whole = (DOCS / "start.md").read_text(encoding="utf-8").splitlines()
    lines = re.search(r"```text\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()
    assert len(lines) == 12 and [line for line in lines if line not in whole] == []
