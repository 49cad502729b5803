"""What examples/copyright.py, privacy.py and the judge of harmful.py refuse before anything is trained. No run."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import NoReturn

import pytest
from transformers import BertConfig, BertForSequenceClassification

from fixtures.examples import assert_user_error, load_script, refused, save_model, save_tofu, start
from hf_unlearn.lab import load_lab
from hf_unlearn.tasks import make_task, parse_task
from hf_unlearn.tasks.task import Task

TEXT = "The lamp keeper counted the boats and wrote their number down. " * 20


@pytest.fixture
def folder(tmp_path) -> Path:
    """A working folder with a book, two books to keep, a folder without any, and one of TOFU's files."""
    (tmp_path / "book.txt").write_text(TEXT)
    (tmp_path / "books").mkdir()
    for name in ("one", "two"):
        (tmp_path / f"books/{name}.txt").write_text(TEXT)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/book.md").write_text(TEXT)
    (tmp_path / "TOFU").mkdir()
    rows = [{"question": f"Who keeps lamp {number}?", "answer": f"Keeper {number}."} for number in range(4)]
    for name in ("forget10", "retain90"):
        (tmp_path / f"TOFU/{name}.json").write_text(json.dumps(rows))
    return tmp_path


# The book


BOOK, KEPT, MODEL = ["--book", "book.txt"], ["--retain_dir", "books"], ["--model_name_or_path", "m"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param([*BOOK, *KEPT], ["--model_name_or_path", "no model"], id="no model"),
        pytest.param([*BOOK, *MODEL], ["--retain_dir", "no folder of books"], id="no books to keep"),
        pytest.param(["--book", "b.txt", *KEPT, *MODEL], ["'b.txt'", "there is no file"], id="no such book"),
        pytest.param([*BOOK, *KEPT, *MODEL, "--holdout_book", "h.txt"], ["'h.txt'", "there is no file"], id="holdout"),
        pytest.param([*BOOK, "--retain_dir", "b", *MODEL], ["'b'", "there is no folder"], id="no such folder"),
        pytest.param([*BOOK, "--retain_dir", "notes", *MODEL], ["'notes'", ".txt"], id="a folder without a book"),
        pytest.param([*BOOK, *KEPT, *MODEL, "--limit", "1"], ["limit", "at least 2", "of every book"], id="low limit"),
        pytest.param([*BOOK, *KEPT, *MODEL, "--limit", "0"], ["limit", "at least 1"], id="no row"),
        pytest.param(["--limit", "4"], ["limit", "at least 5", "of every book"], id="low limit on the lab"),
        pytest.param(["--prompt_characters", "150"], ["prompt_characters", "from 1 to 120"], id="long prompt"),
        pytest.param(["--bok", "book.txt"], ["'bok'", "did you mean 'book'"], id="unknown flag"),
    ],
)
def test_a_book_that_cannot_be_forgotten_is_refused(monkeypatch, folder, arguments, words):
    text = refused("copyright", monkeypatch, folder, *arguments)
    assert_user_error(text, *words)
    assert "lamp keeper" not in text


# People


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["--source", "TOFU"], ["--model_name_or_path", "no model"], id="no model"),
        pytest.param(
            ["--source", "TOFU", *MODEL, "--split", "forget20"], ["'forget20'", "did you mean 'forget10'"], id="split"
        ),
        pytest.param(["--source", "notes", *MODEL], ["'forget10'", "without forget10.json"], id="an empty folder"),
        pytest.param(
            ["--source", "TOFU", *MODEL, "--split", "forget05"],
            ["'forget05'", "without forget05.json", "did you mean 'forget10'"],
            id="no rows to train on",
        ),
        pytest.param(
            ["--source", "TOFU", *MODEL], ["'forget10_perturbed'", "without forget10_perturbed.json"], id="no ratios"
        ),
        pytest.param(
            ["--source", "TOFU", *MODEL, "--holdout_dataset", "h.jsonl"],
            ["'h.jsonl'", "there is no file"],
            id="holdout",
        ),
        pytest.param(["--sourc_e", "TOFU"], ["'sourc_e'", "did you mean 'source'"], id="unknown flag"),
    ],
)
def test_people_that_cannot_be_forgotten_are_refused(monkeypatch, folder, arguments, words):
    text = refused("privacy", monkeypatch, folder, *arguments)
    assert_user_error(text, *words)
    assert "Keeper" not in text


# Both


@pytest.mark.parametrize(
    ("name", "key", "meant"), [("copyright", "fit_epoch", "fit_epochs"), ("privacy", "splits", "split")]
)
def test_an_unknown_key_of_a_recipe_is_named(monkeypatch, folder, name, key, meant):
    (folder / "recipe.yaml").write_text(f"{key}: 3\nforget_loss: npo\noutput_dir: out\n")
    text = refused(name, monkeypatch, folder, "--config", "recipe.yaml")
    assert_user_error(text, repr(key), f"did you mean '{meant}'")


@pytest.mark.parametrize("name", ["copyright", "privacy"])
def test_a_wrong_loss_is_refused(monkeypatch, folder, name):
    text = refused(name, monkeypatch, folder, "--forget_loss", "npoo")
    assert_user_error(text, "did you mean 'npo'")


