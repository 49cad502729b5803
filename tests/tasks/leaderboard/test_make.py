"""The runs of a board: which they are, gone on with after a kill, what is refused before any of them. No training."""

import json

import pytest

from fixtures.compared import run
from fixtures.examples import assert_four_parts
from hf_unlearn.cli import main
from hf_unlearn.tasks.leaderboard import BoardRequest, make
from hf_unlearn.tasks.leaderboard.make import command_of, make_leaderboard, plan_board

HARM = {"npo": 0.2, "simnpo": 0.1}


@pytest.fixture
def trained(monkeypatch):
    """What was trained; a run in `killed` ends the series as a kill does."""
    names, killed = [], set()

    def run_series(runs):
        for planned in runs:
            if planned.is_done():
                continue
            if planned.name in killed:
                raise KeyboardInterrupt
            names.append(planned.name)
            method, _, seed = planned.name.rpartition("-seed-")
            planned.mark(done=False)
            run(planned.folder.parent, method, int(seed), HARM[method], 0.9, 0.5)
            planned.mark(done=True)
        return [planned.folder for planned in runs]

    monkeypatch.setattr(make, "run_series", run_series)
    return names, killed


def request(folder, *methods, seeds=("0", "1")):
    return BoardRequest("harmful", methods, seeds, ["--output_dir", str(folder)])


def test_a_killed_board_goes_on_and_is_that_of_one_go(tmp_path, trained):
    names, killed = trained
    killed.add("simnpo-seed-0")
    with pytest.raises(KeyboardInterrupt):
        make_leaderboard(request(tmp_path / "a", "npo", "simnpo"))
    assert names == ["npo-seed-0", "npo-seed-1"] and not (tmp_path / "a" / "leaderboard.json").exists()
    killed.clear()
    _, written, whole = make_leaderboard(request(tmp_path / "a", "npo", "simnpo"))
    assert whole and names[2:] == ["simnpo-seed-0", "simnpo-seed-1"]
    make_leaderboard(request(tmp_path / "b", "npo", "simnpo"))
    boards = [json.loads((tmp_path / name / "leaderboard.json").read_text()) for name in "ab"]
    assert boards[0]["settings"] == boards[1]["settings"]
    assert [one["figures"] for one in boards[0]["runs"]] == [one["figures"] for one in boards[1]["runs"]]
    assert {path.name for path in written} == {f"leaderboard.{ending}" for ending in ("html", "md", "json")}


def test_the_command_line_makes_a_board(tmp_path, trained, capsys):
    words = ["--methods", "npo", "simnpo", "--seeds", "0", "1", "--output_dir", str(tmp_path / "board"), "--json"]
    assert main(["leaderboard", "harmful", *words]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in data["runs"]] == ["npo-seed-0", "npo-seed-1", "simnpo-seed-0", "simnpo-seed-1"]
    assert data["command"] == "hf-unlearn leaderboard harmful --methods npo simnpo --seeds 0 1 --output_dir board"


def test_a_dry_run_prints_the_runs(tmp_path, trained, capsys):
    words = ["--methods", "npo", "--seeds", "0", "1", "--output_dir", str(tmp_path / "board"), "--dry_run"]
    assert main(["leaderboard", "harmful", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].startswith("hf-unlearn train --task harmful --config methods/npo --seed 1")
    assert not trained[0] and not (tmp_path / "board").exists()


def test_tofu_is_measured_by_the_privacy_task(tmp_path):
    asked = BoardRequest("tofu", ["npo"], ["0"], ["--output_dir", str(tmp_path)])
    (planned,) = plan_board(asked)[1]
    assert planned.arguments[:2] == ("--task", "privacy")
    assert command_of(asked).startswith("hf-unlearn leaderboard tofu --methods npo --seeds 0")


def test_a_command_without_tokens():
    words = ["--output_dir", "out", "--hub_token", "hf_secret", "--limit", "50"]
    assert "hf_secret" not in command_of(BoardRequest("harmful", ["npo"], [], words))


@pytest.mark.parametrize(
    "words",
    [
        ["harmfull", "--methods", "npo"],
        ["harmful"],
        ["harmful", "--methods", "npo", "--import", "no_such_file.json"],
        ["--methods", "npo", "harmful"],
        [],
    ],
)
def test_wrong_arguments_are_refused_before_any_run(words, trained, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["leaderboard", *words]) == 2
    assert_four_parts(capsys.readouterr().err)
    assert not trained[0] and not any(tmp_path.iterdir())


def test_logs_of_others_go_beside(tmp_path, trained, capsys):
    log = tmp_path / "theirs" / "TOFU_SUMMARY.json"
    log.parent.mkdir()
    log.write_text(json.dumps({"forget_Q_A_ROUGE": 0.4, "model_utility": 0.6}))
    words = ["--methods", "npo", "--seeds", "0", "--import", str(log), "--output_dir", str(tmp_path / "board")]
    assert main(["leaderboard", "harmful", *words]) == 2  # figures of another suite
    assert_four_parts(capsys.readouterr().err)
    assert not trained[0]
    assert main(["leaderboard", "tofu", *words, "--dry_run"]) == 0
    assert "--import" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "nothing_of_this_name"], "--methods must be "),
        (["--methods", "npo", "--seeds", "one"], "--seeds must be "),
        (["--methods", "npo", "--no_such_flag", "1"], "no_such_flag"),
    ],
)
def test_what_a_series_refuses_is_refused_before_any_run(words, said, trained, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["leaderboard", "harmful", *words]) == 2
    assert said in capsys.readouterr().err
    assert not trained[0] and not any(tmp_path.iterdir())
