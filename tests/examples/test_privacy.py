"""examples/privacy.py as a user runs it: what it writes, TOFU in a local folder, a killed evaluation. No quality."""

import json
from pathlib import Path

import pytest

from fixtures.examples import (
    CANARY,
    WITHOUT_HOLDOUT,
    assert_absent,
    assert_table_shows,
    assert_whole,
    figures,
    kill_once,
    results,
    row_of_table,
    rows_evaluated,
    rows_of,
    run,
    save_model,
    save_tofu,
    written,
)
from hf_unlearn.data import calibration_rows
from hf_unlearn.lab import Lab, load_lab
from hf_unlearn.results.evaluation_result import load_result

pytestmark = pytest.mark.slow

STEPS, EVALUATED = 4, 8
FIGURES = {
    "model_utility",
    *(f"{name}_{what}" for name in ("forget", "retain") for what in ("nll", "extraction_strength")),
    *(
        f"{name}_{what}"
        for name in ("forget", "retain", "real_authors", "world_facts")
        for what in ("probability", "rouge", "truth_ratio")
    ),
    "answer_perplexity",
    "broken_rate",
}
ATTACKED = {"holdout_nll", "min_k_auc", "min_k_tpr"}
COMPARED = {"forget_quality", "ks_distance", "min_k_privleak"}  # with the oracle
# Small batches: an evaluation that takes a second can be killed in the middle.
SHORT = ["--max_steps", str(STEPS), "--evaluated_rows", str(EVALUATED), "--per_device_eval_batch_size", "4"]
NO_ORACLE = "Without --oracle, a model trained without the forget rows, there is no forget quality."


@pytest.fixture(scope="module")
def lab() -> Lab:
    return load_lab(world="people")


@pytest.fixture(scope="module")
def lab_run(tmp_path_factory) -> tuple[Path, str]:
    """A short run on the lab, never interrupted, and what it printed."""
    folder = tmp_path_factory.mktemp("privacy") / "whole"
    return folder, run("privacy", folder, *SHORT)


# The lab


def test_results_and_evaluations_have_every_figure(lab, lab_run):
    folder, _ = lab_run
    found = assert_whole(folder, "tofu", FIGURES | ATTACKED, COMPARED, "forget_probability", EVALUATED)
    sets = ("forget", "retain", "holdout")
    read = {**lab.datasets, "holdout": calibration_rows(lab.datasets["holdout"])}  # the other half is measured on
    assert rows_of(found) == {name: len(read[name]) for name in sets}
    assert {rows_evaluated(found)[name] for name in (*sets, "real_authors", "world_facts")} == {EVALUATED}
    assert (found["steps"], found["hardware"]["processes"], found["seed"], found["stop_reason"]) == (STEPS, 1, 0, None)
    assert (found["model"]["origin"], found["model"]["id"]) == ("lab", "people")


def test_the_steps_unlearn_towards_the_oracle(lab_run):
    columns = figures(results(lab_run[0]))
    assert columns["before"]["forget_nll"] < columns["after"]["forget_nll"] < columns["oracle"]["forget_nll"]
    # The p-value of two samples that differ, and the distance behind it.
    assert 0 < columns["before"]["forget_quality"] < 0.05 and columns["before"]["ks_distance"] > 0.5


def test_the_table_is_printed(lab_run):
    folder, printed = lab_run
    found = results(folder)
    assert_table_shows(printed, found, "model utility", "model_utility")
    assert_table_shows(printed, found, "forget quality (KS p)", "forget_quality")
    assert_table_shows(printed, found, "forget truth ratio", "forget_truth_ratio")
    assert row_of_table(printed, "seconds of training")[::2] == ["-", "-"]
    assert "All steps were taken." in printed and str(folder) in printed
    assert NO_ORACLE not in printed


def test_no_row_of_the_lab_is_written_or_printed(lab, lab_run):
    folder, printed = lab_run
    asked = [text for row in lab.datasets["forget"] for text in row.values()]
    reworded = list(lab.datasets["forget_perturbed"]["paraphrased_answer"])
    wrong = [text for texts in lab.datasets["forget_perturbed"]["perturbed_answer"] for text in texts]
    assert_absent([*asked, *reworded, *wrong], written(folder) + printed)


def test_a_killed_evaluation_goes_on(lab_run, tmp_path):
    folder, partial = tmp_path / "killed", tmp_path / "partial"
    arguments = [*SHORT, "--partial_dir", str(partial)]
    kill_once(lambda: len(kept(partial, "oracle")) > 2, "privacy", folder, *arguments)
    assert not (folder / "evaluation_oracle.json").exists()
    scored = [kind for kind in kept(partial, "oracle") if kind in ("scores", "fluency")]
    assert len(scored) > 2

    run("privacy", folder, *arguments)
    assert list(partial.iterdir()) == []
    assert figures(results(folder)) == figures(results(lab_run[0]))
    # What was kept is not scored again; the evaluations that follow are whole.
    saved = {name: forwards(lab_run[0], name) - forwards(folder, name) for name in ("oracle", "before", "after")}
    assert saved == {"oracle": len(scored), "before": 0, "after": 0}


def kept(partial: Path, name: str) -> list[str]:
    """The kind of every finding of an evaluation, the one that is being written aside."""
    lines = [line for path in partial.glob(f"{name}-*/*.jsonl") for line in path.read_text().splitlines(keepends=True)]
    whole = [json.loads(line) for line in lines if line.endswith("\n")]
    return [each[0] for each in whole if isinstance(each, list)]


def forwards(folder: Path, name: str) -> float:
    return load_result(folder / f"evaluation_{name}.json").cost["forwards"]


# TOFU in a local folder


@pytest.fixture
def files(lab, tmp_path) -> list[str]:
    """Arguments that name a small model and a folder of files as TOFU names them, a canary in the forget rows."""
    save_model(lab, tmp_path / "model")
    save_tofu(lab, tmp_path / "TOFU", "forget05", "retain95", CANARY)
    unseen = "".join(json.dumps(row) + "\n" for row in lab.datasets["holdout"])
    (tmp_path / "TOFU/holdout05.json").write_text(unseen, encoding="utf-8")
    return [
        *["--model_name_or_path", str(tmp_path / "model"), "--source", str(tmp_path / "TOFU"), "--split", "forget05"],
        *["--template", lab.template, "--limit", "30"],
    ]


def test_tofu_in_a_folder_without_an_oracle_and_no_word_of_it_is_written(files, tmp_path):
    folder = tmp_path / "out"
    # No bound: with a word that the model has never seen, the rows are above the level of unseen ones from the start.
    # No model knows the canary.
    bare = [*WITHOUT_HOLDOUT, "--forget_nll_bound", "none", "--forget_loss", "npo", "--force", "true"]
    printed = run("privacy", folder, *files, *SHORT, *bare)
    found = results(folder)
    # Trained on; the unseen rows of the folder are for the attacks.
    assert rows_of(found) == {"forget": 30, "retain": 30}
    assert rows_evaluated(found)["holdout"] == EVALUATED
    columns = figures(found)
    assert list(columns) == ["before", "after"]
    for column in columns.values():
        assert set(column) >= FIGURES | ATTACKED and not COMPARED & set(column)
    assert found["evaluations"]["after"]["settings"]["split"] == "forget05"
    assert columns["after"]["forget_nll"] > columns["before"]["forget_nll"]
    assert NO_ORACLE in printed and "forget quality (KS p)" not in printed
    assert_table_shows(printed, found, "model utility", "model_utility")
    assert CANARY not in printed and CANARY not in written(folder)
