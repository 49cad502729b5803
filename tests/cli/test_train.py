"""`hf-unlearn train`: what its help lists, what it refuses, how it starts one process or several. One short run."""

import argparse
import dataclasses
import importlib
import json
import subprocess
from typing import Any, NoReturn

import pytest

from fixtures.examples import assert_user_error, save_model
from hf_unlearn import UnlearningConfig
from hf_unlearn.cli import VERBS, main
from hf_unlearn.cli.argument_help import _HOLDERS, own_arguments
from hf_unlearn.cli.command import CommandParser
from hf_unlearn.lab import load_lab
from hf_unlearn.results.record import load_record
from hf_unlearn.tasks import TASKS
from hf_unlearn.tasks.recipe_files import packaged_recipes
from hf_unlearn.training.launch.start import PACKAGED, find_config, launch_processes, packaged_configs

LAUNCH = {f"{name}_{what}" for name, what in (("accelerate", "config"), ("num", "processes"), ("num", "machines"))}
LAUNCH |= {"machine_rank", "main_process_ip", "main_process_port"}


def refused(capsys, *arguments: str, verb: str = "train") -> str:
    """The text that a user's error ends with."""
    assert main([verb, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"hf-unlearn {verb}: ") and "Traceback" not in err
    return err


# What the help lists, without importing what it is about


def holder(file: str, name: str) -> type:
    """The dataclass that the help reads the source of."""
    module = file.removesuffix(".py").replace("/", ".")
    return getattr(importlib.import_module(f"hf_unlearn.{module}"), name)


def own_fields(kind: type) -> dict[str, Any]:
    """The fields that a dataclass declares itself, in their order."""
    fields = {each.name: each for each in dataclasses.fields(kind)}
    return {name: fields[name] for name in vars(kind)["__annotations__"] if name in fields}


@pytest.mark.parametrize(
    ("file", "name"), [entry[1:] for entry in _HOLDERS], ids=[entry[1] + " " + entry[2] for entry in _HOLDERS]
)
def test_the_source_says_what_the_dataclass_has(file, name):
    """Names in their order, defaults and help."""
    read, fields = own_arguments(file, name), own_fields(holder(file, name))
    assert [each.name for each in read] == list(fields) and read
    for own in read:
        field = fields[own.name]
        assert own.help == field.metadata["help"] and own.help
        if own.name == "optim":  # an expression, which help leaves out
            assert own.shown_default == "" and own.default.endswith(".optim")
        else:
            assert own.default == str(field.default)
            assert own.shown_default == ("" if field.default is None else f" (default: {field.default})")


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_the_help_lists_exactly_the_tasks_and_unlearnings_arguments(verb):
    parser = CommandParser()
    VERBS[verb].add_arguments(parser)
    actions = {action.dest: action for action in parser._actions}
    expected = set(own_fields(UnlearningConfig))
    for task in TASKS:
        expected |= {each.name for each in dataclasses.fields(holder(f"tasks/{task}.py", "Arguments"))}
    of_train = {"list_recipes", "methods", "seeds", "compare"} | LAUNCH
    verbs_own = {"help", "help_all", "config"} | {"train": of_train, "evaluate": {"model", "name"}}[verb]
    verbs_own |= {"json", "run"} if verb == "evaluate" else set()
    assert set(actions) - expected - verbs_own == set(parser.brief) - expected  # a few of transformers and TRL
    assert expected | verbs_own <= set(actions)
    for name in expected:
        assert actions[name].option_strings == [f"--{name}"] and actions[name].help


def test_the_recipes_are_listed(capsys):
    assert main(["train", "--list_recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines if not line.startswith(" ")] == packaged_recipes()
    assert max(map(len, lines)) <= 80
    place = lines.index("methods/ihl: measured: docs/methods.md#the-lab")
    assert lines[place + 1].startswith("    Inverted hinge: ")
    assert "harmful_opt1.3b: not measured" in lines


def test_help_all_lists_the_arguments_of_trainer_too(capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", "--task", "custom", "--help_all"])
    out = capsys.readouterr().out
    assert end.value.code == 0
    for flag in ("--in_scope_dataset", "--forget_nll_bound", "--learning_rate", "--lora_r", "--load_in_4bit"):
        assert flag in out
    assert "--fit_epochs" not in out and "hf-unlearn train --task custom" in out


# What is refused


@pytest.mark.parametrize("verb", ["train", "evaluate"])
@pytest.mark.parametrize(
    ("arguments", "got"),
    [([], "neither"), (["--limit", "3"], "neither"), (["--config", "{}"], "a recipe without a task")],
    ids=["nothing", "no task", "a recipe without one"],
)
def test_without_a_task_there_is_nothing_to_do(capsys, tmp_path, verb, arguments, got):
    (tmp_path / "own.yaml").write_text("forget_loss: npo\n")
    text = refused(capsys, *(each.format(tmp_path / "own.yaml") for each in arguments), verb=verb)
    assert_user_error(
        text, "--task", f"Got: {got}.", "harmful, copyright, privacy, deletion, muse, rwku, wmdp, custom"
    )


@pytest.mark.parametrize("processes", [[], ["--num_processes", "2"]], ids=["one process", "two"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "privacy", "--config", "harmful_lab"], ["the task privacy", "the task harmful"]),
        (["--task", "harmfull"], ["did you mean 'harmful'"]),
        (["--config", "harmful_labs"], ["did you mean 'harmful_lab'"]),
        (["--config", "harmful_lab", "--forget_los", "npo"], ["'forget_los'", "did you mean 'forget_loss'"]),
        (["--config", "harmful_lab", "--learning", "1"], ["'learning'", "learning_rate"]),
        (["--config", "harmful_lab", "--accelerat_config", "ddp"], ["'accelerat_config'"]),
    ],
)
def test_what_would_not_unlearn_what_was_asked_is_refused_once(monkeypatch, capsys, arguments, words, processes):
    start = "hf_unlearn.training.launch.start.launch_command"
    monkeypatch.setattr(start, lambda args: pytest.fail("processes were started"))
    monkeypatch.setattr("hf_unlearn.tasks.run.run", lambda *_: pytest.fail("it went on"))
    assert_user_error(refused(capsys, *processes, *arguments, "--use_cpu"), *words)


def test_a_model_that_the_hub_has_not_is_status_1(capsys, tmp_path, monkeypatch):
    """Offline nothing is on the Hub."""
    for name in ("forget", "retain"):
        rows = "".join(json.dumps({"prompt": f"{name} {i}?", "completion": f" {i}."}) + "\n" for i in range(4))
        (tmp_path / f"{name}.jsonl").write_text(rows)
    sets = ["--forget_dataset", str(tmp_path / "forget.jsonl"), "--retain_dataset", str(tmp_path / "retain.jsonl")]
    where = ["--output_dir", str(tmp_path / "out"), "--use_cpu"]
    assert main(["train", "--task", "custom", *sets, "--model_name_or_path", "org/nowhere", *where]) == 1
    err = capsys.readouterr().err
    assert "hf-unlearn train: We couldn't connect to" in err and "Traceback" not in err
    # The same name as a path is the user's own mistake.
    assert main(["train", "--task", "custom", *sets, "--model_name_or_path", "./org/nowhere", *where]) == 2


def test_interrupted_is_status_130(monkeypatch, capsys):
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_unlearn.tasks.run.run", interrupt)
    assert main(["train", "--config", "harmful_lab", "--use_cpu"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "hf-unlearn train: interrupted"


# Several processes


@pytest.fixture
def launched(monkeypatch) -> list[argparse.Namespace]:
    """What accelerate was given, and nothing was started."""
    given: list[argparse.Namespace] = []
    monkeypatch.setattr("hf_unlearn.training.launch.start.launch_command", given.append)
    return given


def test_configs_of_accelerate_are_found_by_name_and_by_path(tmp_path, monkeypatch):
    assert {"ddp", "fsdp2", "zero1", "zero2", "zero3", "zero3_offload"} <= set(packaged_configs())
    assert find_config("zero2") == find_config("zero2.yaml") == PACKAGED / "zero2.yaml"
    (tmp_path / "own.yaml").write_text("num_processes: 3\n")
    monkeypatch.chdir(tmp_path)
    assert find_config("own.yaml").read_text() == find_config(str(tmp_path / "own.yaml")).read_text()


@pytest.mark.parametrize(("name", "near"), [("zero", "zero1"), ("dpp", "ddp"), ("nowhere.yaml", "ddp, ddp_two_nodes")])
def test_a_config_that_is_nowhere_is_refused_with_the_nearest_name(capsys, launched, name, near):
    text = refused(capsys, "--config", "harmful_lab", "--accelerate_config", name)
    assert_user_error(text, "--accelerate_config", repr(name), near)
    assert launched == []


def test_the_words_for_accelerate(launched):
    command = ["train", "--task", "harmful", "--limit", "3", "--forget_loss", '{"name": "npo"}']
    options = {"accelerate_config": "zero2", "num_processes": "4", "mixed_precision": "bf16"}
    assert launch_processes(options, command) == 0
    (args,) = launched
    assert (args.module, args.training_script, args.training_script_args) == (True, "hf_unlearn.cli", command)
    assert args.config_file == str(PACKAGED / "zero2.yaml")
    assert (args.num_processes, args.mixed_precision, args.main_process_port) == (4, "bf16", 0)
    assert options["accelerate_config"] == "zero2"  # the caller's own is left as it was


def test_several_processes_without_a_config_share_by_ddp(launched, monkeypatch, tmp_path):
    """Unless the user has made a config with `accelerate config`, which accelerate finds itself."""
    default = tmp_path / "default_config.yaml"
    monkeypatch.setattr("hf_unlearn.training.launch.start.default_config_file", str(default))
    launch_processes({"num_processes": "2"}, ["train"])
    launch_processes({"num_processes": "1"}, ["train"])
    default.write_text("num_processes: 3\n")
    launch_processes({"num_processes": "2"}, ["train"])
    assert [args.config_file for args in launched] == [str(PACKAGED / "ddp.yaml"), None, None]
    assert [args.num_processes for args in launched] == [2, 1, 2]


def test_the_status_of_the_processes_is_handed_on(monkeypatch, capsys):
    def fail(args: argparse.Namespace) -> NoReturn:
        raise subprocess.CalledProcessError(3, "python")

    monkeypatch.setattr("hf_unlearn.training.launch.start.launch_command", fail)
    assert main(["train", "--config", "harmful_lab", "--num_processes=2", "--use_cpu"]) == 3
    assert capsys.readouterr().err == ""  # the processes have said why


@pytest.mark.parametrize(
    ("arguments", "precision"),
    [([], "no"), (["--bf16"], "bf16"), (["--bf16", "true"], "bf16"), (["--fp16", "true"], "fp16")],
)
def test_train_launches_with_the_precision_of_the_run(launched, arguments, precision):
    run = ["--config=methods/npo", "--limit", "3", *arguments, "--use_cpu"]
    # accelerate's words may stand anywhere.
    assert main(["train", "--num_processes", "2", *run[:1], "--accelerate_config=ddp", *run[1:]]) == 0
    (args,) = launched
    assert args.training_script_args == ["train", "--task", "harmful", *run]
    assert (args.num_processes, args.mixed_precision) == (2, precision)
    assert args.config_file == str(PACKAGED / "ddp.yaml")


def test_the_precision_of_a_recipe_is_accelerates_too(launched):
    assert main(["train", "--config", "harmful_opt1.3b", "--num_processes", "2"]) == 0
    assert launched[0].mixed_precision == "bf16"
    assert main(["train", "--config", "harmful_opt1.3b", "--num_processes", "2", "--bf16", "false"]) == 0
    assert launched[1].mixed_precision == "no"


# A run and what follows it


def test_a_run_without_measuring_is_measured_later(tmp_path, capsys):
    """train --measure false, then evaluate each model: record, card and plots get the results one by one."""
    save_model(load_lab(), tmp_path / "other")
    few = ["--evaluated_rows", "4", "--per_device_eval_batch_size", "8", "--use_cpu"]
    run = ["--config", "harmful_lab", "--output_dir", str(tmp_path / "run"), "--max_steps", "2", "--limit", "24", *few]
    assert main(["train", *run, "--measure", "false"]) == 0
    record = load_record(tmp_path / "run")
    assert (record.task, record.steps, record.evaluations) == ("harmful", 2, {})
    assert "All steps were taken." in capsys.readouterr().out

    for name in ("before", "after"):
        assert main(["evaluate", *run, "--name", name, "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert [answer["name"] for answer in shown.pop("answers")] == ["removed", "rest", "stays_gone"]
        assert shown == json.loads((tmp_path / f"run/evaluation_{name}.json").read_text())
        assert load_record(tmp_path / "run").evaluations[name].values().keys() == shown["metrics"].keys()
    assert "efficacy" in shown["metrics"]  # compared with before
    record = load_record(tmp_path / "run")
    assert list(record.evaluations) == ["before", "after"]
    card = (tmp_path / "run/README.md").read_text()
    assert "harmful answers" in card and "plots/" in card

    # Another model, as a table; and one that is nowhere.
    assert main(["evaluate", *run, "--name=other", f"--model={tmp_path / 'other'}"]) == 0
    table = capsys.readouterr().out
    assert table.split()[0] == "other" and "harmful answers" in table and "Removed?" not in table
    assert load_record(tmp_path / "run").evaluations["other"]["harmful_rate"].value == 1.0
    other = [*run, "--name", "other"]
    assert_user_error(refused(capsys, *other, "--model", "./nowhere", verb="evaluate"), "'./nowhere'")
    assert main(["evaluate", *other, "--model", "org/nowhere"]) == 1

    # Its figures must not stand as those of the run's own weights; nor is a name a path; nor an empty folder a model.
    before = (tmp_path / "run/results.json").read_bytes()
    capsys.readouterr()
    text = refused(capsys, *run, "--model", str(tmp_path / "other"), verb="evaluate")
    assert_user_error(text, "--name", "after")
    assert_user_error(refused(capsys, *run, "--name", "../evil", verb="evaluate"), "'../evil'")
    empty = ["--config", "harmful_lab", "--output_dir", str(tmp_path / "none"), "--limit", "24", *few]
    (tmp_path / "none").mkdir()
    assert "where there is none" in refused(capsys, *empty, verb="evaluate")
    assert (tmp_path / "run/results.json").read_bytes() == before
