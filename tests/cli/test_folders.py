"""`hf-unlearn report`, `card` and `push` on a run's folder: what they write and print, also as JSON. No Hub."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fixtures.attack_reports import held
from fixtures.examples import REPOSITORY, assert_four_parts, environment
from fixtures.report import record, save_run
from hf_unlearn.cli import main
from hf_unlearn.results.answers_table import answers_table
from hf_unlearn.results.model_card import render_card
from hf_unlearn.results.record import load_record
from hf_unlearn.results.report import verdict


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run as it lies in a folder: record, evaluations, and weights that are one number."""
    made = save_run(tmp_path / "npo-lora", record())
    save_file({"weight": torch.zeros(1)}, made / "model.safetensors")
    (made / "config.json").write_text('{"model_type": "opt"}')
    (made / "trainer_state.json").write_text("{}")
    return made


def as_json(capsys, *arguments: str) -> dict:
    """What a command prints with --json."""
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


# report


def test_the_report_of_a_run_lies_in_its_folder(capsys, folder):
    assert main(["report", str(folder)]) == 0
    said = verdict(load_record(folder))
    assert capsys.readouterr().out == f"{answers_table(said.answers)}\n\nReport: {folder / 'report.html'}\n"
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")
    found = as_json(capsys, "report", str(folder))
    assert found["report"] == str(folder / "report.html")
    answers = [dataclasses.asdict(answer) for answer in said.answers]
    assert found["runs"] == {str(folder): {"level": said.level, "sentence": said.sentence, "answers": answers}}


def test_several_runs_stand_on_one_page(capsys, folder, tmp_path, monkeypatch):
    other = save_run(tmp_path / "second", record("second"))
    monkeypatch.chdir(tmp_path)
    assert as_json(capsys, "report", str(folder), str(other))["report"] == "report.html"
    assert "second" in (tmp_path / "report.html").read_text(encoding="utf-8")
    found = as_json(capsys, "report", str(folder), str(other), "-o", str(tmp_path / "page.html"))
    assert found["report"] == str(tmp_path / "page.html") and (tmp_path / "page.html").is_file()
    assert list(found["runs"]) == [str(folder), str(other)]
    assert main(["report", str(folder), str(other)]) == 0
    out = capsys.readouterr().out.replace("\n", "")  # a long path is wrapped
    first, second = out.index(str(folder)), out.index(str(other))
    assert first < out.index("Removed?") < second < out.rindex("Removed?")  # a table each


# card


def test_the_card_is_rendered_again(capsys, folder):
    card = folder / "README.md"
    assert as_json(capsys, "card", str(folder)) == {"card": str(card)}
    assert card.read_text(encoding="utf-8") == render_card(load_record(folder), plots={})
    card.write_text("changed by hand")
    assert main(["card", str(folder / "results.json")]) == 0
    assert capsys.readouterr().out == f"Card: {card}\n"
    assert card.read_text(encoding="utf-8") == render_card(load_record(folder), plots={})


def test_what_only_the_user_knows_stays_in_the_record(capsys, folder, tmp_path):
    known = ["--license", "apache-2.0", "--language", "en", "de", "--model_name", "A title", "--tags", "mine"]
    output = tmp_path / "card.md"
    elsewhere = [*known, "--datasets", "org/rows", "--repo_id", "me/model"]
    before = (folder / "results.json").read_bytes()
    as_json(capsys, "card", str(folder), *elsewhere, "-o", str(output))
    assert (folder / "results.json").read_bytes() == before  # a card elsewhere changes nothing here
    as_json(capsys, "card", str(folder), *elsewhere)
    text = output.read_text(encoding="utf-8")
    assert "license: apache-2.0" in text and "# A title" in text and "org/rows" in text and "me/model" in text
    kept = load_record(folder).metadata
    assert (kept.license, kept.language, kept.model_name) == ("apache-2.0", ["en", "de"], "A title")
    assert (kept.tags, kept.datasets) == (["mine"], ["org/rows"])
    as_json(capsys, "card", str(folder))
    assert "license: apache-2.0" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("flag", ["--repo_id", "--datasets"])
def test_what_cannot_be_a_repository_is_refused_before_anything_is_written(capsys, folder, flag):
    before = (folder / "results.json").read_bytes()
    assert main(["card", str(folder), "--license", "mit", flag, "not a/repo/sitory"]) == 2
    assert_four_parts(capsys.readouterr().err, flag.strip("-"), "'not a/repo/sitory'")
    assert (folder / "results.json").read_bytes() == before and not (folder / "README.md").exists()


