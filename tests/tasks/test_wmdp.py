"""The task wmdp: RMU on texts of the corpora's shape, measured by questions of WMDP's and MMLU's, on a tiny model."""

from pathlib import Path

import pytest

from fixtures.benchmark_tasks import FEW, saved_model, write_rows
from fixtures.examples import assert_four_parts
from fixtures.models import tiny_tokenizer
from fixtures.wmdp_rows import CORPORA, MMLU, ROWS
from hf_unlearn.evaluation import load_result
from hf_unlearn.tasks import make_task, parse_task, run_task

RMU = ["--forget_loss", '{"name": "rmu", "c": 6.5, "layer": 1}', "--retain_loss", '{"name": "hidden", "layer": 1}']


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Arguments that name files of the corpora and of the questions, and a model."""
    named = {f"{name}.jsonl": rows for name, rows in CORPORA.items()} | {"mmlu.jsonl": MMLU}
    named |= {f"{name}/test.jsonl": rows for name, rows in ROWS.items()}
    named |= {"wiki.jsonl": [{"text": text} for text in ("", "a page on rye", " = Mills = ")]}
    write_rows(tmp_path, named)
    folder = str(tmp_path)
    sources = ["--corpora", folder, "--source", folder, "--mmlu", str(tmp_path / "mmlu.jsonl"), "--domains", "cyber"]
    return ["--model_name_or_path", saved_model(tmp_path / "model"), *sources, "--output_dir", str(tmp_path / "run")]


def test_the_texts_of_a_domain_and_texts_of_ones_own(words, tmp_path):
    task = make_task("wmdp", parse_task("wmdp", [*words, "--limit", "2", "--evaluated_rows", "1", "--permuted"]))
    assert task.sets["forget"].to_list() == CORPORA["cyber-forget-corpus"][:2]
    assert task.sets["retain"].to_list() == CORPORA["cyber-retain-corpus"][:2]
    suite = task.suite(before=None, oracle=None)
    assert suite.settings["permuted"] and suite.settings["domains"] == ["cyber"]
    assert suite.with_tokenizer(tiny_tokenizer()).sets["forget_letters"][4:] == []  # one question, a row a letter
    own = make_task("wmdp", parse_task("wmdp", [*words, "--retain_dataset", str(tmp_path / "wiki.jsonl")]))
    assert own.sets["retain"]["text"][:] == ["a page on rye", " = Mills = "] and len(own.sets["forget"]) == 3


def test_a_run_of_rmu_is_measured_before_and_after(words, tmp_path):
    run_task("wmdp", [*words, *RMU, *FEW, "--evaluated_rows", "2"])
    before, after = (load_result(tmp_path / "run" / f"evaluation_{name}.json") for name in ("before", "after"))
    assert before.pair == ("forget_choice_above_chance", "retain_choice_accuracy")
    assert before.rows == after.rows and before.row_scores["forget_nll"] != after.row_scores["forget_nll"]
    assert (before.rows["forget_letters"]["count"], before.rows["retain_letters"]["count"]) == (8, 16)
    assert not [line for line in (tmp_path / "run" / "README.md").read_text("utf-8").splitlines() if "fern" in line]


@pytest.mark.parametrize(
    ("changed", "words_of_error"),
    [
        (["--evaluated_half", "reporting"], "no --evaluated_half"),
        (["--corpora", "{folder}/run"], "where there is no file"),
        (["--source", "{folder}/model"], "'wmdp-cyber'"),
    ],
)
def test_what_is_refused_in_four_parts(words, tmp_path, changed, words_of_error):
    given = [word.format(folder=tmp_path) for word in changed]
    with pytest.raises(ValueError) as error:
        make_task("wmdp", parse_task("wmdp", [*words, *given])).suite(before=None, oracle=None)
    assert_four_parts(str(error.value), words_of_error)


def test_a_model_has_to_be_named(words):
    with pytest.raises(ValueError) as error:
        make_task("wmdp", parse_task("wmdp", words[2:]))
    assert_four_parts(str(error.value), "no model")
