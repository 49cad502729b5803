"""Tables of names that plugins join: when they are imported, whose names are taken, what is refused."""

import importlib.metadata
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from fixtures.examples import assert_four_parts
from hf_unlearn import UnlearningConfig
from hf_unlearn.cli.method_catalog import list_methods, render_methods
from hf_unlearn.component import Component
from hf_unlearn.losses import FORGET_LOSSES, NPO, RetainNLL
from hf_unlearn.metrics import (
    METRIC_DESCRIPTIONS,
    METRICS,
    MetricDescription,
    MetricFunction,
    evaluate_metric,
    proportion,
)
from hf_unlearn.plugins import Plugin, PluginSource, PluginTable, components, load, load_plugins, plugin_source


@dataclass(frozen=True)
class Haiku(NPO):
    """A loss of another package."""

    name = "haiku"
    formula = "5 + 7 + 5"


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No plugin is loaded and none is installed, and tables forget what a test put into them."""
    monkeypatch.setattr(load, "_loaded", {})
    monkeypatch.setattr(load, "_discovered", True)
    tables = [join.__self__ for join in load._tables]
    monkeypatch.setattr(load, "_tables", list(load._tables))
    for table in tables:
        monkeypatch.setattr(table, "_sources", {})
        monkeypatch.setattr(table, "_refused", {})
        monkeypatch.setattr(table, "_joined", set())
    yield
    for table in tables:
        for name in dict.keys(table) - table.packaged.keys():
            dict.pop(table, name)


@pytest.fixture
def module(monkeypatch):
    """Makes a module with a declaration, importable under a name."""

    def make(name: str, declared: object) -> str:
        made = ModuleType(name)
        made.HF_UNLEARN = declared
        monkeypatch.setitem(sys.modules, name, made)
        return name

    return make


@pytest.fixture
def installed(monkeypatch):
    """Entry points of packages that a test makes up."""

    def install(*values: str) -> None:
        entries = [EntryPoint(value, value, load.GROUP) for value in values]
        monkeypatch.setattr(load, "entry_points", lambda group: entries if group == "hf_unlearn.plugins" else [])
        monkeypatch.setattr(load, "_discovered", False)

    return install


def table(**packaged: type[Component]) -> PluginTable:
    return PluginTable("loss", packaged or {"npo": NPO}, lambda plugin: components(plugin.forget_losses, NPO))


def test_a_named_module_joins_under_its_name(module):
    made = table()
    load_plugins([module("verses", Plugin(forget_losses=[Haiku]))])
    assert made == {"npo": NPO, "haiku": Haiku} and list(made) == ["npo", "haiku"] and len(made) == 2
    assert made["haiku"] is made.get("haiku") is Haiku and "haiku" in made and made.get("limerick") is None
    assert made.packaged == {"npo": NPO}
    assert made.sources == {"haiku": PluginSource("verses", "", "verses")}
    assert str(plugin_source(Haiku)) == "verses" and plugin_source(NPO) is None


def test_a_metric_that_only_a_suite_measures_is_listed_with_its_package(module):
    load_plugins(module("verses", Plugin(metrics=[MetricDescription("echo_rate", label="verses echoed")])))
    assert "echo_rate" not in METRICS
    assert {"kind": "metric", "name": "echo_rate", "about": "verses echoed", "package": "verses", "version": ""} in (
        list_methods()
    )
    (line,) = [line for line in render_methods().splitlines() if "echo_rate" in line]
    assert line.split() == ["echo_rate", "verses", "echoed", "(package", "verses)"]


def test_a_module_that_no_distribution_holds_has_its_own_name_and_one_that_does_has_its_version(module, monkeypatch):
    monkeypatch.setattr(load, "packages_distributions", lambda: {"verses": ["hf-unlearn"]})
    load_plugins(module("verses.plugin", Plugin(forget_losses=[Haiku])))
    version = importlib.metadata.version("hf-unlearn")
    assert plugin_source(Haiku) == PluginSource("hf-unlearn", version, "verses.plugin")


def test_installed_ones_are_imported_when_a_table_is_read_and_once(module, installed, monkeypatch):
    installed(module("verses", Plugin(forget_losses=[Haiku])))
    made = table()
    assert load._loaded == {} and made.packaged == {"npo": NPO} and load._loaded == {}
    assert "haiku" in made and list(load._loaded) == ["verses"]
    monkeypatch.setattr(load, "entry_points", lambda group: pytest.fail("looked for a second time"))
    assert "haiku" in made and "haiku" in table()


def test_a_broken_one_is_left_out_with_a_warning_and_refused_where_it_is_named(installed, module, monkeypatch, caplog):
    module("whole", Plugin(forget_losses=[Haiku]))
    module("empty", None)
    installed("whole", "empty", "no_such_module")
    assert list(table()) == ["npo", "haiku"]
    assert "The plugin empty of the package empty is left out: ValueError: expected empty.HF_UNLEARN" in caplog.text
    assert "The plugin no_such_module" in caplog.text and "whole" not in caplog.text
    for name in ("empty", "no_such_module"):
        with pytest.raises(ValueError) as error:
            UnlearningConfig(output_dir="out", plugins=[name])
        assert_four_parts(str(error.value), repr(name))


@dataclass(frozen=True)
class OtherNPO(NPO):
    """A loss under a name that is taken."""


CASES = {
    "a name of this package": (Plugin(forget_losses=[OtherNPO]), "'npo' of verses, which hf_unlearn has already"),
    "no class": (Plugin(forget_losses=[Haiku()]), ", got Haiku("),
    "another kind": (Plugin(forget_losses=[RetainNLL]), ", got <class"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_warned_of_and_refused_where_it_is_named(case, module, installed, caplog):
    declared, words = CASES[case]
    installed(module("verses", declared))
    made = table()
    assert made == {"npo": NPO} and caplog.text.count("is left out") == 1 and words in caplog.text
    with pytest.raises(ValueError) as error:
        load_plugins(["verses"])
    assert_four_parts(str(error.value), words)
    with pytest.raises(ValueError, match=r"has already|to be one"):
        list(made)  # it stays refused


def test_two_plugins_with_one_name(module):
    made = table()
    module("first", Plugin(forget_losses=[Haiku]))
    module("second", Plugin(forget_losses=[type("Second", (Haiku,), {})]))
    load_plugins("first")
    with pytest.raises(ValueError, match="'haiku' of second, which first has already"):
        load_plugins("second")
    assert dict.__getitem__(made, "haiku") is Haiku


def test_a_plugin_of_other_kinds_of_fields_is_refused():
    with pytest.raises(ValueError, match="expected forget_losses of a Plugin to be a list, got ABCMeta"):
        Plugin(forget_losses=Haiku)
    with pytest.raises(ValueError, match="expected suites of a Plugin to be a mapping from names, got list"):
        Plugin(suites=[len])


def test_a_config_names_the_module_and_then_the_loss(module):
    module("verses", Plugin(forget_losses=[Haiku]))
    with pytest.raises(ValueError, match="'haiku'"):
        UnlearningConfig(output_dir="out", forget_loss="haiku")
    args = UnlearningConfig(output_dir="out", forget_loss={"name": "haiku", "beta": 0.3}, plugins=["verses"])
    assert args.to_dict()["plugins"] == ["verses"] and FORGET_LOSSES["haiku"] is Haiku


def test_metrics_with_and_without_a_function(module):
    described = MetricDescription("rhymes", "rhyming answers", format=".1%")
    counted = MetricFunction(proportion, METRICS["harmful_rate"].features, description=described)
    alone = MetricDescription("feet", format=".2f")
    load_plugins(module("verses", Plugin(metrics=[counted, alone])))
    assert METRICS["rhymes"] is counted and "feet" not in METRICS
    assert METRIC_DESCRIPTIONS["rhymes"] is described and METRIC_DESCRIPTIONS["feet"] is alone
    assert evaluate_metric("rhymes").compute(flags=[True, False])["rhymes"] == 0.5
    with pytest.raises(ValueError, match="MetricFunction with one"):
        load_plugins(module("bare", Plugin(metrics=[MetricFunction(proportion, {})])))


# Files


LOSS = """
from dataclasses import dataclass
from hf_unlearn.losses import NPO
from hf_unlearn.plugins import Plugin

