"""Rows of the first step that the model does not know: warned of once, by the step's own NLLs."""

import logging

import pytest

from fixtures.models import HOLDOUT, make_trainer, tiny_model, train_sets
from hf_unlearn.training.hooks import first_step
from hf_unlearn.training.hooks.first_step import unknown_rows

LEVELS = [
    ({"forget_nll": 0.1, "retain_nll": 2.0}, 3.0, []),
    ({"forget_nll": 7.9, "retain_nll": 2.0}, None, []),
    ({"forget_nll": 8.0, "retain_nll": 8.1}, 7.0, ["forget rows", "retain rows"]),
    ({"retain_nll": 9.0}, 3.0, ["retain rows"]),
    ({"forget_nll": 3.0}, 3.0, ["not below that of the holdout rows"]),
    ({"forget_nll": 0.9}, 0.8, []),  # known, and so are rows that are like them
    ({"forget_nll": float("nan")}, 3.0, []),  # the guard of non-finite losses speaks
]


@pytest.mark.parametrize(("levels", "unseen", "said"), LEVELS)
def test_what_a_model_does_not_know(levels, unseen, said):
    problems = list(unknown_rows(levels, 10.0, unseen))
    assert len(problems) == len(said) and all(words in problem for words, problem in zip(said, problems, strict=True))


def test_a_run_says_it_once_and_goes_on(tmp_path, monkeypatch):
    warned = []
    monkeypatch.setattr(logging.getLogger(first_step.__name__), "warning", lambda *a: warned.append(a[0] % a[1:]))
    # The tiny model is random: it knows neither set.
    trainer = make_trainer(
        tmp_path,
        tiny_model(),
        sets=train_sets() | {"holdout": HOLDOUT},
        forget_nll_bound="holdout",
        max_steps=3,
        gradient_accumulation_steps=2,
        logging_steps=1,
    )
    trainer.train()
    first = next(log for log in trainer.state.log_history if "forget_nll" in log)
    assert any(f"forget rows of the first step have an NLL of {first['forget_nll']:.2f}" in text for text in warned)
    assert any(f"retain rows of the first step have an NLL of {first['retain_nll']:.2f}" in text for text in warned)
    assert trainer.state.global_step == 3 and trainer.record.signs == []
    count = len(warned)
    trainer.train()
    assert len(warned) == count
