"""Rows of a board measured again: what holds, other weights, figures and versions. Nothing is measured here."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from fixtures.compared import run
from fixtures.examples import assert_four_parts
from hf_unlearn.cli import main
from hf_unlearn.metrics import MetricResult
from hf_unlearn.model.weight_files import weight_file_hashes
from hf_unlearn.results.leaderboard import make_board, write_board
from hf_unlearn.results.record import load_record
from hf_unlearn.tasks.leaderboard import verify, verify_board

DEVICE = "a device"


@pytest.fixture
def board(tmp_path, monkeypatch):
    """A board of two runs with weights; what is "measured" is what the records have."""
    folders = [run(tmp_path, "npo", seed, 0.2, 0.9, 0.5) for seed in range(2)]
    for seed, folder in enumerate(folders):
        save_file({"weight": torch.full((2,), float(seed))}, folder / "model.safetensors")
    made = make_board(folders, "hf-unlearn leaderboard harmful --methods npo")
    made = replace(made, runs=[_with_weights(one, tmp_path) for one in made.runs])
    write_board(made, tmp_path)
    monkeypatch.setattr(verify, "_measured", lambda folder, files, more: (_after(folder), DEVICE))
    return tmp_path


def _with_weights(one, folder):
    return replace(one, weights_out=weight_file_hashes(folder / one.name), hardware={"device": DEVICE})


def _after(folder):
    return load_record(folder).evaluations["after"]


def _changed(folder, **fields):
    """A measurement that differs in some fields from the one that was published."""
    return lambda *_: (replace(_after(folder), **fields), DEVICE)


def test_rows_that_hold(board, capsys):
    assert [one.holds for one in verify_board(board)] == [True, True]
    assert main(["leaderboard", "verify", str(board), "--row", "npo-seed-1", "--json"]) == 0
    (data,) = json.loads(capsys.readouterr().out)
    assert data["holds"] and data["name"] == "npo-seed-1" and data["figures"] == 3


def test_other_weights_are_told_before_anything_is_measured(board, monkeypatch, capsys):
    save_file({"weight": torch.full((2,), 9.0)}, board / "npo-seed-0" / "model.safetensors")
    measured = []
    monkeypatch.setattr(verify, "_measured", lambda *given: measured.append(given))
    assert main(["leaderboard", "verify", str(board), "--row", "npo-seed-0"]) == 1
    assert "other weights than published: model.safetensors" in " ".join(capsys.readouterr().out.split())
    assert not measured


def test_another_figure_is_named_with_both_values(board, monkeypatch):
    after = _after(board / "npo-seed-0")
    metrics = {**after.metrics, "harmful_rate": MetricResult(0.25, 6)}
    monkeypatch.setattr(verify, "_measured", _changed(board / "npo-seed-0", metrics=metrics))
    (one,) = verify_board(board, ["npo-seed-0"])
    assert one.wrong == ["1 of 3 figures are others: harmful_rate 0.2, now 0.25"]
    assert [(other.metric, other.published, other.measured) for other in one.others] == [("harmful_rate", 0.2, 0.25)]


@pytest.mark.parametrize(("now", "holds"), [(0.25, True), (0.45, False)])
def test_on_other_versions_a_figure_may_move_within_its_interval(board, now, holds):
    (stored, _) = make_board([board / "npo-seed-0", board / "npo-seed-1"], "").runs
    figures = {"harmful_rate": MetricResult(0.2, 6, 0.1, 0.4, "wilson")}
    published = replace(stored, figures=figures, versions={"torch": "1.0"}, hardware={"device": DEVICE})
    result = replace(
        _after(board / "npo-seed-0"), metrics={"harmful_rate": MetricResult(now, 6)}, versions={"torch": "2.0"}
    )
    one = verify.compared(published, result, DEVICE)
    assert one.holds is holds and one.changed == ["version of torch: 1.0 then, 2.0 now"]
    elsewhere = verify.compared(replace(published, versions={}), result, "another device")
    assert elsewhere.holds is holds and elsewhere.changed == ["device: a device then, another device now"]
    assert not verify.compared(replace(published, versions={}), result, DEVICE).holds  # nothing explains it


def test_other_rows_and_a_board_without_figures_do_not_hold(board):
    (stored, _) = make_board([board / "npo-seed-0", board / "npo-seed-1"], "").runs
    after = _after(board / "npo-seed-0")
    other = verify.compared(replace(stored, rows={}), after, DEVICE)
    assert other.wrong == ["other rows than published: forget, holdout, retain"]
    assert verify.compared(replace(stored, figures={}), after, DEVICE).wrong == ["no figure was published"]


def test_weights_from_another_folder(board, monkeypatch):
    taken = []
    monkeypatch.setattr(
        verify, "_measured", lambda folder, files, more: (taken.append(files), (_after(folder), DEVICE))[1]
    )
    elsewhere = board / "npo-seed-0"
    (one,) = verify_board(board, ["npo-seed-0"], weights=str(elsewhere))
    (other,) = verify_board(board, ["npo-seed-1"], weights=str(elsewhere))
    assert one.holds and taken == [elsewhere] and not other.holds


@pytest.mark.parametrize(
    "words",
    [
        ["{board}", "--row", "simnpo"],
        ["{board}", "--weights", "{board}"],
        ["{board}", "--revision", "main"],
        ["{board}/nothing"],
        [],
    ],
)
def test_wrong_arguments_are_refused(board, words, capsys):
    status = main(["leaderboard", "verify", *(word.format(board=board) for word in words)])
    assert status == 2
    assert_four_parts(capsys.readouterr().err)


def test_a_folder_that_is_gone(board):
    (one, _) = verify_board(board, runs=board / "elsewhere")
    assert one.wrong == ["its folder is not there: --runs names where the folders of runs lie"]
