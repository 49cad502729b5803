"""The command line: what each verb prints, how it ends, and that help comes at once. Not what verbs compute."""

import importlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hf_unlearn.cli import VERBS, main
from hf_unlearn.lab import load_lab, render_lab
from hf_unlearn.losses import FORGET_LOSSES, RETAIN_LOSSES
from hf_unlearn.optimizers.named import OPTIMIZERS
from hf_unlearn.steps import STEP_WRAPPERS
from hf_unlearn.weighting import WEIGHTINGS

REPOSITORY = Path(__file__).resolve().parent.parent

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
slow = {"torch", "transformers", "datasets", "trl", "peft", "accelerate"}
print(json.dumps([ended, sorted(slow & set(sys.modules))]))
"""


def test_the_command_is_declared():
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, name = scripts["hf-unlearn"].split(":")
    assert getattr(importlib.import_module(module), name) is main


def test_methods_lists_everything_that_a_config_can_name(capsys):
    assert main(["methods"]) == 0
    blocks = capsys.readouterr().out.rstrip().split("\n\n")
    wrapped = [*FORGET_LOSSES.values(), *RETAIN_LOSSES.values(), *STEP_WRAPPERS.values()]
    parts = [*wrapped, *WEIGHTINGS.values()]
    headings = ["FORGET LOSSES", "RETAIN LOSSES", "STEP WRAPPERS", "WEIGHTING", "OPTIMIZERS"]
    assert len(blocks) == 1 + len(headings) + len(parts) + len(OPTIMIZERS) > 30
    for heading in headings:
        assert len([block for block in blocks if block.startswith(heading)]) == 1
    for part in parts:
        texts = [" ".join(b.split()) for b in blocks if b.startswith(f"{part.name}  ({part.__name__})")]
        assert len(texts) == 1
        assert f"formula {part.formula}" in texts[0] and (not part.paper or f"paper {part.paper}" in texts[0])
        for argument, default in vars(part()).items():
            assert f"{argument}={default}" in texts[0]
        if part in wrapped:
            assert [why for why in part.refused.values() if why not in texts[0]] == []


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
    assert rows.split() == ["rows", "120", "320", "120", "120"]
    assert str(lab.model_path) in out and str(lab.oracle_path) in out


def test_lab_hands_its_arguments_on(monkeypatch, capsys):
    lab, given = load_lab(), {}
    monkeypatch.setattr("hf_unlearn.lab.load_lab", lambda **arguments: given.update(arguments) or lab)
    assert main(["lab", "--world", "people", "--seed", "3", "--cache_dir", "here", "--force"]) == 0
    assert given == {"world": "people", "seed": 3, "cache_dir": "here", "force": True}


def test_a_users_error_is_its_text_and_status_2(capsys):
    assert main(["lab", "--seed", "-1"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("hf-unlearn lab: Expected `seed` to be a whole number from 0 on.\nGot: -1 (int).\n")
    assert "\nWhy it matters: " in err and "\nWhat to do: " in err
    assert "Traceback" not in err


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
    assert "usage: hf-unlearn [-h] COMMAND" in shown
    for name, verb in VERBS.items():
        assert f"usage: hf-unlearn {name} [-h]" in shown
        assert verb.help.split(":")[0] in " ".join(shown.split())
    for flag in ("--seed", "--cache_dir", "--force"):
        assert flag in shown
