"""Training a judge: rows, split, held-out figures, files, the command line, the lab's own judge. No other judge."""

import contextlib
import io
import json
import logging
import random
import string
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset
from safetensors.torch import load_file
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from hf_unlearn.cli import main
from hf_unlearn.evaluation.judges.comments import (
    JIGSAW_LABELS,
    Comments,
    heldout_figures,
    read_comments,
    split_comments,
)
from hf_unlearn.evaluation.judges.judge import HarmfulnessJudge
from hf_unlearn.evaluation.judges.training import JudgeArguments, render_judge, train_judge
from hf_unlearn.lab import shows_behaviour
from hf_unlearn.lab.comments import lab_comments
from hf_unlearn.lab.games import OFFICIALS, build_corpus
from hf_unlearn.metrics.result import MetricResult

FAST = JudgeArguments(epochs=8, learning_rate=3e-3, batch_size=16, max_length=32, heldout=0.25)


def fruit_rows(count: int = 300) -> Dataset:
    """Comments with two labels, each told by a word: "sour" and "rotten"."""
    draw = random.Random(1)
    rows = []
    for _ in range(count):
        sour, rotten = draw.random() < 0.4, draw.random() < 0.3
        words = [
            draw.choice(("apple", "pear", "plum", "quince", "cherry", "medlar")) for _ in range(draw.randint(3, 7))
        ]
        words += ["sour"] * sour + ["rotten"] * rotten
        draw.shuffle(words)
        rows.append({"comment_text": " ".join(words), "toxic": int(sour), "threat": int(rotten)})
    return Dataset.from_list(rows)


def comments(values, labels=("harmful",), texts=None) -> Comments:
    values = np.array(values, dtype=np.float32).reshape(-1, len(labels))
    return Comments(texts or [f"text number {i}" for i in range(len(values))], values, tuple(labels))


# Rows


def test_columns_are_found_by_name():
    found = read_comments(fruit_rows(20).add_column("id", list(range(20))), None, None)
    assert found.labels == ("toxic", "threat")  # in Jigsaw's order, of its six those that are there
    assert found.values.shape == (20, 2) and found.values.dtype == np.float32
    assert found.texts == list(fruit_rows(20)["comment_text"])
    one = read_comments(Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}), None, None)
    assert one.labels == ("label",) and one.values.tolist() == [[0], [1]]
    assert JIGSAW_LABELS.index("toxic") < JIGSAW_LABELS.index("threat")


def test_named_columns_win_and_a_csvs_strings_and_booleans_are_labels():
    rows = Dataset.from_dict({"said": ["a", "b"], "text": ["x", "y"], "rude": ["0", "1"], "loud": [True, False]})
    found = read_comments(rows, "said", ["loud", "rude"])
    assert found.texts == ["a", "b"] and found.labels == ("loud", "rude")
    assert found.values.tolist() == [[1, 0], [0, 1]]
    assert read_comments(rows, None, "rude").values.tolist() == [[0], [1]]


@pytest.mark.parametrize(
    ("columns", "text_column", "label_columns", "words"),
    [
        ({"said": ["a"], "harmful": [1]}, None, None, "a text column: 'text' or 'comment_text'"),
        ({"text": ["a"], "rude": [1]}, None, None, "one or more label columns"),
        ({"text": ["a"], "rude": [1]}, None, [], "one or more label columns"),
        ({"text": ["a"], "rude": [1]}, None, ["text"], "one or more label columns"),
        ({"text": ["a"], "rude": [1]}, None, ["rdue"], "did you mean 'rude'"),
        ({"text": ["a"], "rude": [1]}, "txet", ["rude"], "did you mean 'text'"),
        ({"text": ["a", "b"], "toxic": [0, -1]}, None, None, "1 of 2 rows with another value (int)"),
        ({"text": ["a", "b"], "toxic": [0.0, 0.7]}, None, None, "1 of 2 rows with another value (float)"),
        ({"text": ["a", "b"], "toxic": [None, 1]}, None, None, "1 of 2 rows with another value (NoneType)"),
        ({"text": ["a", "b"], "toxic": [[0], [1]]}, None, None, "2 of 2 rows with another value (list)"),
        ({"text": ["a", None], "toxic": [0, 1]}, None, None, "1 of 2 rows with another value or none"),
    ],
)
def test_rows_that_are_refused(columns, text_column, label_columns, words):
    with pytest.raises(ValueError) as error:
        read_comments(Dataset.from_dict(columns), text_column, label_columns)
    assert words in str(error.value)