@dataclass(frozen=True)
class Tanka(NPO):
    name = "tanka"
    formula = "5 + 7 + 5 + 7 + 7"

HF_UNLEARN = Plugin(forget_losses=[Tanka])
"""


@pytest.fixture
def loss_file(tmp_path, monkeypatch):
    """A file of one's own with a loss, in a folder that is not on the path."""
    file = tmp_path / "my_tanka.py"
    file.write_text(LOSS, encoding="utf-8")
    yield file
    sys.modules.pop("my_tanka", None)


def test_a_plugin_is_named_by_its_file(loss_file):
    config = UnlearningConfig(output_dir="o", forget_loss="tanka", plugins=[str(loss_file)], use_cpu=True)
    assert config.plugins == [str(loss_file)] and "tanka" in FORGET_LOSSES
    assert plugin_source(FORGET_LOSSES["tanka"]) == PluginSource("my_tanka", "", "my_tanka")
    load_plugins([str(loss_file)])  # a second naming is none of another module


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("json.py", LOSS, ["json.py, another module's name", "give the file another name"]),
        ("my-loss.py", LOSS, ["which no module can be called"]),
        ("my_broken.py", "import nowhere_at_all", ["ModuleNotFoundError", "my_broken.py"]),
        ("my_empty.py", "", ["to be a Plugin, got NoneType"]),
        ("my_absent.py", None, ["FileNotFoundError", "--plugins my_loss.py"]),
    ],
)
def test_files_that_are_no_plugins(tmp_path, name, text, words):
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as error:
        load_plugins([str(tmp_path / name)])
    assert_four_parts(str(error.value), *words)
    sys.modules.pop("my_empty", None)
