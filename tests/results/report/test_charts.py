"""The charts that replace drawings: the same values, names that stay text, colours that the page has."""

import json
import re
from pathlib import Path

import pytest

from fixtures.attack_reports import report
from fixtures.report import record, save_run
from hf_unlearn.metrics import MetricResult
from hf_unlearn.results.report import figures, read_run
from hf_unlearn.results.report.attack_plots import courses_plot, excess_plot
from hf_unlearn.results.report.charts import course_chart, lines_chart, plane_chart, shares_chart
from hf_unlearn.results.report.drawings import Level, Line
from hf_unlearn.results.report.interactive import scripts_of
from hf_unlearn.results.report.plane_drawing import METHOD_COLORS, Point, frame_of, method_look
from hf_unlearn.results.report.planes import plane
from hf_unlearn.results.report.plots import distributions, losses

HOSTILE = "<b>%{x}</b></script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(save_run(tmp_path_factory.mktemp("run"), record(attack_report=report())))


def charts(run):
    plots = [losses(run.record), distributions(run), plane({"": run}), plane({"1": run, "2": run})]
    plots += [excess_plot(run.record.attack_report), courses_plot(run.record.attack_report)]
    return [panel.chart() for plot in plots for panel in plot.panels]


def point(x, y, kind="after", label="", name="", method="npo"):
    return Point(kind, label, MetricResult(x, 100, x - 0.02, x + 0.02), MetricResult(y, 100), name, method)


def test_every_panel_has_a_chart_in_the_colours_of_the_page(run):
    for chart in charts(run):
        text = json.dumps(chart, allow_nan=False)
        names = set(re.findall(r"var\(--([a-z]+)\)", text))
        assert chart["data"] and names <= set(figures.COLORS) and not re.search(r"#[0-9a-f]{6}", text)
        assert set(chart) == {"title", "legend", "data", "layout"}


def test_lines_have_the_values_of_the_log_and_the_legend_its_levels(run):
    chart = losses(run.record).panels[0].chart()
    logged = [(entry["step"], entry["forget_nll"]) for entry in run.record.log if "loss" in entry]
    first = chart["data"][0]
    assert first["x"] == [step for step, _ in logged]
    assert first["y"] == pytest.approx([value for _, value in logged], rel=1e-5)
    assert [entry["name"] for entry in chart["legend"]] == ["forget", "retain", "bound: unseen rows"]
    assert [shape["y0"] for shape in chart["layout"]["shapes"]] == [1.62]
    band = lines_chart("t", [Line("_", "forget", [(1, 1.0), (2, 2.0)])], [Level("bounds", 0.5, 1.5)])
    assert band["legend"] == [{"name": "bounds", "look": {"color": "var(--muted)", "band": True}}]
    assert band["layout"]["shapes"][0]["type"] == "rect" and band["data"][0]["line"]["dash"] == "solid"


def test_an_axis_that_counts_in_powers_keeps_its_zero_and_says_the_true_numbers():
    line = Line("model", "after", [(0.0, 0.1), (9.0, 0.2), (9999.0, 0.4)], crossed=[(9.0, 0.2)])
    chart = course_chart("t", "queries", [line])
    trace, axis = chart["data"][0], chart["layout"]["xaxis"]
    assert trace["x"] == [0.0, 1.0, 4.0] and trace["customdata"] == ["0", "9", "9999"]
    assert trace["marker"]["symbol"] == ["circle", "x", "circle"]
    assert axis["ticktext"] == ["0", "1", "100"] and axis["tickvals"] == pytest.approx([0.0, 0.30103, 2.00432])
    assert chart["layout"]["yaxis"]["range"] == [0, pytest.approx(0.424)]
    plain = course_chart("t", "bits a weight", [Line("model", "after", [(4.0, 0.1), (16.0, 0.2)])])
    assert plain["data"][0]["x"] == [4.0, 16.0] and "tickvals" not in plain["layout"]["xaxis"]