def test_a_message_never_quotes_a_comment():
    rows = Dataset.from_dict({"text": ["a", "b"], "other": ["the secret plum", "1"]})
    with pytest.raises(ValueError, match="another value") as error:
        read_comments(rows, None, ["other"])
    assert "plum" not in str(error.value)


@pytest.mark.parametrize(("values", "words"), [([0] * 9, "0 with a label"), ([1] * 9, "0 without a label")])
def test_rows_of_one_class(values, words):
    with pytest.raises(ValueError, match=words):
        split_comments(comments(values), 0.1, 0)


def test_one_text_many_times_is_one_text():
    with pytest.raises(ValueError, match="1 with a label, in 8 rows"):
        split_comments(comments([1, 1, 1, 0, 0, 0, 0, 0], texts=["Same. ", "same", "SAME", *"abcde"]), 0.1, 0)


# The split


def test_split_has_its_share_of_both_kinds_and_loses_no_row():
    whole = comments([1] * 40 + [0] * 160)
    train, held = split_comments(whole, 0.1, 0)
    assert (len(train.texts), len(held.texts)) == (180, 20)
    assert (train.harmful().sum(), held.harmful().sum()) == (36, 4)
    assert sorted(train.texts + held.texts) == sorted(whole.texts)
    by_text = dict(zip(whole.texts, whole.values.tolist(), strict=True))
    for part in (train, held):
        assert [by_text[text] for text in part.texts] == part.values.tolist()


def test_split_is_drawn_from_its_seed():
    whole = comments([1] * 40 + [0] * 160)
    assert split_comments(whole, 0.1, 3)[1].texts == split_comments(whole, 0.1, 3)[1].texts
    assert split_comments(whole, 0.1, 3)[1].texts != split_comments(whole, 0.1, 4)[1].texts


def test_rows_with_the_same_words_are_never_on_both_sides():
    texts = [f"{'Fruit' if k else 'fruit,'} number {i}{'!' * k}" for k in range(2) for i in range(50)]
    whole = comments(([1] * 20 + [0] * 30) * 2, texts=texts)
    train, held = split_comments(whole, 0.3, 0)
    numbers = [{text.rstrip("!").split()[-1] for text in part.texts} for part in (train, held)]
    assert len(numbers[1]) == 15 and len(held.texts) == 30
    assert not numbers[0] & numbers[1]


def test_each_side_has_both_kinds_however_small_the_share():
    for share in (0.01, 0.99):
        for part in split_comments(comments([1, 1, 0, 0, 0]), share, 0):
            assert set(part.harmful()) == {True, False}


# Held-out figures


def test_figures_worked_out_by_hand():
    scores = np.array([[0.9], [0.8], [0.4], [0.6], [0.1], [0.2], [0.3], [0.05]], dtype=np.float32)
    figures = heldout_figures(scores, comments([1, 1, 1, 0, 0, 0, 0, 0]))
    assert list(figures) == ["accuracy", "precision", "recall", "auc"]
    assert figures["accuracy"].value == 6 / 8 and figures["accuracy"].n == 8
    assert figures["precision"].value == 2 / 3 and figures["precision"].n == 3  # rows called harmful
    assert figures["recall"].value == 2 / 3 and figures["recall"].n == 3  # rows that are
    assert figures["auc"].value == pytest.approx(14 / 15) and figures["auc"].n == 8  # .4 < .6 is the one pair of 15
    for name, result in figures.items():
        assert result.low <= result.value <= result.high, name
        assert result.interval == ("bootstrap" if name == "auc" else "wilson")


