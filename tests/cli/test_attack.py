"""`hf-unlearn attack`: what it refuses before anything is loaded, and what its processes are started with."""

import pytest

from fixtures.examples import assert_user_error
from hf_unlearn.cli import main
from hf_unlearn.tasks import parse_task
from hf_unlearn.tasks.command_file import write_command
from hf_unlearn.training.launch import start


@pytest.fixture
def run(tmp_path):
    write_command("harmful", parse_task("harmful", ["--use_cpu", "--limit", "8"]), tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--attacks", "relern"], "did you mean 'relearn'"),
        (["--suite", "quik"], "did you mean 'quick'"),
        (["--attacks", '{"name": "relearn", "rtes": [1e-3]}'], "did you mean 'rates'"),
        (["--attacks", '{"name": "quantize", "kinds": ["int3"]}'], "int3"),
        (["--oracle", "nowhere/at/all"], "where there is no folder"),
        ([], "a run's folder with a model"),
    ],
)
def test_refused_before_anything_is_loaded(run, words, said, capsys):
    assert main(["attack", str(run), *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err
    assert_user_error(err.removeprefix("hf-unlearn attack: "))


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert main(["attack", str(tmp_path)]) == 2
    assert "command.json" in capsys.readouterr().err


def test_processes_are_started_with_the_attack_alone(monkeypatch):
    started = []
    monkeypatch.setattr(start, "launch_processes", lambda launch, words: started.append((launch, words)) or 0)
    monkeypatch.setattr(start, "has_accelerator", lambda: False)
    assert main(["attack", "RUN", "--num_processes", "2", "--attacks", "quantize", "--accelerate_config=ddp"]) == 0
    launch = {"num_processes": "2", "accelerate_config": "ddp"}
    assert started == [(launch, ["attack", "RUN", "--attacks", "quantize", "--use_cpu"])]
