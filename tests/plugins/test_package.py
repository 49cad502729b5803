"""A small package with a file each for a loss, wrapper, attack, metric, suite, task, ..., installed and used."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fixtures.examples import SECONDS, environment, save_model
from fixtures.forked import run_python
from hf_unlearn.cli import main, train
from hf_unlearn.lab import load_lab
from hf_unlearn.plugins import Plugin
from hf_unlearn.results.record import load_record

SOURCE = Path(__file__).resolve().parents[1] / "plugin_package"
PACKAGE, VERSION = "hf-unlearn-verses", "1.2"
RECIPE = """
task: custom
suite: verses
forget_loss: {name: saturating_ascent, scale: 15.0}
retain_loss: nll
step_wrappers: unit_forget
weighting: {name: growing, rate: 0.5}
forget_nll_bound: null
learning_rate: 5.0e-4
max_steps: 3
per_device_train_batch_size: 2
max_new_tokens: 8
force: true
logging_steps: 1
use_cpu: true
"""


def python(*words: str, path: Path | None = None, folder: Path | None = None) -> subprocess.CompletedProcess:
    """Python as a process of its own, with a folder on its path beside this package."""
    variables = environment()
    if path is not None:
        variables["PYTHONPATH"] = os.pathsep.join([variables["PYTHONPATH"], str(path)])
    return run_python(*words, environment=variables, folder=folder or Path.cwd(), seconds=SECONDS)


def unlearn(*words: str, path: Path | None = None, folder: Path | None = None) -> subprocess.CompletedProcess:
    """`hf-unlearn` likewise."""
    return python("-m", "hf_unlearn.cli", *words, path=path, folder=folder)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The package as pip installs it, without a network; the checkout is left as it is."""
    source, site = tmp_path_factory.mktemp("source") / "package", tmp_path_factory.mktemp("site")
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(site)]
    done = python("-m", "pip", "install", *options, str(source))
    assert done.returncode == 0, done.stderr[-3000:]
    return site


@pytest.fixture(scope="module")
def run(site, tmp_path_factory) -> Path:
    """The folder of a run that names what the package adds, and not the package."""
    lab, folder = load_lab(), tmp_path_factory.mktemp("run")
    save_model(lab, folder / "model")
    for role in ("forget", "retain"):
        lab.datasets[role].select(range(12)).to_json(folder / f"{role}.jsonl")
    (folder / "verses.yaml").write_text(RECIPE, encoding="utf-8")
    rows = [word for role in ("forget", "retain") for word in (f"--{role}_dataset", f"{role}.jsonl")]
    given = ["--model_name_or_path", "model", *rows, "--output_dir", "out"]
    done = unlearn("train", "--config", "verses.yaml", *given, path=site, folder=folder)
    assert done.returncode == 0, done.stderr[-6000:]
    assert "verses echoed" in done.stdout and "saturating_ascent" in done.stdout + done.stderr
    return folder / "out"


def test_methods_lists_what_is_installed_with_package_and_version(site):
    done = unlearn("methods", "--json", path=site)
    listed = {(entry["kind"], entry["name"]): entry for entry in json.loads(done.stdout)}
    for key in (
        ("forget_loss", "saturating_ascent"),
        ("step_wrapper", "unit_forget"),
        ("weighting", "growing"),
        ("attack", "first_token"),
        ("edit", "quieten"),
        ("metric", "echo_rate"),
        ("suite", "verses"),
        ("task", "verses"),
    ):
        assert (listed[key]["package"], listed[key]["version"]) == (PACKAGE, VERSION), key
    assert "package" not in listed["forget_loss", "npo"]
    assert listed["forget_loss", "saturating_ascent"]["arguments"] == {"scale": 20.0, "weight": 1.0}


NAMED_LATER = """
from hf_unlearn.cli import main
assert main(["methods", "--json"]) == 0
assert main(["methods", "--json", "--plugins", "verses.plugin"]) == 0
assert main(["methods", "--plugins", "verses.plugins"]) == 2
"""


def test_a_module_that_is_not_installed_is_named():
    """From the package's folder alone: there is no entry point, so nothing is known of it before."""
    done = python("-c", NAMED_LATER, path=SOURCE)
    assert done.returncode == 0, done.stderr[-3000:]
    before, end = json.JSONDecoder().raw_decode(done.stdout)
    named = json.loads(done.stdout[end:])
    assert "verses" not in [entry["name"] for entry in before]
    (loss,) = [entry for entry in named if entry["name"] == "saturating_ascent"]
    assert (loss["package"], loss["version"]) == ("verses.plugin", "")
    assert "No module named 'verses.plugins'" in done.stderr


def test_a_recipe_names_a_module_and_its_task(tmp_path):
    (tmp_path / "verses.yaml").write_text("task: verses\nplugins: [verses.plugin]\n", encoding="utf-8")
    done = unlearn("train", "--config", "verses.yaml", "--help_all", path=SOURCE, folder=tmp_path)
    assert done.returncode == 0 and "hf-unlearn train --task verses" in done.stdout, done.stderr[-3000:]
    assert "--in_scope_dataset" in done.stdout and "--suite" in done.stdout