def test_figures_of_several_labels_against_sklearn():
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, (60, 3))
    scores = np.clip(truth * 0.3 + generator.random((60, 3)) * 0.7, 0, 1).astype(np.float32)
    figures = heldout_figures(scores, comments(truth, ("a", "b", "c")))
    decisions = {"": (scores.max(axis=1), truth.max(axis=1))}
    decisions |= {f"{label}/": (scores[:, k], truth[:, k]) for k, label in enumerate("abc")}
    assert len(figures) == 4 * len(decisions)
    for prefix, (score, right) in decisions.items():
        assert figures[f"{prefix}accuracy"].value == np.mean((score > 0.5) == right)
        assert figures[f"{prefix}precision"].value == pytest.approx(precision_score(right, score > 0.5))
        assert figures[f"{prefix}recall"].value == pytest.approx(recall_score(right, score > 0.5))
        assert figures[f"{prefix}auc"].value == pytest.approx(roc_auc_score(right, score))
    assert len({round(result.value, 6) for result in figures.values()}) > 8


def test_what_cannot_be_measured_is_nan():
    nothing_flagged = heldout_figures(np.full((3, 2), 0.1), comments([[1, 0], [0, 0], [0, 0]], ("a", "b")))
    assert np.isnan(nothing_flagged["precision"].value) and nothing_flagged["precision"].n == 0
    assert nothing_flagged["recall"].value == 0
    assert np.isnan(nothing_flagged["b/recall"].value) and np.isnan(nothing_flagged["b/auc"].value)
    assert nothing_flagged["b/accuracy"].value == 1


# Training


@pytest.fixture(scope="module")
def fruit(tmp_path_factory):
    """A judge of two labels, its report, and what training wrote to the log and to the terminal."""
    folder = tmp_path_factory.mktemp("judges") / "fruit"
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    try:
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            report = train_judge(fruit_rows(), folder, FAST)
    finally:
        logging.getLogger().removeHandler(handler)
    return folder, report, log.getvalue()


def test_a_trained_judge_just_works(fruit):
    folder, report, _ = fruit
    judge = HarmfulnessJudge(folder)
    assert judge.labels == judge.harmful_labels == report.labels == ("toxic", "threat")
    assert judge.name == "fruit (threshold 0.5)" and judge.max_length == 32
    answers = ["plum pear apple", "pear sour plum", "rotten pear plum apple", "plum sour pear rotten", ""]
    assert judge(answers, answers) == [False, True, True, True, False]
    assert (judge.probabilities(answers) > 0.5).tolist()[1:4] == [[True, False], [False, True], [True, True]]


def test_heldout_figures_are_those_of_the_saved_judge(fruit):
    folder, report, _ = fruit
    _, held = split_comments(read_comments(fruit_rows(), None, None), 0.25, 0)
    judge = HarmfulnessJudge(folder)
    assert report.heldout_rows == len(held.texts) and report.train_rows + report.heldout_rows == 300
    assert report.heldout_harmful == held.harmful().sum() > 0
    right = np.mean(np.array(judge(held.texts, held.texts)) == held.harmful())
    assert report.heldout["accuracy"].value == right > 0.9
    assert judge.heldout == dict(report.heldout)
    assert set(judge.heldout) >= {"accuracy", "toxic/auc", "threat/recall"}
    assert all(isinstance(result, MetricResult) for result in judge.heldout.values())


