"""Where the page is served, and what is refused before a model is loaded. No gradio."""

import asyncio
import importlib.util
import logging
import socket
import sys

import pytest

from fixtures.examples import assert_four_parts
from hf_unlearn.cli import main
from hf_unlearn.demo.serve import ContentPolicy, choose_port, is_loopback, require_gradio, warn_of_host

LOOPBACK = "127.0.0.1"


@pytest.fixture
def taken():
    """A port on which something listens."""
    with socket.socket() as listening:
        listening.bind((LOOPBACK, 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_a_port_that_is_taken_is_refused(taken):
    with pytest.raises(ValueError) as error:
        choose_port(LOOPBACK, taken)
    assert_four_parts(str(error.value), f"--port {taken}")
    assert choose_port(LOOPBACK, None) >= 7860


def test_ports_and_hosts_that_are_none(taken):
    for host, port, word in ((LOOPBACK, 70000, "65535"), ("192.0.2.1", None, "--host"), ("no.such.host", 1, "--host")):
        with pytest.raises(ValueError) as error:
            choose_port(host, port)
        assert_four_parts(str(error.value), word)


def test_others_who_can_reach_the_page_are_warned_of(caplog):
    inside = ("127.0.0.1", "localhost", "::1", "[::1]", "127.0.0.2")
    assert all(is_loopback(host) for host in inside)
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.7", "machine.local"))
    logger = logging.getLogger("hf_unlearn.demo.serve")
    logger.addHandler(caplog.handler)
    assert not warn_of_host("localhost") and not caplog.records
    assert warn_of_host("0.0.0.0") and "no password" in caplog.text
    logger.removeHandler(caplog.handler)


def test_every_answer_has_the_policy():
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b""})

    async def keep(message):
        sent.append(message)

    asyncio.run(ContentPolicy(app)({}, None, keep))
    headers = dict(sent[0]["headers"])
    assert headers[b"a"] == b"b" and b"connect-src 'self'" in headers[b"content-security-policy"]
    assert sent[1] == {"type": "http.response.body", "body": b""}


def test_a_missing_extra_is_told_before_anything_is_loaded(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError) as error:
        require_gradio()
    assert_four_parts(str(error.value), "pip install 'hf-unlearn[demo]'")
    assert main(["demo", str(tmp_path)]) == 2
    assert "hf-unlearn[demo]" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="the extra demo is not installed")
def test_a_folder_without_a_run_is_told(capsys, tmp_path):
    assert main(["demo", str(tmp_path)]) == 2
    assert_four_parts(capsys.readouterr().err, "results.json")


@pytest.mark.parametrize("words", [["--share"], ["--dtype", "int3"]])
def test_words_that_are_refused(words, capsys, tmp_path):
    assert main(["demo", str(tmp_path), *words]) == 2
    assert words[0] in capsys.readouterr().err
