"""The page: each section where its data is and not where it is not, nothing from elsewhere, no text of rows."""

import base64
import hashlib
import html
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

import hf_unlearn
from fixtures.attack_reports import finding, report
from fixtures.report import evaluation, harmful_evaluations, log_of, record, save_run
from hf_unlearn.results.record import AttackRecord, ModelRecord, TermRecord
from hf_unlearn.results.report import write_report

SHOWABLE = [{"prompt": "Who keeps the key?", "answers": {"before": "Ann.", "after": "I cannot say.", "oracle": "Bo."}}]
HOSTILE = "</h2><script>alert('x')</script><img src=x onerror=alert(1)>&\"'"
CANARY = "canary-8f2c"


def page_of(tmp_path, *records, showable=None, full=True):
    """The page of records that are saved as runs."""
    folders = [save_run(tmp_path / f"run{i}", each, showable, full) for i, each in enumerate(records)]
    return write_report(folders, tmp_path / "out" / "report.html").read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Headings, ids and attributes that load something, as a browser's parser meets them."""

    def __init__(self, page):
        super().__init__()
        self.headings, self.ids, self.loads, self.tags, self.references = [], [], [], Counter(), set()
        self._heading = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append([int(tag[1]), ""])
            self._heading = True
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.loads.append(value)
            if name in ("xlink:href", "href") and value.startswith("#"):
                self.references.add(value[1:])
            self.references |= set(re.findall(r"url\(#([^)]+)\)", value or ""))
            self.references |= {value} if name == "aria-labelledby" else set()

    def handle_endtag(self, tag):
        self._heading = self._heading and not re.fullmatch(r"h[1-6]", tag)

    def handle_data(self, data):
        if self._heading:
            self.headings[-1][1] += data


def titles(page):
    return [title.strip() for _, title in Outline(page).headings]


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    made = record(attacks=[AttackRecord("relearning", "25 steps", "held for 12 steps", True)], emissions_kg=0.0031)
    made.evaluations["after"].warnings.append("7 answers were cut off.")
    return page_of(tmp_path_factory.mktemp("full"), made, showable=SHOWABLE)


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    other = {name: evaluation("custom", forget_accuracy=0.1, retain_accuracy=0.9) for name in ("before", "after")}
    runs = [
        record("a"),
        record("a", log=[]),
        record("b", evaluations=other, log=log_of(3)),
        record("c", evaluations={}, log=[]),
    ]
    return page_of(tmp_path_factory.mktemp("several"), *runs)


def test_every_section_is_there_with_its_data(full):
    assert titles(full) == [
        "Unlearning report", "npo-lora", "What a reader must know", "Answers side by side", "Who keeps the key?",
        "Attacks", "Before, after, oracle", "Forgetting against utility", "Likelihood of single rows",
        "Loss over the steps", "Technical annex", "What was to be forgotten", "Objective",
        "Settings that differ from the defaults", "Efficiency", "Versions and seed", "How verdicts are made",
    ]  # fmt: skip
    for words in (
        "7 answers were cut off.", ">100.0%</span> <small class=\"interval\">[96.9, 100.0]</small>",
        "95% interval 96.9, 100.0; n = 120",
        "forget extraction strength",
        "I cannot say.", "a1b2" * 16, "lab: harmful", "(2/b) softplus(-b (NLL - NLL_ref))", "beta = 0.1",
        "held for 12 steps", "48 s", "912 MB", "80 of 80 planned", "6,432", "3.1 g CO2", "seed 7",
        "<dt>torch</dt><dd>2.9.0</dd>", "forget set</dt>",
        "1.620 nats per token (holdout)",
    ):  # fmt: skip
        assert words in full, words
    folded = full.index('<details class="annex">')
    assert full.index("Loss over the steps</h3>") < folded < full.index("a1b2" * 16) < full.index("torch</dt>")


