"""What is read of a run's folder, and what is refused."""

import json

import pytest

from fixtures.report import evaluation, harmful_evaluations, record, save_run
from hf_unlearn.results.report import read_run, write_report

SHOWABLE = [{"prompt": "Who?", "answers": {"after": "Nobody.", "before": "Ann."}}]


def test_row_scores_come_from_the_files_beside_the_record(tmp_path):
    run = read_run(save_run(tmp_path / "run", record(), SHOWABLE))
    assert run.title == "npo-lora"
    assert len(run.evaluations["oracle"].row_scores["holdout_nll"]) == 120
    assert run.record.evaluations["oracle"].row_scores == {}
    assert [(each.prompt, each.answers) for each in run.showable] == [("Who?", {"before": "Ann.", "after": "Nobody."})]
    assert list(run.showable[0].answers) == ["before", "after"] and run.notes == ()


def test_a_folder_with_a_record_alone_is_enough(tmp_path):
    run = read_run(save_run(tmp_path / "run", record(), full=False))
    assert run.showable == () and run.evaluations == run.record.evaluations


def test_scores_of_another_evaluation_are_left_out_and_said_so(tmp_path):
    folder = save_run(tmp_path / "run", record())
    harmful_evaluations(after_harm=(0.5, 0.4, 0.6))["after"].save(folder / "evaluation_after.json")
    run = read_run(folder)
    assert run.evaluations["after"].row_scores == {} and run.evaluations["before"].row_scores
    assert run.notes == (
        "evaluation_after.json holds another evaluation than the record: scores of its rows are not shown.",
    )


def test_a_metric_that_is_no_number_equals_itself(tmp_path):
    scores = {"forget_nll": [1.0, float("inf")]}
    made = {"after": evaluation(harmful_rate=float("nan"), row_scores=scores)}
    run = read_run(save_run(tmp_path / "run", record(evaluations=made)))
    assert run.notes == () and run.evaluations["after"].row_scores == scores


@pytest.mark.parametrize(
    "content",
    [
        {"prompt": "Who?", "answers": {}},
        [{"prompt": "Who?"}],
        [{"prompt": "Who?", "answers": {"after": "secret"}, "more": 1}],
        [{"prompt": 3, "answers": {"after": "secret"}}],
        [{"prompt": "secret", "answers": {}}],
        [{"prompt": "secret", "answers": ["secret"]}],
        [{"prompt": "secret", "answers": {"elsewhere": "secret"}}],
        [{"prompt": "secret", "answers": {"after": None}}],
        ["secret"],
    ],
)
def test_other_content_is_not_showable(tmp_path, content):
    folder = save_run(tmp_path / "run", record(), content)
    with pytest.raises(ValueError, match=r"Expected showable\.json as") as caught:
        read_run(folder)
    assert "secret" not in str(caught.value)


def test_showable_that_is_no_json_is_refused(tmp_path):
    folder = save_run(tmp_path / "run", record())
    (folder / "showable.json").write_text("[", encoding="utf-8")
    with pytest.raises(ValueError, match=r"cannot be read \(JSONDecodeError\)"):
        read_run(folder)


def test_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"folder with a results\.json"):
        write_report([tmp_path / "empty"], tmp_path / "report.html")
    with pytest.raises(ValueError, match="at least one run"):
        write_report([], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_an_output_that_is_a_folder_is_refused(tmp_path):
    folder = save_run(tmp_path / "run", record())
    with pytest.raises(ValueError, match="Expected a file to write the report to") as caught:
        write_report([folder], tmp_path)
    assert str(tmp_path) not in str(caught.value)


def test_a_broken_evaluation_file_is_refused(tmp_path):
    folder = save_run(tmp_path / "run", record())
    (folder / "evaluation_after.json").write_text(json.dumps({"format": 0}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"evaluation_after\.json"):
        read_run(folder)
