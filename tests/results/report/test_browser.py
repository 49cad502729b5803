"""The page in a browser, where there is one: no error on the console, no request, no sideways scrolling on a phone."""

import html
import json
import re
import shutil
import subprocess

import pytest

from fixtures.attack_reports import report
from fixtures.report import record, save_run
from hf_unlearn.results.report import write_report

CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--hide-scrollbars", "--enable-logging=stderr", "--v=0",
    "--dump-dom", "--virtual-time-budget=9000",
)  # fmt: skip
# Without a window nothing comes into sight: every plot does, once the parts that are folded have been opened.
IN_SIGHT = """<script>
IntersectionObserver = class {
  constructor(report) { this.report = report; }
  observe(target) { setTimeout(() => this.report([{ target, isIntersecting: true }]), 500); }
  unobserve() {}
};
</script></head>"""
# A frame of the page's own origin, so that its width can be read; a window of chromium is never as narrow as a phone.
WRAPPER = """<!DOCTYPE html><body>
<iframe id="page" style="border: 0; width: {width}px; height: 800px" srcdoc="{page}"></iframe>
<pre id="found"></pre><script>
onload = () => {{
  const frame = document.getElementById("page");
  const root = frame.contentDocument.documentElement;
  const count = (selector) => frame.contentDocument.querySelectorAll(selector).length;
  for (const each of frame.contentDocument.querySelectorAll("details")) each.open = true;
  setTimeout(() => {{
    const requests = frame.contentWindow.performance.getEntriesByType("resource").length;
    document.getElementById("found").textContent = JSON.stringify({{
      width: root.scrollWidth, requests: requests, sections: count("section"),
      plots: count("[data-chart]"), charted: count(".replaced .live .plot-container"),
    }});
  }}, 4000);
}};
</script></body>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    showable = [{"prompt": "Who keeps the key?", "answers": {"before": "a" * 400, "after": "", "oracle": "Bo."}}]
    made = record("one", attack_report=report()), record("a_run_with_a_long_name_" * 4)
    runs = [save_run(folder / each.name, each, showable) for each in made]
    return write_report(runs, folder / "report.html").read_text(encoding="utf-8")


def opened(folder, document):
    """The document's DOM once loaded, and what the console said."""
    file = folder / "opened.html"
    file.write_text(document, encoding="utf-8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def measured(folder, page, width):
    """Width that the page wants in a frame of this width, and requests it made."""
    dom, console = opened(folder, WRAPPER.format(width=width, page=html.escape(page)))
    return json.loads(re.search(r'<pre id="found">([^<]*)</pre>', dom).group(1)), console


def test_no_error_on_the_console(page, tmp_path):
    dom, console = opened(tmp_path, page)
    assert console == [] and "How verdicts are made" in dom
    _, console = opened(tmp_path, page.replace("</main>", '<img src="http://127.0.0.1:9/a.png"></main>'))
    assert len(console) == 1 and "Content Security Policy" in console[0]


@pytest.mark.parametrize("width", [375, 1280])
def test_no_request_and_no_sideways_scrolling(page, tmp_path, width):
    # Without its policy, which would stop a request before it is seen.
    free = re.sub(r"<meta http-equiv[^>]*>", "", page).replace("</head>", IN_SIGHT)
    found, console = measured(tmp_path, free, width)
    assert found == {"width": width, "requests": 0, "sections": 5, "plots": 21, "charted": 21} and console == []
    wide = free.replace("</main>", '<img src="http://127.0.0.1:9/a.png"><div style="width: 3000px">a</div></main>')
    found, _ = measured(tmp_path, wide, width)
    assert found["width"] > 2000 and found["requests"] == 1