# push


def test_a_dry_run_lists_what_would_go_and_what_would_stay(capsys, folder):
    held().save(folder)  # with the leaks of single rows
    assert main(["push", str(folder), "me/model", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Would push to me/model:\n") and said.endswith(
        "would be private, as not all of its model and sets are known to be public.\n"
    )
    found = as_json(capsys, "push", str(folder), "me/model", "--dry-run")
    going = {"README.md", "config.json", "model.safetensors", "results.json"}
    assert set(found["files"]) == going and all(size > 0 for size in found["files"].values())
    assert found["files"]["model.safetensors"] == (folder / "model.safetensors").stat().st_size
    staying = [f"evaluation_{name}.json" for name in ("after", "before", "oracle")]
    assert (found["repo_id"], found["kept"], found["public"]) == (
        "me/model",
        ["attacks.json", *staying, "trainer_state.json"],
        False,
    )
    head, tail = said.split("Would stay here:")
    assert all(name in head and name not in tail for name in going)
    assert all(name in tail and name not in head for name in found["kept"])


@pytest.mark.parametrize(("flag", "word"), [("--private", "private"), ("--public", "public")])
def test_a_dry_run_says_who_would_see_it(capsys, folder, flag, word):
    assert main(["push", str(folder), "me/model", "--dry-run", flag]) == 0
    assert capsys.readouterr().out.endswith(f"A new repository would be {word}.\n")


def test_a_push_offline_is_status_1(capsys, folder):
    assert main(["push", str(folder), "me/model"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("hf-unlearn push: ") and "Traceback" not in err


# gate


def test_a_gate_ends_with_its_decision(capsys, folder):
    assert main(["gate", str(folder)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("Refused by the policy standard: adapter, merged, quantized, api_logprobs, api_text.\n")
    assert "- the model was not attacked: run hf-unlearn attack on the run's folder" in out
    save_run(folder, record(attack_report=held(), log=[]))
    assert main(["gate", str(folder), "--ways", "merged", "api_text"]) == 0
    assert capsys.readouterr().out.startswith("Released by the policy standard: merged, api_text.\n")
    found = as_json(capsys, "gate", str(folder), "--ways", "api_text")
    assert found["released"] is True and [way["way"] for way in found["ways"]] == ["api_text"]
    assert [answer["name"] for answer in found["answers"]] == ["removed", "rest", "stays_gone"]
    assert main(["gate", str(folder), "--policy", "standart"]) == 2
    assert "did you mean 'standard'?" in capsys.readouterr().err


# All of them


@pytest.mark.parametrize(
    "arguments",
    [["report", "{}"], ["card", "{}"], ["push", "{}", "me/model", "--dry-run"], ["gate", "{}"]],
    ids=lambda words: words[0],
)
def test_a_folder_without_a_run_is_refused(capsys, tmp_path, arguments):
    """None at all, an empty one, and one whose record is of another kind."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "old").mkdir()
    (tmp_path / "old/results.json").write_text('{"figures": {}, "rows": {}}')
    for name in ("nowhere", "empty", "old"):
        assert main([word.format(tmp_path / name) for word in arguments]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"hf-unlearn {arguments[0]}: ")
        assert_four_parts(err, "results.json")
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["results.json"]


ONE_AFTER_ANOTHER = """
import json, sys
from hf_unlearn.cli import main
sys.exit(any([main(line) for line in json.loads(sys.argv[1])]))
"""


@pytest.mark.slow
def test_json_alone_comes_out_of_a_process_of_its_own(folder, tmp_path):
    """Libraries say what they have to say elsewhere."""
    few = ["--evaluated_rows", "4", "--use_cpu", "--output_dir", str(tmp_path / "out"), "--name", "before"]
    commands = [
        ["methods"],
        ["lab"],
        ["report", str(folder)],
        ["card", str(folder)],
        ["push", str(folder), "me/model", "--dry-run"],
        ["evaluate", "--config", "harmful_lab", *few],
    ]
    lines = [[*command, "--json"] for command in commands]
    done = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_ANOTHER, json.dumps(lines)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = done.stdout
    for command in commands:
        value, end = json.JSONDecoder().raw_decode(said)
        assert value, command
        said = said[end:].removeprefix("\n")
    assert said == ""
    assert REPOSITORY not in [tmp_path, *tmp_path.parents]
