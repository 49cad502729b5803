"""The command line: what each verb prints, how it ends, and that help comes at once. Not what verbs compute."""

import dataclasses
import importlib
import json
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hf_unlearn.attacks import ATTACKS
from hf_unlearn.attacks.suites import ATTACK_SUITES
from hf_unlearn.cli import VERBS, main
from hf_unlearn.cli.packaged_names import packaged_keys, packaged_names
from hf_unlearn.edits import EDITS
from hf_unlearn.errors import full_disk_error, input_error
from hf_unlearn.evaluation import SUITES
from hf_unlearn.lab import load_lab, render_lab
from hf_unlearn.losses import ANCHOR_LOSSES, FORGET_LOSSES, RETAIN_LOSSES
from hf_unlearn.metrics import METRICS
from hf_unlearn.optimizers.named import OPTIMIZERS
from hf_unlearn.results.hub.errors import PushError
from hf_unlearn.steps import STEP_WRAPPERS
from hf_unlearn.steps.weighting import WEIGHTINGS
from hf_unlearn.suppression import SUPPRESSIONS
from hf_unlearn.tasks import TASKS
from hf_unlearn.tasks.recipe_files import packaged_recipes
from hf_unlearn.version import __version__

REPOSITORY = Path(__file__).resolve().parents[2]

# Prints, as its last line, how each help ended and which slow libraries had been imported by then.
HELP_SCRIPT = """
import json, sys
from hf_unlearn.cli import main
ended = []
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as end:
        ended.append(end.code)
slow = {"torch", "transformers", "datasets", "trl", "peft", "accelerate", "numpy", "scipy", "sklearn", "matplotlib"}
slow |= {"huggingface_hub", "jinja2", "yaml", "shtab"}
print(json.dumps([ended, sorted(slow & set(sys.modules))]))
"""


def test_the_command_is_declared():
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, name = scripts["hf-unlearn"].split(":")
    assert getattr(importlib.import_module(module), name) is main


def test_methods_lists_everything_that_a_config_can_name(capsys):
    assert main(["methods"]) == 0
    blocks = capsys.readouterr().out.rstrip().split("\n\n")
    losses = [*FORGET_LOSSES.values(), *RETAIN_LOSSES.values(), *ANCHOR_LOSSES.values()]
    wrapped = [*losses, *STEP_WRAPPERS.values()]
    parts = [*wrapped, *WEIGHTINGS.values(), *EDITS.values(), *SUPPRESSIONS.values()]
    parts += ATTACKS.values()
    headings = ["FORGET LOSSES", "RETAIN LOSSES", "ANCHOR LOSSES", "STEP WRAPPERS", "WEIGHTING", "OPTIMIZERS"]
    headings += ["EDITS", "SUPPRESSIONS", "ATTACKS", "SUITES", "METRICS", "TASKS", "RECIPES"]
    assert len(blocks) == 1 + len(headings) + len(parts) + len(OPTIMIZERS) > 30
    for heading in headings:
        assert len([block for block in blocks if block.startswith(heading)]) == 1
    for part in parts:
        texts = [" ".join(b.split()) for b in blocks if b.startswith(f"{part.name}  ({part.__name__})")]
        assert len(texts) == 1
        assert f"formula {part.formula}" in texts[0] and (not part.paper or f"paper {part.paper}" in texts[0])
        made = part()
        for argument in dataclasses.fields(made):
            assert f"{argument.name}={getattr(made, argument.name)}" in texts[0]
        if part in wrapped:
            assert [why for why in part.incompatible_with.values() if why not in texts[0]] == []


def test_methods_on_a_loss_worked_out_by_hand(capsys):
    main(["methods"])
    assert (
        "npo  (NPO)\n"
        "  formula    (2/b) softplus(-b (NLL - NLL_ref))\n"
        "  arguments  weight=1.0, beta=0.1\n"
        "  mean over  rows\n"
        "  needs      forget rows; reference log-probs of forget rows\n"
        "  works with LoRA, DDP, ZeRO-1 and 2, ZeRO-3, FSDP2\n"
        "  paper      Zhang et al. 2024, arXiv:2404.05868"
    ) in capsys.readouterr().out


def test_lab_prints_the_lab(capsys):
    lab = load_lab()
    assert main(["lab"]) == 0
    out = capsys.readouterr().out
    assert out == render_lab(lab) + "\n"
    header, rows = out.splitlines()[:2]
    assert header.split() == ["forget", "retain", "paraphrase", "holdout"]
    assert rows.split() == ["rows", "120", "320", "120", "360"]
    assert str(lab.model_path) in out and str(lab.oracle_path) in out


def test_lab_hands_its_arguments_on(monkeypatch, capsys):
    lab, given = load_lab(), {}
    monkeypatch.setattr("hf_unlearn.lab.load_lab", lambda **arguments: given.update(arguments) or lab)
    assert main(["lab", "--world", "people", "--seed", "3", "--cache_dir", "here", "--force"]) == 0
    assert given == {"world": "people", "seed": 3, "cache_dir": "here", "force": True, "checkpoint": False}
    # This lab was made without one.
    assert main(["lab", "--checkpoint"]) == 2 and given["checkpoint"]
    assert "load_lab(world=" in capsys.readouterr().err