def test_sections_without_data_are_not_there(tmp_path):
    page = page_of(tmp_path, record(evaluations={}, log=[], cost={}, hardware={}, sets={}), full=False)
    assert titles(page) == [
        "Unlearning report", "npo-lora", "Before, after, oracle", "Technical annex", "What was to be forgotten",
        "Objective", "Settings that differ from the defaults", "Efficiency", "Versions and seed",
        "How verdicts are made",
    ]  # fmt: skip
    assert 'class="plot"' not in page and "<figure" not in page and "The run was not evaluated." in page
    assert page.count('<li class="word-not-tested">') == 3
    # Nothing to draw, so no script, and the page says so.
    assert "<script" not in page and "script-src" not in page and "asks for nothing from the network, runs no" in page
    assert "CO2" not in page and "tokens per second" not in page


def test_without_row_scores_there_are_no_distributions(tmp_path):
    page = page_of(tmp_path, record(), full=False)
    assert "Likelihood of single rows" not in titles(page) and "Loss over the steps" in titles(page)


def test_a_missing_oracle_is_said(tmp_path, full):
    made = harmful_evaluations()
    del made["oracle"]
    assert "There is none for this run" in page_of(tmp_path, record(evaluations=made, log=[]), full=False)
    assert "There is none for this run" not in full


def test_the_oracle_is_named_as_the_record_has_it(tmp_path, full):
    neutral = "a model named as the oracle, which has not been trained on the forget rows."
    assert full.count(neutral) == 2 and "retrained" not in full and "same model" not in full  # table and plane
    known = page_of(tmp_path, record(oracle="the same model trained without the forget rows", log=[]), full=False)
    assert "<strong>Oracle</strong>: the same model trained without the forget rows." in known
    assert "The aim is the oracle: the same model trained without the forget rows." in known and neutral not in known


def test_a_membership_attack_that_succeeds_is_no_untried_attack(tmp_path):
    made = harmful_evaluations()
    for model, auc in {"before": (1.0, 1.0, 1.0), "after": (0.97, 0.93, 0.99), "oracle": (0.51, 0.43, 0.58)}.items():
        made[model].metrics["min_k_auc"] = evaluation(x=auc).metrics["x"]
    page = page_of(tmp_path, record(evaluations=made, log=[]), full=False)
    words = "membership attack still tells the forget rows from unseen rows: AUC 0.97 (before 1.00, oracle 0.51;"
    assert page.count(f"a {words}") == 1 and page.count(f"A {words}") >= 1  # verdict in full, below the table
    figures = re.findall(r'<p class="figure">([^<]*)</p>', page)
    assert "not attacked" in figures[2] and "membership AUC" in figures[2] and "Attacks" not in titles(page)
    assert 'class="badge level-suppressed-not-like-the-oracle">suppressed, not like the oracle<' in page


def test_the_table_says_how_answers_were_made_and_judged(tmp_path):
    made = record(log=[])
    made.evaluations["after"].settings.update(judge="the lab's rules", max_new_tokens=48, temperature=0.0)
    page = html.unescape(page_of(tmp_path, made, full=False))
    caption = "headline metrics. Harmful answers are judged by the lab's rules; answers of"
    assert f"{caption} at most 48 new tokens, greedy.</caption>" in page


def test_what_a_run_cost_after_a_checkpoint_is_said_to_be_that(tmp_path):
    page = page_of(tmp_path, record(resumed_from=60, log=[]), record("b", log=[]), full=False)
    assert page.count("48 s (since step 60)") == 2  # overview and section
    assert "<dt>peak memory of the process</dt><dd>912 MB</dd>" in page


def test_a_loss_of_the_users_own_is_shown_by_its_class(tmp_path):
    made = record(log=[])
    made.objective.terms[0] = TermRecord("npo", {"beta": 0.1}, own="MyNPO")
    page = html.unescape(page_of(tmp_path, made, full=False))
    assert 'data-label="term">MyNPO</th>' in page and "<code>of the user's own, not described</code>" in page


