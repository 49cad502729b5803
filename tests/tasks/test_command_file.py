"""The command that a run's folder keeps: read again as it was given, without secrets and without what was its own."""

import json
import stat

import pytest

from fixtures.examples import assert_four_parts
from hf_unlearn.tasks import parse_task
from hf_unlearn.tasks.command_file import COMMAND_FILE, located, read_command, stored_command, write_command

WORDS = ["--config", "methods/npo", "--use_cpu", "--limit", "7", "--learning_rate=3e-4", "--retain_weight", "2"]


def test_a_folder_gives_back_its_run(tmp_path):
    secret = ["--hub_token", "hf_secret", "--push_to_hub", "true", "--output_dir", "elsewhere", "--attack", "quick"]
    parsed = parse_task("harmful", [*WORDS, *secret])
    write_command("harmful", parsed, tmp_path)
    file = tmp_path / COMMAND_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "secret" not in file.read_text() and "elsewhere" not in file.read_text()
    task, again = read_command(tmp_path)
    assert task == "harmful" and again.args.output_dir == str(tmp_path)
    assert again.script.limit == 7 and again.script.attack is None
    assert again.args.learning_rate == 3e-4 and again.args.retain_weight == 2.0
    assert again.args.forget_loss == parsed.args.forget_loss and again.model.lora_r == parsed.model.lora_r
    assert again.args.hub_token is None and not again.args.push_to_hub


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"format": 1, "task": "harmful", "recipe": {}}'])
def test_a_folder_without_a_command_and_an_edited_one(tmp_path, text):
    with pytest.raises(ValueError) as error:
        read_command(tmp_path)
    assert_four_parts(str(error.value), "command.json", "hf-unlearn train")
    (tmp_path / COMMAND_FILE).write_text(text)
    with pytest.raises(ValueError) as error:
        read_command(tmp_path)
    assert_four_parts(str(error.value), "command.json")


def test_words_that_are_no_arguments_any_more(tmp_path):
    stored = {"format": 1, "task": "harmful", "recipe": {}, "words": ["--learning_rte", "1"]}
    (tmp_path / COMMAND_FILE).write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="did you mean 'learning_rate'"):
        read_command(tmp_path)


def test_the_file_of_a_plugin_is_found_from_other_places(tmp_path, monkeypatch):
    """Given on the command line or in a recipe; the name of a module stays, whatever lies beside it."""
    (tmp_path / "my_own.py").write_text("from hf_unlearn.plugins import Plugin\nHF_UNLEARN = Plugin()\n")
    (tmp_path / "json").mkdir()
    (tmp_path / "own.yaml").write_text("task: harmful\nplugins: [my_own.py]\n")
    monkeypatch.chdir(tmp_path)
    for words in (["--config", "own.yaml"], ["--config", "methods/npo", "--plugins", "my_own.py"]):
        write_command("harmful", parse_task("harmful", ["--use_cpu", *words]), tmp_path)
        monkeypatch.chdir(tmp_path.parent)
        stored = stored_command(tmp_path)
        assert stored["plugins"] == [str(tmp_path / "my_own.py")]
        assert read_command(tmp_path)[1].args.plugins == stored["plugins"]
        monkeypatch.chdir(tmp_path)
    assert located("plugins", ["json"]) == ["json"]
