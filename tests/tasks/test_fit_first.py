"""A fit reads what the unlearning run will read: the same token ids, and labels that SFTTrainer leaves alone."""

import pytest
from datasets import Dataset
from trl import SFTTrainer

from fixtures.chat_templates import templated_tokenizer
from fixtures.models import tiny_model
from hf_unlearn.data.prepare import RowOptions
from hf_unlearn.tasks import fit_first
from hf_unlearn.training.config import UnlearningConfig

ROWS = [{"prompt": "hi", "completion": " yo"}, {"prompt": "who?", "completion": "dust " * 40}]


class Stop(Exception):
    """Instead of the fit."""


@pytest.mark.parametrize(
    ("name", "template", "whole_text"),
    [("no end", None, False), ("qwen3", None, False), ("chatml", "{prompt}{completion}", False), ("r1", None, True)],
)
def test_a_fit_has_the_labels_of_the_run(tmp_path, monkeypatch, name, template, whole_text):
    prepared = []

    class Watched(SFTTrainer):
        def train(self):
            prepared.extend([dict(row) for row in self.train_dataset])
            prepared.append(next(iter(self.get_train_dataloader())))
            raise Stop

    tokenizer = templated_tokenizer(name)
    monkeypatch.setattr(fit_first, "SFTTrainer", Watched)
    monkeypatch.setattr(fit_first, "load_tokenizer", lambda *_: tokenizer)
    monkeypatch.setattr(fit_first, "load_model", lambda *_: tiny_model(vocabulary=len(tokenizer)))
    args = UnlearningConfig(str(tmp_path), use_cpu=True, report_to="none", max_length=100, template=template)
    with pytest.raises(Stop):
        fit_first.fit(
            "fitted", fit_first.FitArguments(), args, "m", [Dataset.from_list(ROWS)], None, whole_text=whole_text
        )
    expected = list(RowOptions(tokenizer, 100, template, None).tokenize(ROWS, "forget"))
    for row, ours in zip(prepared[:2], expected, strict=True):
        assert row["input_ids"] == ours["input_ids"]
        assert row["labels"] == (ours["input_ids"] if whole_text else ours["labels"])
    kept = sorted((labels[labels != -100].tolist() for labels in prepared[2]["labels"]), key=len)
    assert kept == sorted(([label for label in row["labels"] if label != -100] for row in prepared[:2]), key=len)
