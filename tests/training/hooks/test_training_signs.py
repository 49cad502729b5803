"""Signs of a run that does not do what it is for: warned of once, kept in the record. No model."""

from types import SimpleNamespace

import pytest

from hf_unlearn.results.record import RunRecord
from hf_unlearn.training.hooks.training_signs import TrainingSigns

SIGNS = {
    "wrong sign": ("forget_nll", [2.0, 1.9, 1.3, 1.2, 1.1, 1.0], "forget NLL fell from 2 to 1.1 nats"),
    "known rows fall a little": ("forget_nll", [0.05, 0.02, 0.02, 0.02, 0.02], None),
    "one easy batch": ("forget_nll", [2.0, 1.0, 2.1, 1.0, 2.2, 2.3], None),
    "forgetting": ("forget_nll", [0.1, 1.0, 2.0, 3.0, 4.0], None),
    "retain rows lost": ("retain_nll", [0.2, 0.3, 1.5, 1.6, 1.7, 1.8], "retain NLL rose from 0.2 to 1.7 nats"),
    "retain rows kept": ("retain_nll", [0.2, 0.5, 0.9, 1.0, 0.8], None),
    "retain answers collapse": ("eval_retain_accuracy", [0.9, 0.8, 0.4], "collapsed: from 90.0% right to 40.0%"),
    "no answer to lose": ("eval_retain_accuracy", [0.0, 0.0, 0.0], None),
}


@pytest.mark.parametrize("case", SIGNS)
def test_a_sign_is_kept_once(case, caplog):
    name, values, words = SIGNS[case]
    record = RunRecord()
    callback, state = TrainingSigns(record), SimpleNamespace(log_history=[], global_step=0)
    callback.on_train_begin(None, state, None)
    for step, value in enumerate(values, start=1):
        state.log_history.append({name: value, "step": step})
        state.log_history.append({"loss": 1.0})  # logs without the figure count for nothing
        state.global_step = step
        callback.on_log(None, state, None)
    assert len(record.signs) == (words is not None) and record.warnings == record.signs
    assert words is None or words in record.signs[0]
    callback.on_train_begin(None, state, None)
    assert record.signs == []
