"""The task muse: texts of MUSE's shape forgotten, in parts and one request after the other, on a tiny model."""

from pathlib import Path

import pytest

from fixtures.benchmark_tasks import FEW, saved_model, write_rows
from fixtures.examples import assert_four_parts
from fixtures.muse_rows import ROWS
from hf_unlearn.cli import main
from hf_unlearn.data.holdout_split import measurement_rows
from hf_unlearn.evaluation import load_result
from hf_unlearn.results.record import load_record
from hf_unlearn.tasks import make_task, parse_task, run_task
from hf_unlearn.tasks.task import suite_of

GRAD_DIFF = ["--forget_loss", "grad_ascent", "--retain_loss", "nll", *FEW]
REQUESTS = {
    f"sust/forget_{k}": [{"text": f"the {who} {n} went up"} for n in range(3)] for k, who in ((1, "ewe"), (2, "ram"))
}


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Arguments that name a folder of MUSE's layout and a model; the output folder is left to the test."""
    folder = tmp_path / "muse"
    write_rows(folder, {f"{name}.jsonl": rows for name, rows in (ROWS | REQUESTS).items()})
    return ["--model_name_or_path", saved_model(tmp_path / "model"), "--source", str(folder)]


def made(words, *more):
    return make_task("muse", parse_task("muse", [*words, *more, "--output_dir", "unused"]))


def test_the_texts_of_a_part_and_what_measures_them(words):
    task = made(words, "--part", "scal_2", "--limit", "4", "--evaluated_rows", "3", "--max_new_tokens", "50")
    assert task.sets["forget"].to_list() == ROWS["scal/forget_2"][:4]
    assert task.sets["retain"].to_list() == ROWS["raw/retain1"][:4]
    assert task.sets["holdout"].to_list() == ROWS["privleak/holdout"][:4]
    suite = suite_of(task, unfitted=False, count=3, before=None, oracle=None)
    assert (suite.settings["part"], suite.max_new_tokens, suite.answer_lengths["forget_qa"]) == ("scal_2", 50, 32)
    assert not task.notes and made(words, "--part", "sust_2").notes


def test_unseen_excerpts_are_those_that_the_run_was_not_fitted_to(words):
    task = made(words)
    whole, half = (
        suite_of(task, unfitted=unfitted, count=None, before=None, oracle=None).token_sets
        for unfitted in (False, True)
    )
    unseen = len(measurement_rows(task.sets["holdout"]))
    assert 0 < unseen < len(task.sets["holdout"])
    assert [len(sets.keywords["data"].holdout) for sets in (whole, half)] == [len(ROWS["privleak/holdout"]), unseen]


def test_a_sequence_of_requests_goes_on_from_run_to_run(words, tmp_path):
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    run_task("muse", [*words, *GRAD_DIFF, "--part", "sust_1", "--output_dir", first, "--measure", "false"])
    more = ["--continue_from", first, "--part", "sust_2", "--output_dir", second, "--evaluated_rows", "3"]
    run_task("muse", [*words[2:], *GRAD_DIFF, *more])
    lineage = [load_record(Path(folder)).lineage for folder in (first, second)]
    assert lineage[1].parent == "first" and lineage[1].weights_in == lineage[0].weights_out
    before, after = (load_result(tmp_path / "second" / f"evaluation_{name}.json") for name in ("before", "after"))
    assert before.pair == ("forget_knowmem", "retain_knowmem") and before.settings["part"] == "sust_2"
    assert before.rows == after.rows and before.rows["request"]["count"] == 3
    assert before["request_nll"].value < after["request_nll"].value
    assert "the ram" not in (tmp_path / "second" / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("changed", "words_of_error"),
    [
        (["--part", "scal_3"], "scal/forget_3"),
        (["--corpus", "books", "--part", "sust_1"], "of the news alone"),
        (["--source", "{model}"], "raw/forget"),
        (["--evaluated_half", "reporting"], "no --evaluated_half"),
    ],
)
def test_what_is_refused_in_four_parts(words, changed, words_of_error):
    with pytest.raises(ValueError) as error:
        made(words, *(word.format(model=words[1]) for word in changed))
    assert_four_parts(str(error.value), words_of_error)


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [("part", "scal_5", "mean 'scal_"), ("corpus", "new", "mean 'news'"), ("passage_characters", "1", "at least 2")],
)
def test_a_value_that_there_is_not(words, flag, value, said):
    with pytest.raises(ValueError, match=f"{flag} must be (.|\\n)*{said}"):
        made(words, f"--{flag}", value)


def test_a_leaderboard_of_muse(words, tmp_path, capsys):
    given = ["--methods", "npo", "--seeds", "0", "1", *words, "--output_dir", str(tmp_path / "board"), "--dry_run"]
    assert main(["leaderboard", "muse", *given]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.startswith("hf-unlearn train --task muse --config ") for line in lines)
    assert f"--source {words[3]} --seed 1" in lines[1]