def test_a_users_error_is_its_text_and_status_2(capsys):
    assert main(["lab", "--seed", "-1"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "hf-unlearn lab: seed must be a whole number of at least 0, got -1\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["forget"], "invalid choice: 'forget'"),
        ([], "required: COMMAND"),
        (["lab", "--seed", "one"], "invalid int value: 'one'"),
        (["lab", "--seeds"], "--seeds"),
        (["methods", "npo"], "unrecognized arguments: npo"),
    ],
)
def test_what_the_parser_refuses_has_status_2(capsys, arguments, words):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert words in capsys.readouterr().err


def test_help_stands_alone_and_imports_nothing_slow():
    helps = [["--help"], *([verb, "--help"] for verb in VERBS)]
    command = [sys.executable, "-c", HELP_SCRIPT, json.dumps(helps)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60)
    *text, last = done.stdout.splitlines()
    assert json.loads(last) == [[0] * len(helps), []]
    shown = "\n".join(text)
    assert "usage: hf-unlearn [-h] [--version] COMMAND" in shown
    for name, verb in VERBS.items():
        # Those that are open say by hand how they are called.
        assert f"usage: hf-unlearn {name} {'' if verb.open else '[-h]'}" in shown
        assert verb.help.split(":")[0] in " ".join(shown.split())
    for flag in ("--seed", "--cache_dir", "--force", "--json", "--forget_loss", "--accelerate_config", "--dry_run"):
        assert flag in shown


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]], ids=" ".join)
def test_help_takes_less_than_a_second(arguments):
    """Of the processor's time, twice of which is granted to a busy machine; the best of three counts."""
    code = "import sys; from hf_unlearn.cli import main; sys.exit(main(sys.argv[1:]))"
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code, *arguments], cwd=REPOSITORY, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < 2


def test_the_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hf-unlearn {__version__}\n"


# How it ends


def raising(monkeypatch, error: BaseException) -> None:
    """Make `hf-unlearn lab` end with an exception."""

    def load_lab(**arguments):
        raise error

    monkeypatch.setattr("hf_unlearn.lab.load_lab", load_lab)


def test_interrupted_is_status_130(monkeypatch, capsys):
    raising(monkeypatch, KeyboardInterrupt())
    assert main(["lab"]) == 130
    assert capsys.readouterr() == ("", "hf-unlearn lab: interrupted\n")


def test_the_first_process_of_a_launch_tells_for_all(monkeypatch, capsys):
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", lambda seconds: waited.append(seconds))
    monkeypatch.setenv("WORLD_SIZE", "2")
    ends = ((ValueError("no"), 2), (OSError("no"), 1), (KeyboardInterrupt(), 130))
    for rank, told, waits in (("0", ["no", "no", "interrupted"], []), ("1", ["no", "no", ""], [30.0, 30.0])):
        monkeypatch.setenv("RANK", rank)
        for (error, status), words in zip(ends, told, strict=True):
            raising(monkeypatch, error)
            assert main(["lab"]) == status
            assert capsys.readouterr().err == (words and f"hf-unlearn lab: {words}\n")
        assert waited == waits  # by then a launcher has ended the second process


def test_a_full_disk_is_said_with_what_to_do(monkeypatch, capsys):
    raising(monkeypatch, OSError(28, "No space left on device"))
    assert main(["lab"]) == 1
    error = "the disk is full ([Errno 28] No space left on device). Make space, then start again"
    assert capsys.readouterr() == ("", f"hf-unlearn lab: {error}\n")


def test_a_full_disk_that_is_told_in_four_parts_is_told_once(monkeypatch, capsys):
    parts = dict(expected="room", got="none", why="it is lost", fix="make room")
    raising(monkeypatch, full_disk_error(**parts))
    assert main(["lab"]) == 1
    assert capsys.readouterr() == ("", f"hf-unlearn lab: {input_error(**parts)}\n")


@pytest.mark.parametrize("error", [PushError("the Hub is away"), ConnectionError("no network")])
def test_what_failed_outside_is_its_text_and_status_1(monkeypatch, capsys, error):
    raising(monkeypatch, error)
    assert main(["lab"]) == 1
    assert capsys.readouterr() == ("", f"hf-unlearn lab: {error}\n")


@pytest.mark.parametrize("error", [RuntimeError("a bug"), TypeError("a bug"), KeyError("a bug"), AssertionError()])
def test_a_bug_shows_where_it_is(monkeypatch, error):
    raising(monkeypatch, error)
    with pytest.raises(type(error)):
        main(["lab"])


def test_a_reader_that_goes_away_is_no_error():
    code = "import sys; from hf_unlearn.cli import main; sys.exit(main(['methods']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()  # before anything is printed
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, b"")


# For scripts


