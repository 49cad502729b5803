"""A task's suite and the half of the holdout rows that it measures; what is refused of an output folder."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import datasets
import pytest

from fixtures.examples import assert_four_parts
from hf_unlearn import UnlearningConfig
from hf_unlearn.data import calibration_rows
from hf_unlearn.evaluation import custom, tofu
from hf_unlearn.results.record import ObjectiveRecord, RunRecord, TermRecord
from hf_unlearn.results.record_parts import LevelQuality
from hf_unlearn.tasks.evaluate_saved import fitted_to_holdout
from hf_unlearn.tasks.privacy import _half_of
from hf_unlearn.tasks.recipe_files import find_recipe, read_recipe
from hf_unlearn.tasks.task import WITHOUT_UNSEEN, Task, require_output, require_unseen, suite_of


def arguments(folder: Path) -> UnlearningConfig:
    return UnlearningConfig(output_dir=str(folder), report_to="none", use_cpu=True)


@pytest.mark.parametrize(
    ("file", "adapter", "refused"),
    [
        ("model.safetensors", True, True),
        ("model.safetensors.index.json", True, True),
        ("adapter_model.safetensors", False, True),
        ("adapter_model.safetensors", True, False),
        ("model.safetensors", False, False),
        ("results.json", True, False),
    ],
)
def test_a_folder_holds_one_kind_of_model(tmp_path, file, adapter, refused):
    (tmp_path / file).write_bytes(b"")
    if not refused:
        require_output(arguments(tmp_path), adapter=adapter)
        return
    with pytest.raises(ValueError) as error:
        require_output(arguments(tmp_path), adapter=adapter)
    assert_four_parts(str(error.value), "--output_dir", file)


def test_a_file_is_no_folder(tmp_path):
    file = tmp_path / "out"
    file.write_bytes(b"")
    with pytest.raises(ValueError) as error:
        require_output(arguments(file), adapter=True)
    assert_four_parts(str(error.value), "--output_dir", "a file")
    require_output(arguments(tmp_path / "new"), adapter=True)


def test_a_suite_measures_on_the_half_that_the_run_did_not_read():
    rows = [{"prompt": f"who is {i}?", "completion": f" fox {i}"} for i in range(20)]
    sets = {name: datasets.Dataset.from_list(part) for name, part in (("forget", rows[:10]), ("holdout", rows[10:]))}
    suite = partial(custom, forget=sets["forget"], retain=rows[:2])
    task = Task("model", sets, suite)
    whole, half, one = (
        suite_of(task, unfitted=unfitted, count=count, before=None, oracle=None)
        for unfitted, count in ((False, None), (True, 10), (True, 1))
    )
    prompts = [[row["prompt"] for row in part] for part in (half.sets["holdout"], calibration_rows(sets["holdout"]))]
    assert sorted([*prompts[0], *prompts[1]]) == sorted(row["prompt"] for row in whole.sets["holdout"]) and all(
        prompts
    )
    assert half.sets["forget"] is whole.sets["forget"]
    assert half.settings["holdout"] == "measurement half" and "holdout" not in whole.settings
    assert one.sets["holdout"][:] == half.sets["holdout"].select(range(1))[:]  # counted in the half, not before it
    none_left = {**sets, "holdout": calibration_rows(sets["holdout"])}
    with pytest.raises(ValueError) as error:
        suite_of(Task("model", none_left, suite), unfitted=True, count=None)
    assert_four_parts(str(error.value), "measure on half of them")


def test_a_suite_measures_one_half_of_every_set_of_rows():
    names = ("forget10_perturbed", "retain_perturbed", "real_authors_perturbed", "world_facts_perturbed")
    rows = {
        name: datasets.Dataset.from_list(
            [
                {"question": f"{name} {i}?", "answer": "a", "paraphrased_answer": "b", "perturbed_answer": ["c", "d"]}
                for i in range(20)
            ]
        )
        for name in names
    }
    halves = [_half_of(rows, half) for half in ("calibration", "reporting")]
    for name in names:
        asked = [set(half[name]["question"]) for half in halves]
        assert not asked[0] & asked[1] and asked[0] | asked[1] == set(rows[name]["question"])
    holdout = rows[names[0]].select_columns(["question", "answer"])
    holdout = holdout.rename_columns({"question": "prompt", "answer": "completion"})
    suites = [
        suite_of(Task("model", {"holdout": holdout}, partial(tofu, half)), unfitted=False, count=None, half=name)
        for half, name in zip(halves, ("calibration", "reporting"), strict=True)
    ]
    assert [suite.settings["rows"] for suite in suites] == ["calibration half", "reporting half"]
    for name in ("forget", "holdout"):  # a row is in the same half wherever it stands
        assert [suite.sets[name]["prompt"] for suite in suites] == [half[names[0]]["question"] for half in halves]
    assert len(suites[0].sets["forget_perturbed"]) == 2 * len(suites[0].sets["forget"])


@pytest.mark.parametrize("name", WITHOUT_UNSEEN)
def test_own_rows_without_unseen_ones_are_told_what_to_do(tmp_path, name):
    rows = datasets.Dataset.from_list([{"prompt": "a", "completion": " b"}])
    task = Task("model", {"forget": rows, "retain": rows}, partial(custom))
    led, plain = (
        UnlearningConfig(output_dir=str(tmp_path), report_to="none", levels=levels) for levels in ("ngram", None)
    )
    with pytest.raises(ValueError) as error:
        require_unseen(name, task, led)
    flag, advice = WITHOUT_UNSEEN[name]
    assert_four_parts(str(error.value), f"--{flag}", advice)
    if "--config" in advice:
        other = read_recipe(find_recipe(advice.split("--config ")[1].split()[0]))
        assert other.get("levels") is None and other.get("anchor_loss", "none") == "none"
    require_unseen(name, task, plain)
    require_unseen(name, replace(task, sets=task.sets | {"holdout": rows}), led)


def test_an_evaluation_knows_from_the_record_that_a_run_read_holdout_rows(tmp_path):
    args = arguments(tmp_path)
    assert not fitted_to_holdout(args)
    kl, counted = TermRecord("kl", side="anchor"), LevelQuality("ngram", 30, 12, 5.5)
    for record, fitted in (
        (RunRecord(), False),
        (RunRecord(levels=LevelQuality("given", 0, 12, 5.5)), False),
        (RunRecord(levels=counted), True),
        (RunRecord(objective=ObjectiveRecord([TermRecord("npo"), kl])), True),
    ):
        record.save(tmp_path)
        assert fitted_to_holdout(args) is fitted