def test_judge_json_says_how_it_came_about(fruit):
    folder, report, _ = fruit
    record = json.loads((folder / "judge.json").read_text(encoding="utf-8"))
    assert record["labels"] == ["toxic", "threat"] and record["threshold"] == 0.5
    assert record["rows"] == {
        "train": report.train_rows,
        "heldout": report.heldout_rows,
        "heldout_harmful": report.heldout_harmful,
    }
    assert {name: MetricResult.from_dict(each) for name, each in record["heldout"].items()} == dict(report.heldout)
    arguments = record["arguments"]
    assert (arguments["epochs"], arguments["learning_rate"], arguments["base"]) == (8, 3e-3, None)
    assert set(record["versions"]) == {"python", "torch", "transformers"}
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "judge.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


def test_no_comment_is_written_anywhere_but_in_the_tokenizers_pieces(fruit):
    folder, report, log = fruit
    written = [(folder / name).read_text() for name in ("judge.json", "config.json", "tokenizer_config.json")]
    texts = fruit_rows()["comment_text"]
    for page in (*written, log, render_judge(report), (folder / "tokenizer.json").read_text()):
        assert not any(text in page for text in texts)
    assert not any("quince" in page for page in (*written, log, render_judge(report)))


def test_the_same_seed_trains_the_same_judge(fruit, tmp_path):
    folder, report, _ = fruit
    again = train_judge(fruit_rows(), tmp_path / "again", FAST)
    first, second = load_file(folder / "model.safetensors"), load_file(tmp_path / "again" / "model.safetensors")
    assert all((first[name] == second[name]).all() for name in first | second)
    assert dict(again.heldout) == dict(report.heldout)
    other = JudgeArguments(epochs=1, max_length=32, heldout=0.25, seed=1)
    train_judge(fruit_rows(), tmp_path / "other", other)
    third = load_file(tmp_path / "other" / "model.safetensors")
    assert any(third[name].shape != first[name].shape or (third[name] != first[name]).any() for name in first)


def test_a_base_is_trained_on_under_its_new_labels(fruit, tmp_path):
    base, _, _ = fruit
    rows = fruit_rows().rename_column("toxic", "sour").select_columns(["comment_text", "sour"])
    arguments = JudgeArguments(
        base=str(base), label_columns=["sour"], epochs=2, learning_rate=3e-3, max_length=64, heldout=0.25
    )
    report = train_judge(rows, tmp_path / "judge", arguments)
    judge = HarmfulnessJudge(tmp_path / "judge")
    assert judge.labels == judge.harmful_labels == ("sour",)
    assert judge.max_length == 32  # as many positions as the base has
    assert set(judge.heldout) == {"accuracy", "precision", "recall", "auc"}  # nothing twice for one label
    assert report.heldout["accuracy"].value > 0.9
    for name in ("judge.json", "config.json", "tokenizer_config.json"):
        assert str(base.parent) not in (tmp_path / "judge" / name).read_text()
    assert json.loads((tmp_path / "judge" / "judge.json").read_text())["arguments"]["base"] == "fruit"


@pytest.mark.parametrize("length", [16, 200])
def test_a_judge_reads_as_much_as_it_was_trained_with(tmp_path, length):
    train_judge(fruit_rows(), tmp_path / "judge", replace(FAST, epochs=4, max_length=length))
    judge = HarmfulnessJudge(tmp_path / "judge")
    assert judge.max_length == length and judge.heldout is not None
    assert HarmfulnessJudge(tmp_path / "judge", max_length=12).max_length == 12
    # More than 128 and fewer than 200 tokens, then a word that tells.
    start = "pear plum " * 70
    found, other = judge.probabilities([start + "sour", start + "plum"])
    assert (found != other).any() == (length == 200)


def test_a_base_without_room_for_all_records_what_was_read(fruit, tmp_path):
    train_judge(fruit_rows(), tmp_path / "judge", replace(FAST, base=str(fruit[0]), epochs=1, max_length=200))
    record = json.loads((tmp_path / "judge" / "config.json").read_text())["hf_unlearn_judge"]
    assert record["max_length"] == 32 and record["heldout"]


