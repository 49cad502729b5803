"""Which models a page has, by the folders of runs, and that each set of weights is loaded once."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch

from fixtures.demo import adapter_run, save_tiny
from fixtures.examples import assert_four_parts
from fixtures.models import tiny_model
from fixtures.report import record, save_run
from hf_unlearn.demo import columns as columns_module
from hf_unlearn.demo.columns import choose_device, load_columns
from hf_unlearn.demo.sources import open_runs, sources_of
from hf_unlearn.tasks.command_file import COMMAND_FILE

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two runs of adapters on one base, and an oracle."""
    root = tmp_path_factory.mktemp("runs")
    adapter_run(root)
    adapter_run(root, "simnpo", arguments={"template": "Q: {prompt} A:{completion}", "max_length": 32})
    save_tiny(root / "oracle", seed=5)
    return root


def sources(root, *names, **given):
    return sources_of(open_runs([str(root / name) for name in names]), **given)


def test_a_run_has_its_base_as_the_model_before(root):
    found = sources(root, "npo-lora")
    assert [(one.name, one.place, one.adapter_off) for one in found] == [
        ("before", str(root / "base"), True),
        ("after", str(root / "npo-lora"), False),
    ]
    named = sources(root, "npo-lora", roles=["oracle", "after"], oracle=str(root / "oracle"))
    assert [(one.name, one.place) for one in named] == [
        ("after", str(root / "npo-lora")),
        ("oracle", str(root / "oracle")),
    ]


def test_of_several_runs_the_models_after_stand_side_by_side(root):
    assert [one.name for one in sources(root, "npo-lora", "simnpo")] == ["npo-lora", "simnpo"]
    shutil.copytree(root / "npo-lora", root / "again", dirs_exist_ok=True)
    assert [one.name for one in sources(root, "npo-lora", "again")] == ["npo-lora (1)", "npo-lora (2)"]


def test_what_several_runs_share_is_one_column(root):
    found = sources(root, "npo-lora", "simnpo", roles=["before", "after"])
    assert [one.name for one in found] == ["before", "npo-lora", "simnpo"]
    # A whole model's run has the same model before, which is in memory with the adapter of the other.
    save_tiny(save_run(root / "whole", record("whole")), seed=2)
    runs = open_runs([str(root / "whole"), str(root / "npo-lora")])
    found = sources_of(runs, ["before", "after"], before=str(root / "base"))
    assert [(one.name, one.adapter_off) for one in found] == [("before", True), ("whole", False), ("npo-lora", False)]


def test_the_oracle_is_the_one_that_the_command_kept(root, tmp_path, monkeypatch):
    folder = shutil.copytree(root / "npo-lora", tmp_path / "run")
    kept = {"models": {"oracle": str(root / "oracle"), "checkpoint": None, "oracle_is": "", "forget": "ab"}}
    (folder / COMMAND_FILE).write_text(json.dumps(kept))
    parsed = SimpleNamespace(script=SimpleNamespace(continue_from=None))
    monkeypatch.setattr("hf_unlearn.demo.sources.read_command", lambda folder: ("harmful", parsed))
    assert [one.name for one in sources(tmp_path, "run")] == ["before", "after", "oracle"]
    # An adapter that was trained on is not its base before: the task knows where the earlier one lies.
    parsed.script.continue_from = "earlier"
    task = SimpleNamespace(model=str(root / "oracle"), cache=None)
    monkeypatch.setattr("hf_unlearn.demo.sources.make_task", lambda name, given: task)
    before = sources(tmp_path, "run", roles=["before"])[0]
    assert before.place == str(root / "oracle") and not before.adapter_off


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (("oracle", "--oracle MODEL", "before after"), {"roles": ["oracle"]}),
        (("'base'", "before"), {"roles": ["base"]}),
        (("there is no folder",), {"before": "no/such/folder here"}),
    ],
)
def test_a_model_that_nobody_knows_is_refused(root, words, given):
    with pytest.raises(ValueError) as error:
        sources(root, "npo-lora", **given)
    assert all(word in str(error.value) for word in words)


def test_a_folder_without_a_run_or_without_a_model_is_refused(root, tmp_path):
    with pytest.raises(ValueError) as error:
        open_runs([str(tmp_path)])
    assert_four_parts(str(error.value), "results.json")
    record().save(tmp_path)
    with pytest.raises(ValueError) as error:
        open_runs([str(tmp_path)])
    assert_four_parts(str(error.value), "a model")


# Columns


def test_an_adapter_and_the_model_before_are_one_set_of_weights(root, monkeypatch):
    loaded, load = [], columns_module.load_answering
    monkeypatch.setattr(
        columns_module, "load_answering", lambda place, options: (loaded.append(place), load(place, options))[1]
    )
    before, after = load_columns(sources(root, "npo-lora"), CPU)
    assert before.model is after.model and loaded == [str(root / "npo-lora")]
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad(), before.active() as model:
        off = model(ids).logits
    with torch.no_grad(), after.active() as model:
        on = model(ids).logits
        assert torch.equal(off, tiny_model()(ids).logits) and not torch.allclose(on, off)
    assert (before.note, after.note) == ("adapter off", "adapter on")


def test_prompts_are_written_as_the_record_says(root):
    plain, templated = load_columns(sources(root, "npo-lora", "simnpo"), CPU, dtype="bfloat16")
    assert plain.options.template is None and plain.options.max_length == 1024
    assert templated.options.template == "Q: {prompt} A:{completion}" and templated.options.max_length == 32
    assert plain.model.dtype == torch.bfloat16


def test_quantised_weights_need_their_library(root, monkeypatch):
    source = sources(root, "npo-lora", roles=["after"])[0]
    monkeypatch.setattr(type(source.run), "init_kwargs", property(lambda run: {"quantization_config": object()}))
    monkeypatch.setattr(columns_module, "is_bitsandbytes_available", lambda: False)
    with pytest.raises(ValueError) as error:
        load_columns([source], CPU)
    assert_four_parts(str(error.value), "bitsandbytes", "--dtype bfloat16")
    (whole,) = load_columns([source], CPU, dtype="float32")
    assert whole.model.dtype == torch.float32


def test_a_model_out_of_reach_is_told_with_what_else_there_is(root):
    found = sources(root, "npo-lora", roles=["before"], before="nobody/nowhere")
    with pytest.raises(ValueError) as error:
        load_columns(found, CPU)
    assert_four_parts(str(error.value), "nobody/nowhere", "--models after")


def test_devices_of_this_machine_alone():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in ("cpu", "cuda", "mps", "xpu")
    for name in ("gpu", "cuda:99"):
        with pytest.raises(ValueError, match="--device"):
            choose_device(name)
