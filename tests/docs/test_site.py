"""The site builds strictly, all pages are in its navigation, and nothing that they load comes from another server."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fixtures.docs import DOCS, docs_script

ROOT = DOCS.parent
# What a browser fetches by itself; a link that a reader follows is not.
LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "link": "href",
}
ELSEWHERE = re.compile(r"^(\w+:)?//")


class Loads(HTMLParser):
    """What a page loads: scripts, styles, fonts, pictures."""

    def __init__(self, page: str):
        super().__init__()
        self.addresses: list[str] = []
        self.styles = ""
        self._in_style = False
        self.feed(page)
        self.addresses += in_style(self.styles)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self._in_style = tag == "style"
        self.styles += given.get("style") or ""
        navigation = tag == "link" and given.get("rel") in ("next", "prev", "canonical")
        if tag in LOADED and given.get(LOADED[tag]) and not navigation:
            self.addresses.append(given[LOADED[tag]])

    def handle_endtag(self, tag):
        self._in_style = False

    def handle_data(self, data):
        if self._in_style:
            self.styles += data


def in_style(text: str) -> list[str]:
    """The addresses in a style sheet, but for pictures that are written into it."""
    found = re.findall(r"""url\(\s*['"]?([^'")]+)|@import\s+['"]([^'"]+)""", text)
    return [address for pair in found for address in pair if address and not address.startswith("data:")]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.mark.slow
def test_every_page_is_built_and_in_the_navigation(site):
    home = (site / "index.html").read_text(encoding="utf-8")
    pages = {path.relative_to(DOCS).with_suffix(".html").as_posix() for path in DOCS.rglob("*.md")} - {"README.html"}
    pages |= {f"api/{name}.html" for name in docs_script("site_hooks").API}
    pages |= {"reference/command_line.html", "contributing.html", "changelog.html"}
    assert [page for page in sorted(pages) if f'href="{page}"' not in home or not (site / page).is_file()] == []


@pytest.mark.slow
def test_nothing_that_a_page_loads_comes_from_elsewhere(site):
    for path in site.rglob("*.html"):
        for address in Loads(path.read_text(encoding="utf-8")).addresses:
            assert not ELSEWHERE.match(address), f"{path.name} loads {address}"
            if path.name != "404.html":  # its addresses are those of the site's root, wherever it is shown
                assert (path.parent / address.partition("?")[0].partition("#")[0]).exists(), f"{path.name}: {address}"
    for path in site.rglob("*.css"):
        assert [address for address in in_style(path.read_text(encoding="utf-8")) if ELSEWHERE.match(address)] == []
    home = Loads((site / "index.html").read_text(encoding="utf-8")).addresses
    assert "javascripts/iframe-worker.js" in home  # the search works without a server, too
    assert (site / "search" / "search_index.js").stat().st_size > 100_000


@pytest.mark.slow
def test_what_is_made_while_it_is_built(site):
    losses = (site / "api" / "losses.html").read_text(encoding="utf-8")
    assert 'id="hf_unlearn.losses.NPO"' in losses and "inverse temperature, above 0" in losses
    commands = (site / "reference" / "command_line.html").read_text(encoding="utf-8")
    assert all(re.search(f"usage: hf-unlearn {words}", commands, re.IGNORECASE) for words in ("train", "request open"))
    assert "\x1b[" not in commands  # no colours of a terminal
    start = (site / "start.html").read_text(encoding="utf-8")
    assert 'href="repository/examples/harmful.py"' in start and (site / "repository/examples/harmful.py").is_file()


def test_what_a_page_must_not_load_is_found():
    page = """<a href="https://a.org"></a><link rel="next" href="b.html"><link rel="stylesheet" href="//c.org/a.css">
    <img src="https://d.org/a.png"><style>@import "https://e.org/a.css"; a { background: url(data:x) }</style>
    <script src=own.js></script><p style="background: url('http://f.org/a.png')">"""
    found = Loads(page).addresses
    assert set(found) == {
        "//c.org/a.css", "https://d.org/a.png", "https://e.org/a.css", "http://f.org/a.png", "own.js",
    }  # fmt: skip
    assert [address for address in found if not ELSEWHERE.match(address)] == ["own.js"]


@pytest.mark.parametrize(
    ("text", "page", "expected"),
    [
        ("[a](levels.md#the-lab)", "start.md", "[a](levels.md#the-lab)"),
        ("[`a.py`](../examples/harmful.py)", "start.md", "[`a.py`](repository/examples/harmful.py)"),
        ("![a](../docs/images/report.png)", "methods.md", "![a](images/report.png)"),
        ("[cards](../model_cards), [b](a.md)", "start.md", "cards, [b](a.md)"),
        ("[p](docs/plugins.md)", "contributing.md", "[p](plugins.md)"),
        ("[c](../../CONTRIBUTING.md#style)", "walkthroughs/harmful.md", "[c](../contributing.md#style)"),
        ("`[a](../examples/harmful.py)`, [w](https://a.org/b), [h](#here)", "start.md", None),
        ("```\n[a](../examples/harmful.py)\n```\n", "start.md", None),
        ("[gone](../examples/gone.py)", "start.md", None),  # which a strict build refuses
    ],
)  # fmt: skip
def test_links_are_those_of_the_site(text, page, expected):
    assert docs_script("site_hooks").with_links(text, page) == (text if expected is None else expected)


def test_a_link_named_by_its_file_gets_the_title_of_its_page():
    hooks = docs_script("site_hooks")
    titles = hooks.titles_of([{"Guide": [{"Measure": [{"Losses compared": "methods.md"}]}, {"Levels": "levels.md"}]}])
    text = "[methods.md](../methods.md#the-lab), [here](../levels.md), [other.md](other.md)"
    expected = "[Losses compared](../methods.md#the-lab), [here](../levels.md), [other.md](other.md)"
    assert hooks.with_links(text, "reference/losses.md", titles) == expected


def test_the_first_page_has_the_figures_of_the_demo():
    whole, first = ((DOCS / name).read_text(encoding="utf-8") for name in ("start.md", "README.md"))
    lines = re.search(r"```text\n( +before.*?)```", whole, re.DOTALL)[1].splitlines()
    figures = {line[:30].strip(): re.findall(r" ([\d.]+)(?=%| |$)", line[30:]) for line in lines}
    rows = [line.strip("| ").split(" | ") for line in first.splitlines() if re.match(r"\| .*\| [\d.]+%? \|", line)]
    assert [[cell.strip("%") for cell in row[1:]] for row in rows] == [
        figures["harmful answers"],
        figures["retain answers right"],
        figures["membership AUC (min-k)"],
    ]
