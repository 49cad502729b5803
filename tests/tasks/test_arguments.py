"""Arguments of a run: where a recipe is found, what is refused, what of a command line can be repeated. No run."""

import os
import shlex

import pytest

from fixtures.examples import assert_four_parts, assert_one_line
from hf_unlearn.cli.train import task_of
from hf_unlearn.tasks import check_task, parse_task
from hf_unlearn.tasks.command_words import split_config
from hf_unlearn.tasks.recipe_files import PACKAGED, find_recipe, packaged_recipes, read_recipe

TRIED = "HF_UNLEARN_TRIED_BY_A_TEST"


def both(task: str, *arguments: str) -> str:
    """The text with which arguments are refused: the same before processes are started and in each of them."""
    with pytest.raises(ValueError) as checked:
        check_task(task, ["--use_cpu", *arguments])
    with pytest.raises(ValueError) as parsed:
        parse_task(task, ["--use_cpu", *arguments])
    assert str(checked.value) == str(parsed.value)
    return str(parsed.value)


# --config


@pytest.mark.parametrize(
    ("arguments", "config", "rest"),
    [
        ([], None, []),
        (["--limit", "3"], None, ["--limit", "3"]),
        (["--config", "a.yaml", "--limit", "3"], "a.yaml", ["--limit", "3"]),
        (["--limit", "3", "--config=a.yaml"], "a.yaml", ["--limit", "3"]),
        (["--config=a=b.yaml"], "a=b.yaml", []),
        (["--config", "a", "--config=b"], "b", []),  # as of two equal flags
        (["--configs", "a"], None, ["--configs", "a"]),
    ],
)
def test_config_is_told_from_the_other_arguments(arguments, config, rest):
    assert split_config(arguments) == (config, rest)


def test_config_without_a_recipe_is_refused():
    with pytest.raises(ValueError) as error:
        split_config(["--limit", "3", "--config"])
    assert_four_parts(str(error.value), "--config at the end of the line", "harmful_lab")


# Where a recipe is


def test_a_recipe_is_found_by_its_path_and_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "own.yaml").write_text("limit: 3\n")
    monkeypatch.chdir(tmp_path)
    assert find_recipe("own.yaml") == find_recipe(str(tmp_path / "own.yaml")) == tmp_path / "own.yaml"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_recipe("~/own.yaml") == tmp_path / "own.yaml"
    assert find_recipe("harmful_lab") == find_recipe("harmful_lab.yaml") == PACKAGED / "harmful_lab.yaml"
    assert find_recipe("methods/npo") == PACKAGED / "methods/npo.yaml"


def test_a_file_comes_before_a_packaged_recipe_and_a_folder_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "harmful_lab").mkdir()
    assert find_recipe("harmful_lab") == PACKAGED / "harmful_lab.yaml"
    (tmp_path / "privacy_lab").write_text("limit: 3\n")
    assert find_recipe("privacy_lab") == tmp_path / "privacy_lab"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("harmful_labs", "did you mean 'harmful_lab'"),
        ("method/npo", "did you mean 'methods/npo'"),
        ("npo", "methods/npo"),
        ("../configs/ddp", "ddp"),  # packaged, and no recipe
        ("nowhere/own.yaml", "nowhere/own.yaml"),
    ],
)
def test_a_recipe_that_is_nowhere_is_refused_with_the_nearest_name(name, near):
    with pytest.raises(ValueError) as error:
        find_recipe(name)
    assert_one_line(str(error.value), repr(name), near)


@pytest.mark.parametrize("text", ["", "- limit\n- 3\n", "limit", "3: 4\n", "# a comment alone\n"], ids=repr)
def test_yaml_that_is_no_mapping_of_names_is_refused(tmp_path, text):
    (tmp_path / "own.yaml").write_text(text)
    words = both("harmful", "--config", str(tmp_path / "own.yaml"))
    assert_four_parts(words, "own.yaml", "YAML of another shape", "--list_recipes")
    assert str(tmp_path) not in words


@pytest.mark.parametrize("text", [b"limit: [3", b"limit: 3\n\tseed: 1\n", b"\xff\xfe\x00name"], ids=repr)
def test_what_is_no_yaml_is_refused_without_its_text(tmp_path, text):
    (tmp_path / "own.yaml").write_bytes(text)
    words = both("harmful", f"--config={tmp_path / 'own.yaml'}")
    assert_four_parts(words, "own.yaml", "text that is no YAML")
    assert "limit" not in words and "Error)" in words


