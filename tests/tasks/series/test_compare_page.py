"""The page docs/compare.md: its commands run as they stand, its own loss for real, with runs that are short."""

import json
import os
import re
import shlex
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from fixtures.compared import run as made_run
from fixtures.examples import SECONDS, environment
from fixtures.forked import Forked
from fixtures.plugins import forget_plugin
from hf_unlearn.cli import main
from hf_unlearn.results.record import load_record
from hf_unlearn.tasks.series import processes

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "compare.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]
OWN = next(words for words in COMMANDS if "--plugins" in words)
# The real thing in seconds.
SHORT = ["--max_steps", "2", "--limit", "24", "--evaluated_rows", "8", "--max_new_tokens", "4", "--use_cpu"]


@pytest.fixture(autouse=True)
def without_the_plugin_afterwards():
    yield
    forget_plugin("my_loss")


def test_the_commands_of_the_page(tmp_path, monkeypatch):
    """Training is left out: what a run leaves behind is made up."""

    class Process:
        def __init__(self, words):
            folder = Path(words[words.index("--output_dir") + 1])
            method, _, seed = folder.name.partition("-seed-")
            made_run(folder.parent, method, int(seed), 0.2, 0.9, 0.5)

        def wait(self):
            return 0

    monkeypatch.setattr(processes, "subprocess", SimpleNamespace(Popen=Process))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_loss.py").write_text(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0], encoding="utf-8")
    assert len(COMMANDS) == 7
    for words in COMMANDS:
        given = words[1 : words.index(">")] if ">" in words else words[1:]
        assert words[0] == "hf-unlearn" and main(given) == 0, words
    runs = {path.name for path in (tmp_path / "unlearned" / "mine").iterdir()}
    assert runs == {f"{name}-seed-{seed}" for name in ("npo", "my_loss") for seed in (0, 1, 2)} | {"comparison"}
    assert (tmp_path / "page.html").is_file() and (tmp_path / "unlearned/two/comparison/plane.png").is_file()


def test_a_loss_of_ones_own_is_trained_killed_gone_on_with_and_compared(tmp_path, monkeypatch, capfd):
    """A run is killed while it is being done; the same command goes on, and keeps what a rerun needs."""
    started = []

    class Process(Forked):
        def __init__(self, words):
            started.append(Path(words[words.index("--output_dir") + 1]).name)
            with open(tmp_path / "log", "ab") as log:
                super().__init__(words[1:], environment=environment(), folder=tmp_path, output=log)

        def wait(self, seconds=SECONDS):
            if len(started) == 1:
                os.kill(self.pid, signal.SIGKILL)
            return super().wait(seconds)

    monkeypatch.setattr(processes, "subprocess", SimpleNamespace(Popen=Process))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_loss.py").write_text(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0], encoding="utf-8")
    words = [word for word in OWN[1:] if word not in ("npo", "0", "2")]
    assert main([*words, *SHORT]) == 1
    assert "1 of 1 runs failed: my_loss-seed-1 (exit status 137)" in capfd.readouterr().err
    assert main([*words, *SHORT]) == 0, (tmp_path / "log").read_text()[-4000:]
    assert started == ["my_loss-seed-1"] * 2
    output = tmp_path / "unlearned" / "mine"
    record = load_record(output / "my_loss-seed-1")
    assert record.seed == 1 and record.methods == ["my_loss"]
    assert record.recipe is None  # nobody else has the file
    stored = json.loads((output / "my_loss-seed-1" / "command.json").read_text())
    assert stored["plugins"] == [os.fspath(tmp_path / "my_loss.py")]
    (method,) = json.loads((output / "comparison" / "comparison.json").read_text())["settings"][0]["methods"]
    assert (method["label"], len(method["runs"])) == ("my_loss", 1)
