"""Attacks on the page and as plots: which there are, and what their courses show."""

import math
from dataclasses import replace

import pytest

from fixtures.attack_reports import COURSE, finding, held, relearning, report, without_control
from fixtures.report import record, save_run
from hf_unlearn.results.attack_report import SettingLeak
from hf_unlearn.results.card_file import saved_plots
from hf_unlearn.results.report import figures, read_run, write_plots
from hf_unlearn.results.report.attack_plots import course, course_of, courses_plot, excess_plot
from results.report.test_page import page_of, titles


def test_the_page_has_tables_sentences_and_plots(tmp_path):
    page = page_of(tmp_path, record(attack_report=report(), log=[]), full=False)
    place = titles(page).index("Attacks")
    assert titles(page)[place : place + 3] == ["Attacks", "Excess by attack", "Leak over what an attack varies"]
    for words in (
        "<td class=\"number\" data-label=\"excess\"><span>0.600 <small>[0.450, 0.750]</small></span></td>",
        "rate 0.0001, step 100", "not attacked", "was back after 10 steps; of the oracle not within 100 steps.",
        "probe, as it failed on &lt;this&gt; model", "never-seen rows", "relearn, mean leak over training step",
    ):  # fmt: skip
        assert words in page, words
    assert page.count('class="plot"') == 5  # plane, excess, three courses
    assert titles(page)[1] == "npo-lora" and place == 2  # directly below the verdict
    bare = page_of(tmp_path / "bare", record(attack_report=without_control(), log=[]), full=False)
    # No plot of what has no control.
    assert titles(bare)[titles(bare).index("Attacks") + 1] == "Before, after, oracle"
    assert ">undefined</span>" in bare and "nan" not in bare.partition("<h3>Attacks</h3>")[2].partition("<h3>")[0]


def test_plots_of_attacks_are_files_and_go_when_there_is_no_report(tmp_path):
    folder = save_run(tmp_path, record(attack_report=held(), log=[], evaluations={}))
    written = {
        "Excess by attack": "plots/attacks_excess.png",
        "Leak over what an attack varies": "plots/attacks_courses.png",
    }
    assert write_plots(read_run(folder), folder) == written
    assert set(saved_plots(folder).values()) == set(written.values())
    record(log=[], evaluations={}).save(folder)
    assert saved_plots(folder) == {}  # they show another state
    assert write_plots(read_run(folder), folder) == {} and list((folder / "plots").glob("*.png")) == []


def test_the_course_of_relearning_is_that_of_the_chosen_rate():
    relearn = relearning()
    assert course_of(relearn) == "step"
    points = course(relearn.subjects["model"], "step")
    assert points[0] == (0.0, pytest.approx(0.035), True)
    assert points[1:] == [(float(step), pytest.approx(0.7 * share), True) for step, share in COURSE.items()]
    slower = replace(relearn.subjects["model"], setting={"rate": 1e-5, "step": 100})
    assert course(slower, "step")[-1] == (100.0, pytest.approx(0.7 * 0.3), True)


SETTINGS = {
    "bits": ([{"bits": 16}, {"bits": 8, "kind": "int8"}, {"bits": 4, "kind": "int4"}, {"bits": 4, "kind": "nf4"}],
             [(4.0, 0.4), (8.0, 0.2), (16.0, 0.1)]),
    "layer": ([{"layer": i} for i in (2, 1, 0)], [(0.0, 0.3), (1.0, 0.2), (2.0, 0.1)]),
    "k": ([{"k": 1, "heat": 0.2}, {"k": 8, "heat": 0.2}, {"k": 64, "heat": 1.0}, {"k": 64, "heat": 0.2}],
          [(1.0, 0.1), (8.0, 0.2), (64.0, 0.4)]),
    None: ([{"adapter": "on"}, {"adapter": "off"}], []),
}  # fmt: skip


@pytest.mark.parametrize("axis", SETTINGS)
def test_the_course_of_an_attack_is_over_the_number_that_it_varies(axis):
    settings, points = SETTINGS[axis]
    shares = [(setting, 0.1 * (i + 1), None) for i, setting in enumerate(settings)]
    made = finding("a", "weights", {"model": 1.0}, None, settings=shares)
    assert course_of(made) == axis
    if axis is not None:
        assert course(made.subjects["model"], axis) == [(x, pytest.approx(y), True) for x, y in points]


def test_settings_that_destroyed_the_model_are_crossed_and_those_without_a_figure_left_out():
    made = relearning()
    model = made.subjects["model"]
    tried = [replace(each, kept=each.setting["step"] != 100) for each in model.settings]
    tried.append(SettingLeak({"rate": 1e-4, "step": 200}, 0.5, math.nan))
    points = course(replace(model, settings=tried), "step")
    assert [(x, kept) for x, _, kept in points] == [*((x, True) for x in (0, 5, 10, 25, 50)), (100, False)]


def test_the_drawings_name_their_subjects_and_units():
    plots = courses_plot(report()), excess_plot(report())
    sampling, relearn, quantize = (figures.inline_svg(panel, "p") for panel in plots[0].panels)
    for word in ("never seen", "oracle", "model", "half of before", "training step", "var(--holdout)"):
        assert word in relearn, word
    assert (
        "queries" in sampling and "10k" in sampling and "mathdefault" not in sampling and "bits a weight" in quantize
    )
    bars = figures.inline_svg(plots[1].panels[0], "p")
    assert all(each.name in bars for each in report().findings) and "excess over the controls" in bars
    assert excess_plot(None) is None is courses_plot(None) and excess_plot(without_control()) is None