def test_both_forms_of_config_are_read(tmp_path):
    (tmp_path / "own.yaml").write_text("task: harmful\nlimit: 3\noutput_dir: out\n")
    for form in (["--config", str(tmp_path / "own.yaml")], [f"--config={tmp_path / 'own.yaml'}"]):
        assert parse_task("harmful", [*form, "--use_cpu"]).script.limit == 3
        assert check_task("harmful", [*form, "--limit", "4"])["limit"] == 4


# What nothing reads


@pytest.mark.parametrize(
    ("task", "arguments", "name", "near"),
    [
        pytest.param("harmful", ["--forget_los", "npo"], "forget_los", "forget_loss", id="flag"),
        pytest.param("harmful", ["--forget_los=npo"], "forget_los", "forget_loss", id="flag with its value"),
        pytest.param("harmful", ["--learning", "1e-4"], "learning", "learning_rate", id="abbreviation"),
        pytest.param("harmful", ["--learning=1e-4"], "learning", "learning_rate", id="abbreviation with its value"),
        pytest.param("privacy", ["--book_source", "b.txt"], "book_source", "source", id="near one of the task"),
        pytest.param("custom", ["--in_scope", "m"], "in_scope", "in_scope_dataset", id="of a task without a recipe"),
    ],
)
def test_an_unknown_flag_is_refused_with_the_nearest_name(task, arguments, name, near):
    text = both(task, *arguments)
    assert_one_line(text, repr(name), "did you mean", repr(near))
    assert "Known names" not in text  # there are hundreds


@pytest.mark.parametrize("key", ["forget_los", "forget-loss", "forget_loss ", "Forget_loss"])
def test_an_unknown_key_is_refused_with_the_nearest_name(tmp_path, key):
    (tmp_path / "own.yaml").write_text(f'"{key}": npo\noutput_dir: out\n')
    assert_one_line(both("harmful", "--config", str(tmp_path / "own.yaml")), repr(key), "did you mean 'forget_loss'")


def test_a_key_of_the_parser_alone_is_no_argument(tmp_path):
    (tmp_path / "own.yaml").write_text("help: true\noutput_dir: out\n")
    assert "'help'" in both("harmful", "--config", str(tmp_path / "own.yaml"))


# The task


@pytest.mark.parametrize(
    ("task", "recipe"), [("harmful", "privacy_lab"), ("harmful", "copyright_lab"), ("privacy", "methods/npo")]
)
def test_a_recipe_of_another_task_is_refused_before_its_keys(task, recipe):
    found = read_recipe(find_recipe(recipe))["task"]
    text = both(task, "--config", recipe)
    assert_four_parts(text, f"a recipe of the task {task}", f"one of the task {found}", f"--task {found} --config")


def test_a_task_on_the_command_line_of_another_one_is_refused():
    assert_four_parts(both("harmful", "--task", "privacy"), "a recipe of the task harmful")
    assert parse_task("harmful", ["--use_cpu", "--task", "harmful"]).script.task == "harmful"


def test_an_unknown_task_is_refused_with_the_nearest_name():
    assert_one_line(both("harmfull"), "'harmfull'", "did you mean 'harmful'")


@pytest.mark.parametrize(
    ("arguments", "task", "rest"),
    [
        (["--task", "privacy", "--limit", "3"], "privacy", ["--limit", "3"]),
        (["--limit", "3", "--task=copyright"], "copyright", ["--limit", "3"]),
        (["--config", "methods/npo"], "harmful", ["--config", "methods/npo"]),
        (["--config=privacy_lab", "--task", "custom"], "custom", ["--config=privacy_lab"]),
    ],
)
def test_the_task_is_named_on_the_line_or_in_the_recipe(arguments, task, rest):
    assert task_of(arguments) == (task, rest)


# The environment


@pytest.fixture
def unset(monkeypatch):
    monkeypatch.setenv(TRIED, "before")  # so that it is put back, whatever a recipe does
    monkeypatch.delenv(TRIED)