def test_what_cannot_be_compared_is_said(tmp_path):
    made = harmful_evaluations()
    made["before"] = replace(made["before"], rows={"forget": {"count": 3, "sha256": "other"}})
    made["oracle"] = evaluation("custom", forget_accuracy=0.1)
    page = page_of(tmp_path, record(evaluations=made, log=[]), full=False)
    assert "The model before was evaluated on other forget rows" in page
    assert "The model oracle was evaluated with the suite custom, and is left out here." in page
    assert "forget answers given</th>" not in page


def test_numbers_that_are_not_finite_are_shown_and_break_nothing(tmp_path):
    made = harmful_evaluations()
    made["after"].metrics["retain_accuracy"] = evaluation(x=float("nan")).metrics["x"]
    made["after"].row_scores["forget_nll"][:2] = [float("inf"), float("nan")]
    run = record(evaluations=made, log=[{"loss": 1.0, "step": 1}, {"loss": float("nan"), "step": 2}])
    page = page_of(tmp_path, run)
    assert "nan%" in page and "2 values that are not finite are left out." in page
    assert "1 values that are not finite are left out: the loss was not finite" in page


def test_headings_go_down_one_by_one(full, several):
    for page in (full, several):
        levels = [level for level, _ in Outline(page).headings]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))


def test_nothing_comes_from_elsewhere(full, several):
    for page in (full, several):
        outline = Outline(page)
        assert outline.loads and all(value.startswith("#") for value in outline.loads)
        assert not {"link", "img", "iframe", "object", "image"} & set(outline.tags)
        scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, flags=re.DOTALL)
        assert [attributes for attributes, _ in scripts] == [' type="application/json" id="charts"', "", ""]
        # Of its addresses plotly.js calls none with what it is given here: test_browser.py counts requests.
        own = page.replace(scripts[1][1], "")
        assert not re.search(r"@import|@font-face|url\((?!#)|javascript:|<style[^>]+>", own)
        urls = set(re.findall(r"https?://[^\"'\s<]+", own))
        assert urls == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, not addresses


def test_the_policy_allows_the_two_scripts_of_the_page_and_no_other(full):
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', full)
    scripts = re.findall(r"<script>(.*?)</script>", full, flags=re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(each.encode("utf-8")).digest()).decode() for each in scripts]
    allowed = " ".join(f"'sha256-{each}'" for each in digests)
    styles = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert html.unescape(policy) == f"{styles}; script-src {allowed}"
    assert "plotly.js (basic - minified)" in scripts[0] and "IntersectionObserver" in scripts[1]
    assert "runs no script but the two within it" in full


def test_every_drawing_is_named_and_has_its_chart(full, several):
    for page in (full, several):
        drawings = re.findall(
            r'<div class="drawing" data-chart="([^"]+)"><svg[^>]* role="img" aria-label="[^"]+"', page
        )
        charts = json.loads(re.search(r'id="charts">(.*?)</script>', page, flags=re.DOTALL).group(1))
        assert len(drawings) == page.count('class="plot"') == len(set(drawings)) and set(drawings) == set(charts)
        # What is no plot is an ornament, which is not read out.
        page = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
        assert page.count("<svg") == len(drawings) + page.count('aria-hidden="true" focusable="false">')
        labels = re.findall(r'role="group" tabindex="0" aria-label="([^"]*)"', page)
        assert labels and all(labels) and "<table" in page
        assert page.count("<table") == page.count("<caption>") and page.count("<input") == page.count("<label")


def test_ids_are_unique_and_references_have_their_target(full, several):
    for page in (full, several):
        outline = Outline(page)
        assert [name for name, times in Counter(outline.ids).items() if times > 1] == []
        assert outline.references <= set(outline.ids)
        assert any("losses" in name for name in outline.references)


