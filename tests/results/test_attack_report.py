"""`AttackReport` as a file, and in the record of a run: numbers come back, edits are told by their key."""

import json
import math

import pytest

from fixtures.attack_reports import finding, report, without_control
from fixtures.examples import assert_four_parts
from fixtures.report import record
from hf_unlearn.results.attack_report import AttackReport, load_attack_report
from hf_unlearn.results.record import load_record


def written(made, folder):
    """What a file of a report holds, for JSON's own eyes: it has no NaN."""
    return json.loads(made.save(folder).read_text(encoding="utf-8"), parse_constant=pytest.fail)


@pytest.mark.parametrize("made", [report(), without_control(), AttackReport()], ids=["whole", "no control", "empty"])
def test_a_report_comes_back_as_it_was(tmp_path, made):
    stored = written(made, tmp_path)
    again = load_attack_report(tmp_path)
    assert repr(again) == repr(made) == repr(load_attack_report(tmp_path / "attacks.json"))  # a NaN is not itself
    assert written(again, tmp_path / "again") == stored
    if made.findings:
        assert again.findings[0].subjects["model"].rows != [] and again[made.findings[0].name] == again.findings[0]


def test_numbers_of_numpy_and_those_that_are_not_finite_are_numbers_again(tmp_path):
    import numpy as np

    setting = {"bits": np.int64(4), "rate": np.float32(0.5), "top": math.inf, "set": "related"}
    leak = (np.float64(0.25), -math.inf, math.nan)
    made = report([finding("quantize", "weights", {"model": leak}, None, chosen=setting)])
    stored = written(made, tmp_path)["findings"][0]["subjects"]["model"]
    assert stored["setting"] == {"bits": 4, "rate": 0.5, "top": "inf", "set": "related"}
    assert (stored["leak"], stored["low"], stored["high"]) == (0.25, "-inf", "nan")
    loaded = load_attack_report(tmp_path)["quantize"].subjects["model"]
    assert (loaded.setting, loaded.low) == ({"bits": 4, "rate": 0.5, "top": math.inf, "set": "related"}, -math.inf)
    assert math.isnan(loaded.high)


EDITS = {
    "unknown": lambda d: d.update(unknown=1),
    "seed": lambda d: d.update(seed=-1),
    "findings[0].leak": lambda d: d["findings"][0].update(leak=1),
    "findings[0].threat": lambda d: d["findings"][0].update(threat="root"),
    "findings[0].excess.low": lambda d: d["findings"][0]["excess"].update(low="low"),
    "findings[0].excess.control": lambda d: d["findings"][0]["excess"].update(control="before"),
    "findings[0].recovered": lambda d: d["findings"][0].pop("recovered"),
    "findings[0].subjects.model": lambda d: d["findings"][0]["subjects"].pop("model"),
    "findings[0].subjects.other": lambda d: d["findings"][0]["subjects"].update(
        other=d["findings"][0]["subjects"]["model"]
    ),
    "findings[2].subjects.model.steps_to_half": lambda d: d["findings"][2]["subjects"]["model"].update(
        steps_to_half="ten"
    ),
    "findings[2].subjects.oracle.settings[1].utility": lambda d: d["findings"][2]["subjects"]["oracle"]["settings"][
        1
    ].update(utility=[]),
    "findings[1].subjects.model.settings[0].queries": lambda d: d["findings"][1]["subjects"]["model"].update(
        setting={"queries": [1]}
    ),
    "worst.weights.attack": lambda d: d["worst"]["weights"].update(attack="none such"),
    "worst.root": lambda d: d["worst"].update(root=d["worst"]["weights"]),
    "skipped.merge": lambda d: d["skipped"].update(merge=1),
}


@pytest.mark.parametrize("key", EDITS)
def test_an_edit_is_told_by_its_key_in_both_files(tmp_path, key):
    stored = report().to_dict()
    EDITS[key](stored)
    (tmp_path / "attacks.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError) as error:
        load_attack_report(tmp_path)
    assert_four_parts(str(error.value), f"Expected {key} in attacks.json", "attack again")
    kept = json.loads(record(attack_report=report(), log=[]).as_text())
    kept["attack_report"] = {name: value for name, value in stored.items() if name != "format"}
    (tmp_path / "results.json").write_text(json.dumps(kept))
    with pytest.raises(ValueError) as error:
        load_record(tmp_path)
    assert_four_parts(str(error.value), f"Expected attack_report.{key} in results.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 9}', '{"format": 1, "findings": 3}', None])
def test_other_files_are_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "attacks.json").write_text(text)
    with pytest.raises(ValueError) as error:
        load_attack_report(tmp_path)
    assert_four_parts(str(error.value), "attacks.json")


def test_a_record_keeps_the_report_without_rows(tmp_path):
    made = record(attack_report=report(), log=[])
    again = load_record(made.save(tmp_path))
    assert repr(again.attack_report) == repr(report().without_rows()) == repr(made.as_saved().attack_report)
    assert all(leak.rows == [] for each in again.attack_report.findings for leak in each.subjects.values())
    assert report()["relearn"].subjects["model"].rows and made.attack_report["relearn"].subjects["model"].rows
    without = record(log=[])
    assert again.figures_hash() != without.figures_hash()
    stored = without.to_dict()
    del stored["attack_report"]  # as older records are
    (tmp_path / "results.json").write_text(json.dumps(stored))
    assert load_record(tmp_path).attack_report is None
    assert load_record(tmp_path).figures_hash() == without.figures_hash()


def test_no_path_and_no_token_of_a_report_gets_into_a_record():
    folder, token = "/".join(["", "root", "secret", "model"]), "hf_" + "a1B2" * 8
    made = report(skipped={"merge": f"{folder} is gone"}, warnings=[f"read with {token}"])
    text = record(attack_report=made, log=[]).as_text()
    assert "secret" not in text and token not in text and "is gone" in text
