"""The page over HTTP, and in Chromium where there is one: what is answered, and that nothing is asked of elsewhere."""

import os
import re
import shutil
import socket
import subprocess

import pytest

from fixtures.demo import adapter_run
from hf_unlearn.demo.answers import ModelThread
from hf_unlearn.demo.columns import load_columns
from hf_unlearn.demo.serve import choose_port, launch, require_gradio
from hf_unlearn.demo.session import Session
from hf_unlearn.demo.sources import open_runs, sources_of
from hf_unlearn.demo.start import page_of

pytest.importorskip("gradio", reason="the extra demo is not installed")

SHOWABLE = [{"prompt": "May this be shown?", "answers": {"after": "Yes."}}]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of a page on an adapter and its base, and the hosts that were connected to while it was made."""
    from torch import device

    require_gradio()
    folder = adapter_run(tmp_path_factory.mktemp("runs"), showable=SHOWABLE)
    runs, hosts, connect = open_runs([str(folder)]), [], socket.socket.connect
    thread = ModelThread()
    page = page_of(runs, Session(load_columns(sources_of(runs), device("cpu")), thread))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda own, to: (hosts.append(to[0]), connect(own, to))[1])
        address = launch(page, "127.0.0.1", choose_port("127.0.0.1", None), wait=False)
    yield address, hosts, page
    page.close()
    thread.close()


@pytest.fixture(scope="module")
def client(served):
    from gradio_client import Client

    return Client(served[0], verbose=False, analytics_enabled=False)


def text_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_answers_are_streamed_side_by_side(client):
    job = client.submit("who is 3?", False, False, "plain text", 12, 0, 0, api_name="/ask")
    board = job.result()[0]
    assert board.count("<section") == 2
    assert all(name in text_of(board) for name in ("before adapter off", "after adapter on"))
    assert len(job.outputs()) > 1 and job.outputs()[0][0].count("<section") == 2


def test_a_vote_tells_which_is_which(client):
    board = client.predict("who is 3?", True, False, "plain text", 4, 0, 0, api_name="/ask")[0]
    assert "<h2>A</h2>" in board and "before" not in text_of(board).split("The prompt")[0]
    shown, told = client.predict("after", "A", "plain text", api_name="/vote")
    assert re.search(r"<h2>A: (before|after)</h2>", shown)
    assert ("Right." in told) == ("A: after" in shown) and "after among 2" in told and "50%" in told
    assert "Ask a new prompt" in client.predict("after", "A", "plain text", api_name="/vote")[1]


def test_a_text_is_scored_under_both(client):
    html = client.predict("who is 3?", " fox", False, "coloured, with numbers", api_name="/score")
    assert html.count("<section") == 2 and html.count("<sub>") == 10 and "5 tokens, mean probability" in html


def test_what_is_missing_or_too_long_is_told_on_the_page(client):
    assert "Type a prompt" in client.predict(" ", False, False, "coloured", 4, 0, 0, api_name="/ask")[0]
    assert "Type an answer" in client.predict("a", "", False, "coloured", api_name="/score")
    told = client.predict("long " * 400, False, False, "coloured", 4, 0, 0, api_name="/ask")[0]
    assert 'role="alert"' in told and "What to do" in told


def test_nothing_is_asked_of_elsewhere(served):
    import httpx

    address, hosts, page = served
    assert set(hosts) <= {"127.0.0.1"} and page.share_url is None and not page.analytics_enabled
    answer = httpx.get(address)
    assert "connect-src 'self'" in answer.headers["content-security-policy"]
    fetched = re.findall(r"""<(?:script|link|img|iframe)[^>]*?(?:src|href)=["']?(https?:[^"'> ]+)""", answer.text)
    assert fetched == [] and "fonts.googleapis" not in answer.text + httpx.get(f"{address}theme.css").text
    assert not page.run_history and os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


def test_only_prompts_that_may_be_shown_are_offered(served):
    config = served[2].config["components"]
    offered = [part["props"].get("choices") for part in config if part["props"].get("elem_id") == "showable"]
    assert offered == [[("May this be shown?", "May this be shown?")]]
    typed = [part["props"].get("value") for part in config if part["type"] == "textbox"]
    assert len(typed) == 3 and not any(typed)


def test_the_report_stands_in_the_page_without_access_to_it(served):
    frames = [part["props"]["value"] for part in served[2].config["components"] if part["type"] == "html"]
    (report,) = [html for html in frames if "<iframe" in html]
    assert "sandbox" in report and "allow-same-origin" not in report and "Unlearning report" in report


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium")
def test_the_page_comes_up_in_chromium(served, tmp_path):
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--no-first-run", "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path}"]
    command += ["--virtual-time-budget=15000", "--dump-dom", served[0]]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    assert all(words in page for words in ("Stays gone?", "Hide which is which", "Score a text"))