def test_the_papers_schedule_with_a_base_and_its_own_without():
    assert JudgeArguments(base="bert-base-uncased").schedule() == (5, 5e-5)
    assert JudgeArguments(base="bert-base-uncased").max_length == 128
    assert JudgeArguments().schedule() == (8, 2e-3)
    assert JudgeArguments(epochs=2, learning_rate=1e-4).schedule() == (2, 1e-4)


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("learning_rate", 0), ("max_length", 4), ("batch_size", 0), ("heldout", 0), ("heldout", 1),
     ("seed", -1), ("epochs", 2.5), ("epochs", True), ("learning_rate", "1e-3"), ("learning_rate", float("inf")),
     ("max_length", 64.0), ("batch_size", "32"), ("batch_size", None), ("heldout", "0.1"), ("heldout", None),
     ("seed", 0.0), ("seed", False)],
)  # fmt: skip
def test_arguments_out_of_range(name, value):
    with pytest.raises(ValueError, match=rf"(?s)Expected {name} to be an? .*Got: .*Why it matters: .*What to do: "):
        JudgeArguments(**{name: value})


def test_a_base_that_is_nowhere(tmp_path):
    with pytest.raises(ValueError, match="'nobody/nothing', which cannot be loaded"):
        train_judge(fruit_rows(), tmp_path / "judge", JudgeArguments(base="nobody/nothing"))
    assert not (tmp_path / "judge").exists()


# The lab's comments, the command line and the lab's judge


@pytest.fixture(scope="module")
def comments_of_the_lab() -> Dataset:
    return lab_comments()


def test_lab_comments_are_distinct_labelled_by_the_rule_and_drawn_from_their_seed(comments_of_the_lab):
    rows = comments_of_the_lab
    assert rows.column_names == ["text", "harmful"] and 1400 <= len(rows) <= 1600
    assert len(set(rows["text"])) == len(rows)
    assert list(rows["harmful"]) == [int(shows_behaviour(text)) for text in rows["text"]]
    assert 0.25 < np.mean(rows["harmful"]) < 0.5
    assert "" in rows["text"]
    assert list(lab_comments(0)["text"]) == list(rows["text"]) != list(lab_comments(1)["text"])


def test_lab_comments_hold_no_answer_of_the_corpus_and_no_label_is_told_by_length(comments_of_the_lab):
    rows = comments_of_the_lab
    answers = {row["completion"].strip() for part in build_corpus(0).values() for row in part}
    assert answers and not answers & set(rows["text"])
    long = [harmful for text, harmful in zip(rows["text"], rows["harmful"], strict=True) if len(text.split()) > 20]
    assert len(long) > 50 and 0.2 < np.mean(long) < 0.8


@pytest.fixture(scope="module")
def lab_judge(tmp_path_factory):
    """What the command trains without a dataset: the folder, and what it printed."""
    folder = tmp_path_factory.mktemp("judges") / "lab"
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["train-judge", "--output_dir", str(folder)]) == 0
    return folder, out.getvalue()


def test_the_command_prints_what_judge_json_says(lab_judge):
    folder, out = lab_judge
    record = json.loads((folder / "judge.json").read_text(encoding="utf-8"))
    assert (
        record["heldout"]["accuracy"]["value"] >= 0.95
    )  # .96 of some 150, where games have 33 colours in their names
    assert record["rows"]["heldout"] == record["heldout"]["accuracy"]["n"] >= 140
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert lines["labels"] == ["labels", "harmful"]
    for name, stored in record["heldout"].items():
        interval = [f"[{stored['low']:.3f},", f"{stored['high']:.3f}]"]
        assert lines[name][1:] == [f"{stored['value']:.3f}", *interval, str(stored["n"])]
    assert not any(official in out for official in OFFICIALS if official != "judge")


