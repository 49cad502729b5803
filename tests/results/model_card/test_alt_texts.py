"""What a card says of its plots to those who do not see them: the figures that are in them."""

import dataclasses
import re

from fixtures.attack_reports import held
from fixtures.report import evaluation, record
from hf_unlearn.results.model_card.alt_texts import with_alt_texts
from hf_unlearn.results.model_card.card import render_card
from hf_unlearn.results.record import RunRecord

PLOTS = {
    name: f"plots/{name.lower().replace(' ', '_')}.png"
    for name in ("Losses", "Plane", "Distributions", "Attacks excess", "Attacks courses", "Mine")
}


def seen(made):
    """The text of each plot by its file's name."""
    return {file.removeprefix("plots/"): text for text, file in with_alt_texts(PLOTS, made)}


def test_the_figures_are_said():
    log = [{"step": step, "loss": 9.0 - step / 20, "forget_nll": step / 100, "retain_nll": 0.5} for step in (10, 90)]
    pair = {
        "before": evaluation(harmful_rate=(1.0, 0.9, 1.0), retain_accuracy=0.995, forget_nll=0.014),
        "after": evaluation(harmful_rate=(0.0, 0.0, 0.1), retain_accuracy=0.965, forget_nll=1.385),
    }
    assert seen(record(evaluations=pair, log=log, attack_report=held())) == {
        "losses.png": "Losses: lines over 90 steps, forget NLL from 0.1 to 0.9, retain NLL from 0.5 to 0.5, loss from "
        "8.5 to 4.5",
        "plane.png": "Plane: a point for each model, harmful answers 100% -> 0%; retain answers right 99.5% -> 96.5%",
        "distributions.png": "Distributions: curves of the share of rows by their NLL; means: forget NLL (nats per "
        "token) 0.014 -> 1.385",
        "attacks_excess.png": "Attacks excess: a bar for each attack, excess over the controls prompts 0.020 [-0.060, "
        "0.090], sampling 0.020 [-0.060, 0.090], relearn 0.020 [-0.060, 0.090], quantize 0.020 [-0.060, 0.090]",
        "attacks_courses.png": "Attacks courses: leak over what each attack varies, at most relearn (model 0.200, "
        "oracle 0.180, never-seen rows 0.080), quantize (model 0.050, oracle 0.030, never-seen rows 0.020)",
        "mine.png": "Mine",
    }


def test_what_is_not_known_is_left_out():
    assert list(seen(RunRecord()).values()) == list(PLOTS)


def test_they_are_images_to_markdown_whatever_stands_in_them():
    made = record(attack_report=held())
    first = dataclasses.replace(made.attack_report.findings[0], name="a](b) <i>")
    made.attack_report = dataclasses.replace(made.attack_report, findings=[first])
    card = render_card(made, plots={"Attacks excess": "plots/attacks_excess.png"})
    (alt,) = re.findall(r"^!\[(.*)\]\(plots/attacks_excess\.png\)$", card, re.MULTILINE)
    assert r"a\](b) &lt;i>" in alt and "0.020 [-0.060, 0.090]" in alt