def test_a_recipes_environment_is_set_where_it_runs(unset, tmp_path):
    (tmp_path / "own.yaml").write_text(f"env:\n  {TRIED}: 7\noutput_dir: out\n")
    assert "env" not in check_task("harmful", ["--config", str(tmp_path / "own.yaml")])
    assert TRIED not in os.environ  # nothing runs yet
    parse_task("harmful", ["--config", str(tmp_path / "own.yaml"), "--use_cpu"])
    assert os.environ[TRIED] == "7"


def test_an_environment_that_is_no_mapping_is_refused(tmp_path):
    (tmp_path / "own.yaml").write_text("env: [A, B]\noutput_dir: out\n")
    assert_four_parts(both("harmful", "--config", str(tmp_path / "own.yaml")), "env without names")


# The command that repeats a run


def repeated(*arguments: str, task: str = "harmful") -> str | None:
    return parse_task(task, [*arguments, "--use_cpu"]).recipe


@pytest.mark.parametrize(
    ("arguments", "recipe"),
    [
        ([], "harmful_lab"),
        (["--config", "methods/npo"], "methods/npo"),
        (["--config", str(PACKAGED / "methods/npo.yaml")], "methods/npo"),
        (["--config=harmful_lab.yaml", "--limit", "3", "--seed=1"], "harmful_lab --limit 3 --seed=1"),
        (["--use_peft", "false", "--bf16"], "harmful_lab --use_peft false --bf16"),
        (["--model_name_or_path", "org/model"], "harmful_lab --model_name_or_path org/model"),
        (["--judge_labels", "a", "b", "--limit", "3"], "harmful_lab --judge_labels a b --limit 3"),
        (["--language", "en", "de", "--license", "mit", "--limit", "3"], "harmful_lab --limit 3"),
    ],
)
def test_a_packaged_recipe_is_repeated_with_what_came_on_top(arguments, recipe):
    assert repeated(*arguments) == recipe


def test_where_a_run_takes_place_and_for_whom_is_not_repeated(tmp_path):
    here = ["--output_dir", str(tmp_path), "--partial_dir=parts", "--reference_cache_dir", str(tmp_path)]
    here += ["--push_to_hub", "--hub_model_id", "me/model", "--hub_token", "hf_secret", "--hub-private-repo", "true"]
    here += ["--run_name", "mine", "--resume_from_checkpoint", "true", "--use_cpu", "true"]
    assert repeated("--limit", "3", *here, "--seed", "1") == "harmful_lab --limit 3 --seed 1"


def test_what_a_shell_would_split_is_quoted():
    losses = '[{"name": "npo", "beta": 0.2}, "grad_ascent"]'
    command = repeated("--forget_loss", losses, "--template", "Q: {prompt} A: {completion}")
    assert shlex.split(command) == [
        "harmful_lab",
        *["--forget_loss", losses],
        *["--template", "Q: {prompt} A: {completion}"],
    ]
    assert repeated("--config", *shlex.split(command)) == command


@pytest.mark.parametrize("form", ["{flag} {value}", "{flag}={value}"])
@pytest.mark.parametrize("flag", ["--forget_dataset", "--model_name_or_path", "--retain_dir"])
def test_a_run_on_a_path_cannot_be_repeated_by_others(monkeypatch, tmp_path, flag, form):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    task = "copyright" if flag == "--retain_dir" else "harmful"
    for value in ("here", "./there", "/some/where", "~/model"):
        assert repeated(*form.format(flag=flag, value=value).split(), task=task) is None, value
    assert repeated(*form.format(flag=flag, value="org/there").split(), task=task) is not None


def test_a_recipe_of_ones_own_cannot_be_repeated_by_others(tmp_path):
    (tmp_path / "own.yaml").write_text("output_dir: out\n")
    assert repeated("--config", str(tmp_path / "own.yaml")) is None
    arguments = ["--forget_dataset", "org/rows", "--use_cpu", "--output_dir", "out"]
    assert parse_task("custom", arguments).recipe is None  # no recipe at all


def test_every_packaged_recipe_is_repeated_by_its_name():
    for name in packaged_recipes():
        task = read_recipe(find_recipe(name))["task"]
        assert repeated("--config", name, "--limit", "9", task=task) == f"{name} --limit 9"