class Built(Exception):
    """A trainer was made: the arguments went together."""


def save_books(folder: Path) -> None:
    lab = load_lab(world="books")
    save_model(lab, folder / "org/model")
    shutil.copy(lab.book_path, folder / "book.txt")
    shutil.copytree(lab.retain_dir, folder / "books")
    shutil.copy(lab.holdout_path, folder / "unseen.txt")


def save_people(folder: Path) -> None:
    lab = load_lab(world="people")
    save_model(lab, folder / "org/model")
    save_tofu(lab, folder / "locuslab/TOFU", "forget10", "retain90")
    lab.datasets["holdout"].to_json(folder / "holdout.jsonl")


@pytest.mark.parametrize(("name", "save"), [("copyright", save_books), ("privacy", save_people)])
def test_the_command_for_data_of_ones_own_that_a_script_documents(monkeypatch, tmp_path, name, save):
    """With files of the names that the docstring has; up to the trainer."""
    save(tmp_path)

    def built(*_: object, **__: object) -> NoReturn:
        raise Built

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hf_unlearn.tasks.run.RunEvaluator.__call__", built)
    if name == "copyright":
        monkeypatch.setattr("hf_unlearn.tasks.copyright.fit", lambda name, script, args, model, *_, **__: model)
    commands = re.findall(r"accelerate launch (.*?)\n\n", load_script(name).__doc__, re.S)
    (command,) = [each for each in commands if "org/model" in each]
    script, *arguments = shlex.split(command)
    assert script == f"examples/{name}.py"
    with pytest.raises(Built):
        start(name, monkeypatch, *arguments, "--use_cpu")


def lab_task(name: str, *arguments: str) -> Task:
    """The task of a run on the lab without a fit."""
    return make_task(name, parse_task(name, ["--use_cpu", *arguments]))


def test_without_a_fit_the_lab_unlearns_a_model_that_knows_the_book():
    task = lab_task("copyright", "--fit", "false")
    assert task.model == str(load_lab(world="books").model_path)


def test_a_limit_counts_for_the_labs_people_too():
    task = lab_task("privacy", "--limit", "7")
    assert {name: len(rows) for name, rows in task.sets.items()} == {"forget": 7, "retain": 7, "holdout": 7}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("copyright", ["--model_name_or_path", "m"]),
        ("copyright", ["--retain_dir", "books"]),
        ("copyright", ["--holdout_book", "book.txt"]),
        ("privacy", ["--model_name_or_path", "m"]),
        ("privacy", ["--split", "forget05"]),
        ("privacy", ["--holdout_dataset", "h.jsonl"]),
        ("privacy", ["--oracle", "m"]),
    ],
)
def test_what_the_lab_has_no_use_for_is_refused(name, arguments):
    with pytest.raises(ValueError, match="Expected"):
        lab_task(name, *arguments, *(["--fit", "false"] * (name == "copyright")))


# The judge


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    """A judge with the lab's tokenizer, whose labels nobody named."""
    folder, tokenizer = tmp_path_factory.mktemp("judge"), load_lab().load_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        num_labels=3,
        problem_type="multi_label_classification",
        pad_token_id=tokenizer.pad_token_id,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param([], ["harmful_labels", "a judge without labels", "LABEL_2"], id="no labels"),
        pytest.param(["--judge_labels", "LABEL_1", "toxic"], ["'toxic'", "LABEL_0"], id="unknown label"),
        pytest.param(
            ["--judge_labels", "LABEL_1", "--judge_threshold", "1.5"], ["judge_threshold", "1.5"], id="threshold"
        ),
    ],
)
def test_a_judge_that_cannot_judge_is_refused(monkeypatch, tmp_path, classifier, arguments, words):
    text = refused("harmful", monkeypatch, tmp_path, "--judge", str(classifier), *arguments)
    assert_user_error(text, *words)
    assert str(classifier.parent) not in text


def test_a_judge_that_is_no_classifier_is_refused(monkeypatch, tmp_path):
    model = str(load_lab().model_path)
    text = refused("harmful", monkeypatch, tmp_path, "--judge", model)
    assert_user_error(text, "trained to classify", "random weights")


def test_a_judge_that_is_nowhere_is_refused(monkeypatch, tmp_path):
    text = refused("harmful", monkeypatch, tmp_path, "--judge", "no-such/judge")
    assert_user_error(text, "'no-such/judge'", "cannot be loaded")


@pytest.mark.parametrize("asked", ["true", "checkpoint-4"])
def test_a_checkpoint_that_is_not_there_is_refused_before_any_work(monkeypatch, folder, asked):
    text = refused("privacy", monkeypatch, folder, "--resume_from_checkpoint", asked)
    assert_user_error(text, asked, "where there is none")


def test_a_path_without_a_model_is_refused(monkeypatch, folder):
    text = refused("copyright", monkeypatch, folder, *BOOK, *KEPT, "--model_name_or_path", "./no/such/model")
    assert_user_error(text, "'./no/such/model'", "there is no folder")