def test_methods_as_json_are_those_of_the_list(capsys):
    assert main(["methods", "--json"]) == 0
    found = {(each["kind"], each["name"]): each for each in json.loads(capsys.readouterr().out)}
    tables = {
        "forget_loss": FORGET_LOSSES,
        "retain_loss": RETAIN_LOSSES,
        "anchor_loss": ANCHOR_LOSSES,
        "step_wrapper": STEP_WRAPPERS,
        "weighting": WEIGHTINGS,
        "edit": EDITS,
        "suppression": SUPPRESSIONS,
        "attack": ATTACKS,
        "suite": SUITES,
        "metric": METRICS,
        "task": TASKS,
        "recipe": packaged_recipes(),
    }
    assert list(found) == [(kind, name) for kind, table in tables.items() for name in table]
    npo = found["forget_loss", "npo"]
    assert npo["class"] == "NPO" and npo["formula"] == "(2/b) softplus(-b (NLL - NLL_ref))"
    assert npo["arguments"] == {"weight": 1.0, "beta": 0.1} and npo["mean_over"] == "row"
    assert npo["needs"] == "forget rows; reference log-probs of forget rows"
    assert npo["works_with"] == "LoRA, DDP, ZeRO-1 and 2, ZeRO-3, FSDP2" and "2404.05868" in npo["paper"]


def test_the_lab_as_json(capsys):
    lab = load_lab()
    assert main(["lab", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["world"], found["seed"], found["checks"]) == ("games", 0, lab.checks)
    assert (found["model"], found["oracle"]) == (str(lab.model_path), str(lab.oracle_path))
    assert found["rows"] == {name: len(rows) for name, rows in lab.datasets.items()}


# Completion


@pytest.fixture(scope="module")
def completion(tmp_path_factory) -> Path:
    """The script for bash."""
    code = "import sys; from hf_unlearn.cli import main; sys.exit(main(['completion', 'bash']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    script = tmp_path_factory.mktemp("completion") / "hf-unlearn.bash"
    script.write_text(done.stdout)
    return script


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words after `hf-unlearn`."""
    code = """
        source "$1"; shift
        COMP_WORDS=(hf-unlearn "$@"); COMP_CWORD=$#; COMPREPLY=()
        found=$(complete -p hf-unlearn); function=${found##*-F }; function=${function%% *}
        "$function" hf-unlearn "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-c", code, "bash", str(script), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_the_completion_is_a_script_of_bash(completion):
    done = subprocess.run(["bash", "-n", str(completion)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    broken = subprocess.run(["bash", "-n"], input="if [", capture_output=True, text=True)
    assert broken.returncode != 0


def test_commands_and_flags_are_completed(completion):
    assert sorted(completed(completion, "tr")) == ["train", "train-judge"]
    assert sorted(completed(completion, "")) == sorted(VERBS)
    assert sorted(completed(completion, "train", "--forget_l")) == ["--forget_loss"]
    assert "--world" in completed(completion, "lab", "--") and "--forget_loss" not in completed(
        completion, "lab", "--"
    )
    assert completed(completion, "completion", "b") == ["bash"]


def test_the_names_that_are_read_from_the_source_are_those_of_the_tables():
    tables = {
        ("losses", "FORGET_LOSSES"): FORGET_LOSSES,
        ("losses", "RETAIN_LOSSES"): RETAIN_LOSSES,
        ("losses", "ANCHOR_LOSSES"): ANCHOR_LOSSES,
        ("edits", "_PACKAGED"): EDITS,
        ("attacks", "_PACKAGED"): ATTACKS,
    }
    assert {place: packaged_names(*place) for place in tables} == {
        place: list(table.packaged) for place, table in tables.items()
    }
    assert packaged_keys("attacks/suites.py", "ATTACK_SUITES") == list(ATTACK_SUITES)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["train", "--config", "edits/m"], ["edits/msa"]),
        (["train", "--task", "p"], ["privacy"]),
        (["train", "--forget_loss", "n"], ["npo"]),
        (["train", "--retain_loss", "k"], ["kl"]),
        (["train", "--accelerate_config", "fsdp2_"], ["fsdp2_two_nodes"]),
        (["train", "--attack", "q"], ["quick"]),
        (["attack", "out", "--suite", "s"], ["standard"]),
        (["attack", "out", "--attacks", "rel"], ["relearn"]),
        (["edit", "--edit", "ta"], ["task_vector"]),
    ],
)
def test_values_are_completed(completion, words, offered):
    assert completed(completion, *words) == offered


def test_folders_of_runs_are_completed_first(completion, tmp_path, monkeypatch):
    for name in ("other", "runs/one", "runs/two"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "runs" / "two" / "results.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert completed(completion, "report", "") == ["runs/two", "other", "runs"]
    assert sorted({*completed(completion, "attack", "runs/")}) == ["runs/one", "runs/two"]


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_have_a_script_too(capsys, shell):
    assert main(["completion", shell]) == 0
    assert "train-judge" in capsys.readouterr().out


def test_a_shell_that_is_not_known_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        main(["completion", "fish"])
    assert end.value.code == 2 and "invalid choice: 'fish'" in capsys.readouterr().err
