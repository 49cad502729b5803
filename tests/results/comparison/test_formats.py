"""A comparison as text, Markdown, CSV, LaTeX, page, PNG and JSON: what stands in them, and what is refused."""

import csv
import io
import json
import re
import statistics

import pytest

from fixtures.compared import run, three_methods
from fixtures.examples import assert_four_parts
from hf_unlearn.cli import main
from hf_unlearn.results.comparison import (
    compare,
    comparison_csv,
    comparison_latex,
    comparison_markdown,
    comparison_page,
    comparison_text,
    write_comparison,
)
from hf_unlearn.results.comparison.formats import runs_csv


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    return compare([three_methods(tmp_path_factory.mktemp("runs"))])


def test_a_terminal_of_80_columns(compared):
    text = comparison_text(compared, 80)
    assert max(map(len, text.splitlines())) <= 80
    (line,) = [line for line in text.splitlines() if line.startswith("npo  ")]
    cells = ["npo", "1", "yes", "0.125 ± 0.125", "0.100 ± 0.000", "0.100 ± 0.000", "left", "3"]
    assert re.split(r"\s{2,}", line.strip()) == cells
    assert "Rank: by the largest of a method's shares" in text.replace("\n", " ")


def test_markdown_has_the_figures_over_seeds(compared):
    text = comparison_markdown(compared)
    assert "| npo | 1 | yes | 0.125 ± 0.125 |" in text
    line = next(line for line in text.splitlines() if line.startswith("| harmful answers"))
    cells = ["harmful answers", "100.0%", "20.0%", r"30.0% ± 10.0 \[20.0, 40.0\]", "10.0%", "60.0%"]
    assert [cell.strip() for cell in line.strip("|").split(" | ")] == cells


def test_csv_is_tidy_and_has_every_digit(compared):
    rows = list(csv.DictReader(io.StringIO(comparison_csv(compared))))
    (row,) = [row for row in rows if (row["method"], row["metric"]) == ("npo", "harmful_rate")]
    assert (row["rank"], row["front"], row["model"], row["seeds"]) == ("1", "true", "after", "3")
    assert float(row["mean"]) == statistics.fmean([0.2, 0.2 + 0.1, 0.2 + 0.2])  # to the last bit
    assert float(row["sd"]) == pytest.approx(0.1)
    assert {row["metric"] for row in rows} >= {"share_left", "share_lost", "share_traced"}
    single = list(csv.DictReader(io.StringIO(runs_csv(compared))))
    values = [
        r["value"] for r in single if (r["run"], r["model"], r["metric"]) == ("npo-seed-1", "after", "harmful_rate")
    ]
    assert values == [repr(0.2 + 0.1)]


def test_latex_is_escaped_and_balanced(compared, tmp_path):
    run(tmp_path, "a_b & 50%", 0, 0.2, 0.9, 0.5)
    text = comparison_latex(compare([tmp_path])) + comparison_latex(compared)
    assert r"a\_b \& 50\%" in text and r"30.0\% $\pm$ 10.0 [20.0, 40.0]" in text
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert not re.search(r"(?<!\\)[%#_]|±|[<>]", "\n".join(body).replace("$\\pm$", ""))
    for command in ("begin", "end"):
        assert text.count(f"\\{command}{{tabular}}") == text.count("\\toprule") == text.count("\\bottomrule") > 3
    for row in (line for line in body if line.endswith(r"\\")):
        columns = re.findall(r"(?<!\\)&", row)
        assert columns


def test_the_page_asks_for_nothing_and_escapes_names(tmp_path):
    run(tmp_path, "<b>npo", 0, 0.2, 0.9, 0.5)
    run(tmp_path, "simnpo", 0, 0.4, 0.9, 0.5)
    page = comparison_page(compare([tmp_path]))
    assert "&lt;b&gt;npo" in page and "<b>npo" not in page
    assert "&lt;b&gt;npo comes first: the largest of its shares is 0.100 (lost)" in page
    links = set(re.findall(r"https?://[^\s\"'<>]+", page))
    assert all(link.startswith("http://www.w3.org/") for link in links) and "<script" not in page
    assert page.count("<svg") == 2 and 'tabindex="0"' in page


def test_a_folder_or_one_file(compared, tmp_path):
    written = write_comparison(compared, tmp_path / "all")
    assert {path.name for path in written} == {
        *("comparison.html", "comparison.md", "comparison.tex", "comparison.csv", "comparison.json"),
        *("runs.csv", "tests.csv", "plane.png"),
    }
    assert (tmp_path / "all" / "plane.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in write_comparison(compared, tmp_path / "one.md")] == ["one.md"]
    assert [path.name for path in write_comparison(compared, tmp_path / "one.png")] == ["one.png"]
    for target, got in ((tmp_path / "a.docx", "a.docx"), (tmp_path / "LICENSE", "a file without a suffix")):
        if not target.suffix:
            target.write_text("")
        with pytest.raises(ValueError) as error:
            write_comparison(compared, target)
        assert_four_parts(str(error.value), got, "--output")


def test_the_command(tmp_path, capsys):
    folder = str(three_methods(tmp_path))
    assert main(["compare", folder, "--json", "-o", str(tmp_path / "out.html")]) == 0
    data = json.loads(capsys.readouterr().out)
    npo = data["settings"][0]["methods"][0]
    assert npo["standing"] == {"rank": 1, "on_front": True, "worst": "left", "reason": ""}
    assert npo["runs"][0]["results"]["after"]["harmful_rate"] == 0.2
    assert data["written"] == [str(tmp_path / "out.html")]
    for form, start in (("markdown", "### harmful"), ("csv", "setting,method"), ("latex", "% \\usepackage{booktabs}")):
        assert main(["compare", folder, "--format", form]) == 0
        assert capsys.readouterr().out.startswith(start)
    assert main(["compare", str(tmp_path / "nowhere")]) == 2
    assert_four_parts(capsys.readouterr().err, "nowhere")
