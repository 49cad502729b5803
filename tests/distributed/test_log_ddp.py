"""Each rank logs its own rows; a replay on two ranks is what it is on one, and is refused where ranks would wait."""

import json
from pathlib import Path

import pytest

from distributed import log_script
from distributed.launcher import fork
from fixtures.logged import tokenized
from fixtures.tokenizer import PAD
from hf_unlearn.unlearnable import read_log

pytestmark = pytest.mark.distributed


def test_two_ranks_log_and_replay(tmp_path):
    fork(Path(log_script.__file__), tmp_path)
    log, ids = read_log(tmp_path / "log"), tokenized()["input_ids"]
    for rank in range(2):
        result = json.loads((tmp_path / f"{rank}.json").read_text())
        batches = [batch for step in log.steps for batch in step.rows["train"][rank]]
        trained = [[[token for token in row if token != PAD] for row in batch] for batch in result["seen"]]
        assert [[ids[row] for row in batch] for batch in batches] == trained and len(batches) == 6
        assert result["same"] and result["moved"] and result["repeated"] and result["processes"] == 2
        assert "on several ranks and under" in result["refused"]
    first, second = ([row for batch in rank for row in batch] for rank in log.steps[0].rows["train"])
    assert not set(first) & set(second) and log.total_steps == 4 and log.finished
