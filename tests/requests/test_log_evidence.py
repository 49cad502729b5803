"""A plan's evidence says of requests' rows what the log of the training says of them."""

from hf_unlearn.data.text_digests import text_digest
from hf_unlearn.requests.log_evidence import evidence_of_log
from hf_unlearn.unlearnable.log import Step, TrainingLog

SALT, OWN = b"ledger", b"log"
ROWS = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}, {"prompt": "e", "completion": "f"}]


def test_digests_of_the_ledger_have_the_steps_of_the_log(tmp_path):
    digests = tuple(text_digest(row, OWN) for row in ROWS)
    steps = tuple(Step(n, 0, {"train": [[[place]]]}) for n, place in ((1, 1), (2, 0), (3, 1)))
    (tmp_path / "checkpoint-2").mkdir()
    saved = {step: {"folder": f"checkpoint-{step}", "whole": True, "weights": {"w": "1"}} for step in (2, 3)}
    header = {"start": {"sha256": "0"}, "settings": {}, "sets": {"train": {"forms": ["turns"]}}}
    log = TrainingLog(tmp_path, OWN, header, {"train": digests}, steps, saved, "end", {}, "sha")
    asked = [{"messages": [{"content": "c"}, {"content": "d"}]}, ROWS[0], ROWS[2]]
    evidence = evidence_of_log(log, asked, SALT, "model")
    assert evidence.first_steps == {text_digest(ROWS[1], SALT): 1, text_digest(ROWS[0], SALT): 2}
    assert (evidence.rows_logged, evidence.total_steps, evidence.checkpoint_steps) == (3, 3, (0, 2))
    assert (evidence.log_sha256, evidence.weights, evidence.checkpoint) == ("sha", {"w": "1"}, "model")
