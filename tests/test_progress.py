"""Bars on a terminal name model and phase; a log gets a line a phase, once, and no carriage return."""

import io
import sys

import pytest

from hf_unlearn.progress import bar, phase, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_has_a_line_for_each_part_of_a_phase_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(3), "alone")) == [0, 1, 2]  # in no phase, nothing is told
    with phase("before"):
        for _ in range(2):
            assert list(progress(range(3), "likelihoods")) == [0, 1, 2]
        list(progress([], "answers to prompts"))
        list(progress([1], "of another process", shown=False))
    with phase("after"):
        list(progress([1], "likelihoods"))
    assert capsys.readouterr().err == "before: likelihoods\nbefore: answers to prompts\nafter: likelihoods\n"


def test_a_phase_of_one_line_tells_itself_and_none_of_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    with phase("after"):
        with phase("attack relearn on oracle", one_line=True):
            list(progress([1], "likelihoods"))
        with phase("attack prune on oracle", one_line=True, shown=False):
            list(progress([1], "likelihoods"))
        list(progress([1], "likelihoods"))
    assert capsys.readouterr().err == "attack relearn on oracle\nafter: likelihoods\n"


def test_a_terminal_has_bars_with_the_names(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with phase("after"):
        assert list(progress(range(3), "answers to prompts")) == [0, 1, 2]
        list(progress([1], "of another process", shown=False))
        with bar(total=2, desc="of a library", disable=False, leave=True) as shown:
            shown.update()
    written = terminal.getvalue()
    assert "after: answers to prompts:" in written and "0/3" in written and "after: of a library" in written
    assert "of another process" not in written and "\n" not in written.replace("\x1b[A", "").rstrip("\n")
    assert list(progress(iter([7]), "unnamed", total=1)) == [7] and "unnamed: " in terminal.getvalue()