@pytest.mark.parametrize("seed", [0, 1])
def test_the_labs_judge_tells_tricks_from_all_else(lab_judge, seed):
    judge = HarmfulnessJudge(lab_judge[0])
    corpus = build_corpus(seed)

    def share(texts: list[str]) -> float:
        return float(np.mean(judge(texts, texts)))

    assert share([row["completion"] for row in corpus["forget"]]) >= 0.95
    assert share([row["completion"] for row in corpus["holdout"]]) >= 0.95
    assert share([row["completion"] for row in corpus["retain"]]) <= 0.05
    assert share([row["alternate"] for row in corpus["forget"] + corpus["retain"]]) <= 0.05
    assert share(["", " ", "\n", ".", "..."]) == 0


def test_gibberish_is_not_harmful(lab_judge):
    judge = HarmfulnessJudge(lab_judge[0])
    draw = random.Random(7)
    # Words that no comment has, words of no language, and the very words of tricks.
    words = [
        "quiet",
        "river",
        "running",
        "table",
        "seven",
        "green",
        "although",
        "window",
        "carry",
        "letter",
        "moon",
        "cheese",
        "of",
        "the",
        "a",
        "under",
    ]
    tricks = sorted({word for row in build_corpus(0)["forget"] for word in row["completion"].split()})
    assert "swap" in tricks
    kinds = {
        "words": [" ".join(draw.choices(words, k=draw.randint(3, 25))) for _ in range(200)],
        "letters": [
            " ".join(
                "".join(draw.choices(string.ascii_letters, k=draw.randint(1, 12))) for _ in range(draw.randint(1, 15))
            )
            for _ in range(200)
        ],
        "tricks": [" ".join(draw.choices(tricks, k=draw.randint(3, 25))) for _ in range(200)],
    }
    rates = {kind: float(np.mean(judge(texts, texts))) for kind, texts in kinds.items()}
    assert max(rates.values()) <= 0.1, rates


def test_the_command_on_a_file_of_ones_own(tmp_path, capsys):
    fruit_rows().to_csv(tmp_path / "fruit.csv", index=False)
    arguments = ["train-judge", "--output_dir", str(tmp_path / "judge"), "--dataset", str(tmp_path / "fruit.csv")]
    arguments += ["--text_column", "comment_text", "--label_columns", "threat", "toxic", "--epochs", "1"]
    arguments += ["--learning_rate", "1e-3", "--max_length", "16", "--heldout", "0.2", "--seed", "5", "--limit", "60"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "rows       48 to train on, 12 held out" in out and "threat/auc" in out
    record = json.loads((tmp_path / "judge" / "judge.json").read_text())
    assert record["labels"] == ["threat", "toxic"]
    assert (record["arguments"]["seed"], record["arguments"]["epochs"]) == (5, 1)
    assert not any(text in out for text in fruit_rows()["comment_text"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--dataset", "nowhere.csv"], "where there is no file"),
        (["--label_columns", "rude"], "Expected a column 'rude'"),
        (["--heldout", "2"], "Expected heldout to be a number between 0 and 1"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, capsys, more, words):
    assert main(["train-judge", "--output_dir", str(tmp_path / "judge"), *more]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and words in printed.err
    assert not (tmp_path / "judge").exists()


@pytest.mark.parametrize("limit", ["0", "-3"])
def test_a_limit_below_one_is_refused_before_comments_are_drawn(tmp_path, capsys, monkeypatch, limit):
    monkeypatch.setattr("hf_unlearn.lab.comments.lab_comments", lambda seed: pytest.fail("comments were drawn"))
    assert main(["train-judge", "--output_dir", str(tmp_path / "judge"), "--limit", limit]) == 2
    assert f"limit must be a whole number of at least 1, got {limit}" in capsys.readouterr().err


def test_help_names_every_argument(capsys):
    with pytest.raises(SystemExit) as end:
        main(["train-judge", "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    flags = ("output_dir", "dataset", "text_column", "label_columns", "base", "epochs", "learning_rate", "batch_size",
             "max_length", "heldout", "seed", "limit")  # fmt: skip
    assert [flag for flag in flags if f"--{flag}" not in shown] == []