def test_the_record_has_the_package_and_version_of_each_part(run):
    record = load_record(run)
    (term,) = [term for term in record.objective.terms if term.side == "forget"]
    (wrapper,) = record.objective.step_wrappers
    for part, name in ((term, "saturating_ascent"), (wrapper, "unit_forget"), (record.objective.weighting, "growing")):
        assert (part.name, part.package, part.version, part.own) == (name, PACKAGE, VERSION, None)
    assert term.arguments == {"scale": 15.0} and term.formula == "-c (1 - exp(-NLL / c))"
    (kept,) = [term for term in record.objective.terms if term.side == "retain"]
    assert (kept.name, kept.package, kept.version) == ("nll", None, None)
    assert (
        "forget/saturating_ascent" in record.log[0]
        and record.log[0]["retain_weight"] != record.log[2]["retain_weight"]
    )
    after = record.evaluations["after"]
    assert (after.suite, after.package) == ("verses", f"{PACKAGE} {VERSION}")
    assert after.pair == ("echo_rate", "retain_accuracy") and list(after.descriptions) == ["echo_rate"]


def test_the_folder_of_a_run_is_attacked_with_the_plugins_task_and_attack(site, run, tmp_path):
    shutil.copytree(run, tmp_path / "out")
    for name in ("forget.jsonl", "retain.jsonl", "model"):
        (tmp_path / name).symlink_to(run.parent / name)
    words = ["attack", "out", "--attacks", '{"name": "first_token", "power": 0.9}', "--oracle", "model", "--json"]
    done = unlearn(*words, path=site, folder=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert [finding["arguments"] for finding in report["findings"]] == [{"power": 0.9}]


def test_card_and_report_read_the_run_without_the_package(run, tmp_path):
    """What it measured is described in the record: nothing of the package is imported."""
    for folder in (tmp_path / "saved", tmp_path / "saved" / "plots"):
        folder.mkdir()
    for name in (
        "results.json",
        "adapter_config.json",
        "config.json",
        "evaluation_after.json",
        "evaluation_before.json",
    ):
        if (run / name).is_file():
            shutil.copy(run / name, tmp_path / "saved" / name)
    saved, page = str(tmp_path / "saved"), str(tmp_path / "report.html")
    script = f"""
import sys
from hf_unlearn.cli import main
assert main(["card", {saved!r}]) == 0 and main(["report", {saved!r}, "-o", {page!r}]) == 0
assert "verses" not in sys.modules
"""
    done = python("-c", script)
    assert done.returncode == 0, done.stderr[-3000:]
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert "| verses echoed | " in card and "%" in card.split("| verses echoed | ")[1].splitlines()[0]
    assert f"`-c (1 - exp(-NLL / c))` (package `{PACKAGE} {VERSION}`)" in card
    assert f"Suite `verses` of the package `{PACKAGE} {VERSION}`" in card
    assert f" {PACKAGE}=={VERSION}" in card and "arXiv:2601.00001" in card
    assert "metric_name" not in card or "name: verses echoed" in card
    (line,) = [line for line in card.splitlines() if line.startswith("**Verdict: ")]
    assert "verses echoed" in line and "retain answers right" in line
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for words in (
        "verses echoed",
        "verses: verses echoed, retain answers right",
        f"unit_forget ({PACKAGE} {VERSION})",
    ):
        assert words in page


@pytest.mark.parametrize(
    "first", ["evaluation", *(pytest.param(name, marks=pytest.mark.slow) for name in ("losses", "metrics"))]
)
def test_whatever_is_imported_first_the_plugin_makes_no_circle(site, first):
    """The plugin imports losses, steps, metrics, evaluation itself; reading one table brings all of its names."""
    script = f"""
import sys
for name in [name for name in sys.modules if name.partition(".")[0] == "hf_unlearn"]:
    del sys.modules[name]  # a forked process has the package imported, in another order
import hf_unlearn.{first}
assert "verses" not in sys.modules
from hf_unlearn.losses import FORGET_LOSSES
assert "saturating_ascent" in FORGET_LOSSES
from hf_unlearn.evaluation import SUITES
from hf_unlearn.metrics import METRICS
assert "verses" in SUITES and "echo_rate" in METRICS
"""
    done = python("-c", script, path=site)
    assert done.returncode == 0 and done.stderr == "", done.stderr[-3000:]


def test_several_processes_are_given_the_names(monkeypatch, tmp_path):
    """What `hf-unlearn train` starts under accelerate gets the words of the command line."""
    started = []
    monkeypatch.setattr("hf_unlearn.training.launch.start.launch_processes", lambda *given: started.append(given) or 0)
    words = ["--task", "custom", "--plugins", "json", "--output_dir", str(tmp_path), "--use_cpu"]
    assert (
        main(["train", "--num_processes", "2", *words]) == 2 and started == []
    )  # no plugin: refused before any starts
    monkeypatch.setitem(sys.modules, "named_plugin", ModuleType("named_plugin"))
    sys.modules["named_plugin"].HF_UNLEARN = Plugin()
    words[3] = "named_plugin"
    assert main(["train", "--num_processes", "2", *words]) == 0
    ((launch, command),) = started
    assert launch["num_processes"] == "2" and command[command.index("--plugins") + 1] == "named_plugin"
    assert train.plugins_of(["--plugins", "a", "b.c", "--limit", "3"]) == ["a", "b.c"]
    assert train.plugins_of(["--limit", "3", "--plugins=a"]) == ["a"] and train.plugins_of(["a"]) == []
