"""The runs of a series as they are planned: which recipe each method runs with, and what is refused before any."""

from pathlib import Path

import pytest
import yaml

from fixtures.examples import assert_four_parts, assert_one_line
from fixtures.plugins import forget_plugin
from hf_unlearn.cli import main
from hf_unlearn.tasks.series import PlannedRun, Series, plan_series

OWN_ROWS = {"task": "custom", "model_name_or_path": "org/model", "forget_dataset": "org/rows", "learning_rate": 1e-5}


@pytest.fixture
def plan(tmp_path):
    """Plans the runs of a recipe of the lab, by name."""

    def planned(*methods, seeds=("0",), words=("--config", "harmful_lab"), task="harmful") -> dict[str, PlannedRun]:
        series = Series(task, methods, seeds, (*words, "--output_dir", str(tmp_path / "out")))
        output, runs = plan_series(series)
        assert output == tmp_path / "out"
        return {run.name: run for run in runs}

    return planned


def recipe_of(run: PlannedRun) -> dict:
    return yaml.safe_load(Path(run.arguments[run.arguments.index("--config") + 1]).read_text())


def test_a_run_for_each_method_and_seed(plan, tmp_path):
    runs = plan("npo", "edits/msa", seeds=("0", "7"), words=("--config", "harmful_lab", "--limit", "9"))
    assert list(runs) == ["npo-seed-0", "npo-seed-7", "msa-seed-0", "msa-seed-7"]
    assert runs["npo-seed-7"] == PlannedRun(
        tmp_path / "out" / "npo-seed-7",
        ("--task", "harmful", "--config", "methods/npo", "--limit", "9", "--seed", "7"),
    )
    assert runs["msa-seed-0"].arguments[3] == "edits/msa"
    assert not (tmp_path / "out").exists()  # packaged recipes are named, not copied
    assert list(plan("npo", seeds=())) == ["npo"] and list(plan()) == ["harmful_lab-seed-0"]


def test_over_rows_of_ones_own_a_packaged_recipe_gives_its_objective_alone(plan, tmp_path):
    """Its rate of 4e-3 was tuned on the lab's model."""
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(OWN_ROWS | {"forget_loss": "npo", "anchor_loss": "kl"}))
    recipe = recipe_of(plan("simnpo", task="custom", words=("--config", str(tmp_path / "own.yaml")))["simnpo-seed-0"])
    assert recipe["forget_loss"] == {"name": "simnpo", "beta": 0.5} and recipe["retain_weight"] == 3.0
    assert {name: recipe[name] for name in OWN_ROWS} == OWN_ROWS
    assert "anchor_loss" not in recipe and "lora_r" not in recipe and "output_dir" not in recipe
    assert "forget_nll_bound" not in recipe  # the level of unseen rows, of which none are named
    # Named on the command line, they are no less one's own.
    flags = ("--config", "harmful_lab", "--model_name_or_path", "org/m", "--forget_dataset", "org/rows")
    recipe = recipe_of(plan("simnpo", words=flags)["simnpo-seed-0"])
    assert recipe["learning_rate"] == 1e-3 and recipe["forget_loss"]["name"] == "simnpo" and "levels" not in recipe
    with pytest.raises(ValueError) as error:
        plan("unseen_level", words=flags)
    assert_four_parts(str(error.value), "--holdout_dataset", "the method unseen_level")
    recipe = recipe_of(plan("simnpo", words=(*flags, "--holdout_dataset", "org/unseen"))["simnpo-seed-0"])
    assert recipe["forget_nll_bound"] == "holdout"


def test_a_recipe_file_gives_all_that_it_holds(plan, tmp_path):
    (tmp_path / "mine.yaml").write_text("forget_loss: grad_ascent\nforget_nll_bound: holdout\nlearning_rate: 0.002\n")
    recipe = recipe_of(plan(str(tmp_path / "mine.yaml"))["mine-seed-0"])
    assert (recipe["forget_loss"], recipe["learning_rate"], recipe["lora_r"]) == ("grad_ascent", 0.002, 32)
    assert "levels" not in recipe and recipe["task"] == "harmful"


def test_a_loss_takes_the_place_of_the_recipes(plan, tmp_path):
    """Where that leads rows to levels, which its own loss alone does, it is put into the plain recipe."""
    spec = '{"name": "grad_ascent", "weight": 0.5}'
    runs = plan(spec, "idk")
    assert list(runs) == ["grad_ascent-weight-0.5-seed-0", "idk-seed-0"]
    assert runs["grad_ascent-weight-0.5-seed-0"].arguments[2:6] == ("--config", "methods/npo", "--forget_loss", spec)
    same = plan('{"name": "unseen_level", "ramp": 0.5}')["unseen_level-ramp-0.5-seed-0"]
    assert same.arguments[2:4] == ("--config", "harmful_lab")
    other = plan('["grad_ascent", "ihl"]', words=("--config", "methods/simnpo"))["grad_ascent+ihl-seed-0"]
    assert other.arguments[2:4] == ("--config", "methods/simnpo")
    recipe = recipe_of(plan('["ihl"]', task="privacy", words=("--config", "privacy_lab"))["ihl-seed-0"])
    assert recipe["forget_loss"] == ["ihl"] and "levels" not in recipe and recipe["anchor_loss"] == "kl"