def test_shares_are_those_of_the_drawing():
    trace = shares_chart("t", "u", {"after": [3.0, 1.0, 2.0, 2.0]}, 4.0)["data"][0]
    assert list(zip(trace["x"], trace["y"], strict=True)) == [
        (0.0, 0.0), (1.0, 0.0), (1.0, 0.25), (2.0, 0.5), (2.0, 0.75), (3.0, 1.0), (4.16, 1.0),
    ]  # fmt: skip
    assert trace["line"]["shape"] == "hv"


def test_a_method_has_one_colour_and_runs_at_one_place_are_named_together():
    runs = [point(0.1, 0.9, label="1", name="1 a"), point(0.1, 0.9, label="2", name="2 b")]
    runs += [point(0.15, 0.8, label="3", name="3 c", method="dpo"), point(0.1, 0.95, "oracle")]
    chart = plane_chart(runs, [True, False], ("harm", "kept"))
    colors = [trace["marker"]["color"] for trace in chart["data"]]
    assert colors == ["var(--after)", "var(--after)", "var(--forget)", "var(--oracle)"]
    assert [entry["name"] for entry in chart["legend"]] == ["npo", "dpo", "oracle"]
    assert chart["data"][0]["text"] == ["<b>1 a, 2 b</b><br>harm: 10% [8, 12]<br>kept: 0.9"]
    many = method_look([point(0.1, 0.9, method=str(i)) for i in range(len(METHOD_COLORS) + 1)])
    assert len(set(many.values())) == len(many)  # a colour that comes again has another mark


@pytest.mark.parametrize(
    ("before", "outside", "tail"),
    [((1.0, 0.9), True, "right"), ((0.12, 0.9), False, ""), ((0.1, 0.2), True, "below")],
)
def test_the_frame_is_about_after_and_oracle_and_an_arrow_comes_from_a_model_outside(before, outside, tail):
    near, far = [point(0.1, 0.9), point(0.08, 0.95, "oracle")], point(*before, "before")
    frame = frame_of([*near, far])
    assert bool(frame.outside) is outside and frame.x[1] < 0.3 and frame.y[0] > 0.8
    if outside:
        start, end = frame.arrow(far, near[:1])
        inside = [low < place < high for (low, high), place in zip((frame.x, frame.y), start, strict=True)]
        assert inside == [True, True]
        # It begins at the side on which the model lies, and points to the models after unlearning.
        assert start[0] > end[0] > 0.1 if tail == "right" else start[1] < end[1] < 0.9


def test_names_stay_text_and_end_no_script():
    line = Line(HOSTILE, "after", [(0.0, 0.1), (1.0, 0.2), (2.0, 0.3)])
    chart = course_chart(HOSTILE, HOSTILE, [line])
    drawn = json.dumps([chart["data"], chart["layout"]])
    assert "<b>" not in drawn and "%{x}" not in drawn and "&lt;b&gt;" in drawn
    assert chart["title"] == HOSTILE  # text of an element of the page
    scripts = scripts_of({"a": chart})
    assert "<" not in scripts.charts and json.loads(scripts.charts)["a"]["title"] == HOSTILE
    assert scripts.policy.count("'sha256-") == 2 and len(scripts.code) == 2
    assert scripts_of({}).code == () and "script" not in scripts_of({}).policy


def test_the_library_lies_with_its_licence():
    folder = Path(figures.__file__).parent.parent / "templates"
    library = (folder / "plotly-basic.min.js").read_text(encoding="utf-8")
    licence = (folder / "plotly-basic.LICENSE.txt").read_text(encoding="utf-8")
    assert library.startswith("/**\n* plotly.js (basic - minified) v") and "MIT License" in licence
    assert "</script" not in library.lower() and "<!--" not in library  # it stands within an element
    assert "eval(" not in library and "new Function" not in library  # which the page's policy would refuse