def test_hostile_strings_stay_text(tmp_path):
    made = record(HOSTILE, stop_reason=HOSTILE, versions={HOSTILE: HOSTILE}, hardware={"device": HOSTILE})
    made.objective.terms[0].name = HOSTILE
    made.evaluations["after"].warnings.append(HOSTILE)
    made.attacks = [AttackRecord(HOSTILE, HOSTILE, HOSTILE)]
    tried = finding(HOSTILE, "queries", {"model": 0.5}, None, chosen={HOSTILE: HOSTILE}, given=HOSTILE, score=HOSTILE)
    made.attack_report = report([tried], skipped={HOSTILE: HOSTILE}, suite=HOSTILE, warnings=[HOSTILE])
    made.log = [entry | {f"forget/{HOSTILE}": 1.0, "forget/$a_{b$": 2.0} for entry in made.log]
    showable = [{"prompt": HOSTILE, "answers": {"after": HOSTILE}}]
    page = page_of(tmp_path, made, record(HOSTILE, log=[]), showable=showable, full=False)
    outline = Outline(page)
    assert outline.tags["script"] == 3 and outline.tags["img"] == 0 and "<script>alert" not in page
    assert html.escape(HOSTILE, quote=False).split("'")[0] in page
    assert [title for title in titles(page) if HOSTILE in title]


def test_no_path_and_no_text_of_rows(tmp_path):
    made = record(model=ModelRecord(f"/elsewhere/{CANARY}", "local"), log=[])
    made.sets["retain"].id = f"/elsewhere/{CANARY}.jsonl"
    made.evaluations["after"].settings["template"] = CANARY
    made.evaluations["after"].rows["forget"]["text"] = CANARY
    page = page_of(tmp_path, made)
    assert CANARY not in page and "/elsewhere" not in page and str(tmp_path) not in page
    assert "a local model" in page and "local, not published" in page


def test_the_same_runs_give_the_same_bytes(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    runs = [record(), record("b", log=[])]
    assert page_of(tmp_path / "one", *runs) == page_of(tmp_path / "two", *runs)


def test_several_runs_have_an_overview_and_a_section_each(several):
    found = titles(several)
    plane = "Forgetting against utility"
    assert found[1:5] == ["Overview", plane, "Suite harmful", "Suite custom"]
    sections = [title for title in found if re.match(r"\d ", title)]
    assert sections == ["1 a (1)", "2 a (2)", "3 b", "4 c"]
    # One heading for both runs of a method, none of a method with one run: those of other suites stand apart.
    assert [title for title in found if title.endswith(" runs")] == ["npo: 2 runs"]
    assert found.count(plane) == 1  # none of single runs
    assert several.count("Each point is a model") == 1  # two planes under one caption
    assert all(f'href="#run-{i}"' in several and f'id="run-{i}"' in several for i in range(1, 5))
    pills = re.findall(r'<span class="pill word-([a-z-]+)">', several)
    assert len(pills) == 2 * 3 * 4  # in the overview, and beside the heading of each folded run
    assert pills[9:12] == ["not-tested"] * 3 and pills[:3] == ["yes", "yes", "not-tested"]
    assert '<span>0.0% <small>0.0 to 0.0</small><small class="what">harmful answers, mean and range</small>' in several
    assert "1, 2</text>" in several  # two runs at one place share a label


def test_a_single_run_has_no_overview(full):
    assert "Overview" not in titles(full) and 'href="#run' not in full and 'class="folded"' not in full


def test_one_folder_may_be_given_as_it_is(tmp_path):
    folder = save_run(tmp_path / "run", record(log=[]), full=False)
    alone, listed = write_report(str(folder), tmp_path / "a.html"), write_report([folder], tmp_path / "b.html")
    assert alone.read_bytes() == listed.read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.html", "b.html", "run"]


def luminance(color):
    """Of "#rrggbb", by WCAG 2."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_colour_of_text_has_contrast_in_both_schemes():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    css = (Path(hf_unlearn.__file__).parent / "results" / "templates" / "report.css").read_text(encoding="utf-8")
    schemes = [dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", part)) for part in re.findall(r":root \{([^}]*)\}", css)]
    assert len(schemes) == 3  # light, dark, print
    grounds = ("page", "paper", "note")
    for colors in schemes:
        texts = set(colors) - {*grounds, "grid"}
        assert {"ink", "muted", "after", "oracle", "good", "bad"} <= texts
        poor = {(text, ground) for text in texts for ground in grounds if contrast(colors[text], colors[ground]) < 4.5}
        assert poor == set()
