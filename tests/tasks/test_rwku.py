"""The task rwku: texts about people who do not exist forgotten, and probed before and after, on a tiny model."""

from pathlib import Path

import pytest

from fixtures.benchmark_tasks import FEW, saved_model, write_rows
from fixtures.examples import assert_four_parts
from fixtures.rwku_rows import ADA, PAIRS, ROWS, TOM, UTILITY
from hf_unlearn.evaluation import load_result
from hf_unlearn.tasks import make_task, parse_task, run_task

CORPUS = ROWS["train_positive_llama3"]


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Arguments that name a folder of RWKU's rows, a model and an output folder."""
    write_rows(tmp_path / "rwku", {f"{name}.jsonl": rows for name, rows in ROWS.items()})
    write_rows(tmp_path, {"wiki.jsonl": [{"text": text} for text in ("", "a page on rye")]})
    named = ["--model_name_or_path", saved_model(tmp_path / "model"), "--source", str(tmp_path / "rwku")]
    return [*named, "--output_dir", str(tmp_path / "run")]


def made(words, *more):
    return make_task("rwku", parse_task("rwku", [*words, *more]))


def test_texts_about_some_are_forgotten_and_about_others_kept(words, tmp_path):
    task = made(words, "--target", ADA, "--evaluated_rows", "1", "--max_new_tokens", "99")
    texts = {who: [row["text"] for row in CORPUS if row["subject"] == who] for who in (ADA, TOM)}
    assert {name: rows["text"][:] for name, rows in task.sets.items()} == {"forget": texts[ADA], "retain": texts[TOM]}
    suite = task.suite(before=None, oracle=None)
    assert (suite.settings["targets"], suite.max_new_tokens) == ([ADA], 30)
    assert set(suite.answer_lengths.values()) == {99}
    assert "judge" not in suite.settings
    write_rows(tmp_path / "rwku", {"retain_bbh.json": UTILITY["utility_reason"]})
    asked = made(words, "--target", ADA, "--max_question_length", "9").suite(before=None, oracle=None)
    assert asked.answer_lengths == {"utility_reason": 256, "utility_fluency": 256} and asked.max_length == 9
    judged = made(words, "--target", ADA, "--judge", words[1]).suite(before=None, oracle=None)
    assert "judge" in judged.settings
    own = made(words, "--target", ADA, "--retain_dataset", str(tmp_path / "wiki.jsonl"), "--limit", "1")
    assert [rows["text"][:] for rows in own.sets.values()] == [texts[ADA][:1], ["a page on rye"]]
    write_rows(tmp_path / "rwku", {"pair.json": PAIRS})
    pairs = made(words, "--target", ADA, "--forget_corpus", "train_pair_llama3", "--forget_loss", "dpo")
    assert pairs.sets["forget"].column_names == ["prompt", "chosen", "rejected"] and len(pairs.sets["retain"]) == 1
    for everybody in ([], ["--target", ADA, TOM]):
        assert {name: len(rows) for name, rows in made(words, *everybody).sets.items()} == {"forget": len(CORPUS)}


def test_a_run_is_measured_before_and_after(words, tmp_path):
    more = ["--forget_loss", "grad_ascent", "--retain_loss", "nll", "--per_device_train_batch_size", "1"]
    run_task("rwku", [*words, *FEW, *more, "--target", ADA, "--evaluated_rows", "2"])
    before, after = (load_result(tmp_path / "run" / f"evaluation_{name}.json") for name in ("before", "after"))
    assert before.pair == ("forget_level2_rouge", "neighbor_level2_rouge") and before.settings["targets"] == [ADA]
    assert before.rows == after.rows and before.row_scores != after.row_scores
    assert before["mia_forget_nll"].value < after["mia_forget_nll"].value
    assert "is known" not in (tmp_path / "run" / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("changed", "words_of_error"),
    [
        (["--target", "Ada Quil"], ADA),
        (["--forget_corpus", "train_original_passage"], "passage.json"),
        (["--forget_corpus", "train_pair_llama3"], "pair.json"),
        (["--source", "{model}"], "without positive.json"),
        (["--evaluated_half", "reporting"], "no --evaluated_half"),
    ],
)
def test_what_is_refused_in_four_parts(words, changed, words_of_error):
    with pytest.raises(ValueError) as error:
        made(words, *(word.format(model=words[1]) for word in changed))
    assert_four_parts(str(error.value), words_of_error)


def test_a_corpus_that_there_is_not(words):
    with pytest.raises(ValueError, match=r"forget_corpus must be .*mean 'train_positive_"):
        made(words, "--forget_corpus", "train_positive")
