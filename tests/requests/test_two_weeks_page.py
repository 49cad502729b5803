"""The page docs/requests.md: its first two weeks run as they stand, shorter."""

import re
import shlex
from pathlib import Path

from hf_unlearn.cli import main
from hf_unlearn.requests import Ledger
from hf_unlearn.requests.state import EXPORTED, PLANNED, VERIFIED

PAGE = Path(__file__).resolve().parents[2] / "docs" / "requests.md"
SHORTER = {"open": ["--max_steps", "40", "--measure", "false", "--use_cpu"], "verify": ["--attack", "none"]}


def test_both_weeks_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second, *_ = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for line in (first + second).splitlines():
        words = shlex.split(line, comments=True)[1:]
        if words:
            more = SHORTER.get(words[1], []) if words[0] == "request" else []
            # So short a run need not hold: then `verify` says so and ends with 1.
            assert main([*words, *more]) in ((0, 1) if words[1:2] == ["verify"] else (0,)), line
    state, events = Ledger("ledger").state(), [entry.event for entry in Ledger("ledger").entries()]
    assert len(state.requests) == 3 and state.batches == [1, 2] and state.unfinished is None
    assert (events.count(VERIFIED), events.count(EXPORTED)) == (5, 1) and PLANNED in events
    assert state.requests["R-1"].received == "2026-11-02" and state.requests["R-1"].due == "2026-12-02"
    assert (tmp_path / "bundle" / "index.html").is_file()
