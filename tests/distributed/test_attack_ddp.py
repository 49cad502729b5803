"""Attacks on two processes under gloo against one: both ranks have the report of a single process."""

import json
from pathlib import Path

import pytest

from distributed import attack_script
from distributed.launcher import fork

pytestmark = pytest.mark.distributed


def test_two_processes_report_what_one_reports(tmp_path):
    fork(Path(attack_script.__file__), tmp_path)
    first, second = (json.loads((tmp_path / f"2-{rank}.json").read_text()) for rank in range(2))
    assert first == second == json.loads(json.dumps(attack_script.run()))