@pytest.mark.parametrize(
    ("methods", "seeds", "words", "told"),
    [
        (["nppo"], ["0"], [], ["'nppo'", "did you mean 'npo'", "--plugins my_loss.py"]),
        (["{}"], ["0"], [], ["'{}'"]),
        (["npo"], ["-1"], [], ["--seeds", "'-1'"]),
        (["npo"], ["one"], [], ["--seeds", "'one'"]),
        (["simnpo", "npo"], ["0"], ["--learning_rte", "1"], ["the method simnpo: ", "did you mean 'learning_rate'"]),
        (['{"name": "npo", "bta": 1}'], ["0"], [], ["npo-bta-1", "'bta'"]),
    ],
)
def test_names_and_numbers_that_are_none(plan, methods, seeds, words, told, tmp_path):
    with pytest.raises(ValueError) as error:
        plan(*methods, seeds=seeds, words=["--config", "harmful_lab", *words])
    assert_one_line(str(error.value), *told)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("methods", "seeds", "words", "told"),
    [
        (["npo", "methods/npo"], ["0"], [], ["npo-seed-0 twice"]),
        (["npo"], ["1", "1"], [], ["npo-seed-1 twice"]),
        (["npo"], ["0"], ["--seed", "3"], ["--seed", "--seeds 0 1 2"]),
        (["npo"], ["0"], ["--forget_loss=npo"], ["--forget_loss", "--methods npo simnpo"]),
        (["npo"], ["0"], ["--resume-from-checkpoint", "true"], ["--resume_from_checkpoint", "goes on by itself"]),
        (["{"], ["0"], [], ["text that is not JSON"]),
    ],
)
def test_what_would_make_runs_the_same(plan, methods, seeds, words, told):
    with pytest.raises(ValueError) as error:
        plan(*methods, seeds=seeds, words=["--config", "harmful_lab", *words])
    assert_four_parts(str(error.value), *told)


# The command


@pytest.fixture
def done(monkeypatch):
    """The runs that the command would start, all of them done at once."""
    planned = []

    def run_all(runs):
        planned.extend(runs)
        return [run.folder for run in runs]

    monkeypatch.setattr("hf_unlearn.tasks.series.run_series", run_all)
    return planned


def test_the_command_line_of_a_series(done, tmp_path, capfd):
    words = ["--config", "harmful_lab", "--methods", "npo", '{"name": "idk"}', "--seeds=0 1", "--limit", "4"]
    assert main(["train", *words, "--output_dir", str(tmp_path / "out"), "--num_processes", "2"]) == 0
    assert [run.name for run in done] == ["npo-seed-0", "npo-seed-1", "idk-seed-0", "idk-seed-1"]
    assert done[0].arguments[-6:] == ("--limit", "4", "--seed", "0", "--num_processes", "2")
    assert f"hf-unlearn compare {tmp_path / 'out'}" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--compare"], "--compare alone"), (["--methods=", "--seeds", "0"], "--methods with at least one value")],
)
def test_a_series_of_nothing(done, capsys, words, told):
    assert main(["train", "--config", "harmful_lab", *words]) == 2
    assert_four_parts(capsys.readouterr().err, told)
    assert done == []


def test_a_loss_from_a_file_is_a_method(done, tmp_path):
    file = tmp_path / "my_sonnet.py"
    file.write_text(
        "from dataclasses import dataclass\nfrom hf_unlearn.losses import NPO\nfrom hf_unlearn.plugins import Plugin\n"
        "@dataclass(frozen=True)\nclass Sonnet(NPO):\n    name = 'sonnet'\n    formula = '14 lines'\n"
        "HF_UNLEARN = Plugin(forget_losses=[Sonnet])\n"
    )
    words = ["--config", "harmful_lab", "--methods", "npo", "sonnet", "--plugins", str(file), "--output_dir", "o"]
    assert main(["train", *words]) == 0
    assert done[1].arguments == (
        *("--task", "harmful", "--config", "methods/npo", "--forget_loss", "sonnet"),
        *("--plugins", str(file)),
    )


@pytest.fixture(autouse=True, scope="module")
def without_the_plugin_afterwards():
    yield
    forget_plugin("my_sonnet")
