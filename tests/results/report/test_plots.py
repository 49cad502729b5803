"""The plots as files and as SVG inside a page: which there are, what they show, that they are the same each time."""

import ast
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from fixtures.report import evaluation, figure, harmful_evaluations, log_of, record, save_run
from hf_unlearn.results.report import Run, figures, read_run, write_plots
from hf_unlearn.results.report.drawings import draw_lines, draw_shares
from hf_unlearn.results.report.plots import distributions, losses, plane

TITLES = {
    "Loss over the steps": "plots/losses.png",
    "Forgetting against utility": "plots/plane.png",
    "Likelihood of single rows": "plots/distributions.png",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(save_run(tmp_path_factory.mktemp("run"), record()))


def test_plots_are_written_as_png_and_svg(run, tmp_path):
    assert write_plots(run, tmp_path / "one") == TITLES
    for name in TITLES.values():
        png = (tmp_path / "one" / name).read_bytes()
        assert png.startswith(b"\x89PNG") and len(png) > 5000
        svg = (tmp_path / "one" / name).with_suffix(".svg").read_text(encoding="utf-8")
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert "<dc:date>" not in svg and "var(--" not in svg


def test_the_same_run_gives_the_same_files(run, tmp_path):
    for folder in ("one", "two"):
        figures.save_plot(plane({"": run}), tmp_path / folder)
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["plane.png", "plane.svg"]
    for name in ("plane.png", "plane.svg"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_run_without_data_has_no_plots(tmp_path):
    bare = read_run(save_run(tmp_path / "run", record(evaluations={}, log=[])))
    assert write_plots(bare, tmp_path / "out") == {}
    assert losses(record(log=[{"eval_loss": 1.0, "step": 4}])) is None
    assert plane({"": bare}) is None and distributions(bare) is None


def first_of(plot):
    return figures.inline_svg(plot.panels[0], "p0")


def inlined(plot):
    return [figures.inline_svg(panel, f"p{i}") for i, panel in enumerate(plot.panels)]


def test_a_page_gets_variables_for_colours_and_ids_of_its_own(run):
    for svg in [*inlined(losses(run.record)), *inlined(plane({"": run})), *inlined(distributions(run))]:
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img" and root.get("aria-label")
        assert "var(--muted)" in svg and "var(--grid)" in svg
        assert not re.search(r"#[0-9a-f]{6}\b|<style|<metadata|DejaVu", svg)
        ids = re.findall(r'\bid="([^"]+)"', svg)
        assert ids and all(re.match(r"p\d+-", each) for each in ids) and len(set(ids)) == len(ids)


def test_the_colours_of_drawings_are_those_of_the_page():
    css = (Path(figures.__file__).parent.parent / "templates" / "report.css").read_text(encoding="utf-8")
    light = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", css.split("@media")[0]))
    assert {name: light[name] for name in figures.COLORS} == figures.COLORS
    assert len(set(figures.COLORS.values())) == len(figures.COLORS)  # else a replacement would be ambiguous


def test_losses_show_each_component_and_the_bound(run):
    plot = losses(run.record)
    # NLL; loss; forget and retain term; share of rows at the bound
    assert len(plot.panels) == 5
    first = first_of(plot)
    assert all(f">{words}</text>" in first for words in ("forget", "retain", "bound: unseen rows"))
    assert plot.panels[0].summary.startswith("NLL (nats per token) over the optimizer steps: forget from 0.0")
    unbounded = record(holdout_nll=None)
    unbounded.objective.bound = {"setting": None}
    assert "bound" not in first_of(losses(unbounded)) and len(losses(unbounded).panels) == 4
    assert ("reached the bound" in plot.caption, "reached the bound" in losses(unbounded).caption) == (True, False)
    ranked = record()
    ranked.objective.bound = {"setting": "holdout_quantiles", "low": 0.9, "high": 2.4}
    assert all(words in first_of(losses(ranked)) for words in ("bounds of rows", "unseen rows before"))


def test_a_weight_that_moves_is_shown():
    moved = record(log=[entry | {"retain_weight": 1.0 + i} for i, entry in enumerate(log_of(4))])
    assert any(panel.summary.startswith("Weight of the retain side") for panel in losses(moved).panels)
    assert not any(panel.summary.startswith("Weight") for panel in losses(record()).panels)


def axes():
    from matplotlib.figure import Figure

    return Figure().add_subplot()


def test_a_cumulated_share_is_that_of_rows_at_most_as_large():
    ax = axes()
    draw_shares(ax, "t", "u", {"after": [3.0, 1.0, 2.0, 2.0]}, 4.0)
    (line,) = ax.get_lines()
    assert list(zip(*line.get_data(), strict=True)) == [
        (0.0, 0.0), (1.0, 0.0), (1.0, 0.25), (2.0, 0.5), (2.0, 0.75), (3.0, 1.0), (4.16, 1.0),
    ]  # fmt: skip


def test_many_rows_are_thinned_out_but_for_the_ends():
    ax = axes()
    draw_shares(ax, "t", "u", {"after": [float(i) for i in range(1, 10_001)]}, 10_000.0)
    xs, ys = ax.get_lines()[0].get_data()
    assert len(xs) == 403 and xs[2] == 1.0 and xs[-2] == 10_000.0
    assert max(abs(y - x / 10_000) for x, y in zip(xs[2:-1], ys[2:-1], strict=True)) < 1e-9


def test_lines_have_the_values_of_the_log(run):
    ax = axes()
    losses(run.record).panels[0].draw(ax)
    logged = [(entry["step"], entry["forget_nll"]) for entry in run.record.log if "loss" in entry]
    assert list(zip(*ax.get_lines()[0].get_data(), strict=True)) == logged
    assert draw_lines is losses(run.record).panels[0].draw.func


def test_the_plane_has_a_point_a_run_and_what_they_share_once(run):
    ax = axes()
    plane({"1": run, "2": run}).panels[0].draw(ax)
    points = [line for line in ax.get_lines() if line.get_marker() not in ("None", None, "")]
    assert sorted(line.get_marker() for line in points) == ["D", "o", "o"]
    oracle, after = (next(line for line in points if line.get_marker() == marker) for marker in "Do")
    assert oracle.get_markerfacecolor() == "none" and oracle.get_markersize() > after.get_markersize()
    assert after.get_zorder() > oracle.get_zorder()  # seen within the ring of an oracle at the same place
    # The model before lies far outside: an arrow from where it is, with its values.
    assert [text.get_text() for text in ax.texts] == ["", "before: 100%, 99.5%", "1, 2"]
    assert ax.get_xlim()[1] < 0.2 and ax.get_ylim()[0] > 0.85


def test_a_model_before_that_lies_near_stands_within_the_plane(tmp_path):
    made = harmful_evaluations()
    made["before"].metrics["harmful_rate"] = figure(0.09, 0.05, 0.15)
    ax = axes()
    plot = plane({"": read_run(save_run(tmp_path, record(evaluations=made, log=[]), full=False))})
    plot.panels[0].draw(ax)
    before = next(line for line in ax.get_lines() if line.get_marker() == "s")
    assert (before.get_xdata()[0], before.get_ydata()[0]) == (0.09, 0.995)
    assert list(ax.texts) == [] and "lies far outside" not in plot.caption


def test_the_caption_speaks_of_what_is_there(run, tmp_path):
    assert "The aim is the oracle" in plane({"": run}).caption and "The numbers" not in plane({"": run}).caption
    assert "lies far outside, where the arrow comes from" in plane({"": run}).caption
    made = {name: each for name, each in run.record.evaluations.items() if name != "oracle"}
    alone = read_run(save_run(tmp_path / "run", record(evaluations=made)))
    assert "The aim is the oracle" not in plane({"3": alone}).caption and "The numbers" in plane({"3": alone}).caption
    assert "truth ratio" not in distributions(run).caption


def test_the_plane_needs_both_metrics(tmp_path):
    made = {
        "after": evaluation(harmful_rate=(0.0, 0.0, 0.1)),
        "before": evaluation(harmful_rate=1.0, retain_accuracy=1.0),
    }
    assert plane({"": read_run(save_run(tmp_path, record(evaluations=made)))}) is None


def test_matplotlib_is_imported_when_something_is_drawn():
    for path in Path(figures.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not [node for node in top if "matplotlib" in ast.unparse(node)], path.name


def test_plots_of_an_earlier_run_are_replaced(tmp_path):
    """A folder that is used again: what the new run has no data for must not be shown as its own."""
    (tmp_path / "plots").mkdir()
    for name in ("distributions.png", "distributions.svg", "notes.txt"):
        (tmp_path / "plots" / name).write_text("old")
    run = Run(record(), {}, title="run")
    saved = write_plots(run, tmp_path)
    assert saved and not (tmp_path / "plots/distributions.png").exists()
    assert not (tmp_path / "plots/distributions.svg").exists() and (tmp_path / "plots/notes.txt").exists()
    assert (tmp_path / "plots/of.txt").read_text() == run.record.figures_hash()
