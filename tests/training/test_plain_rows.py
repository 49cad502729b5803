"""Rows as plain Trainer scripts have them: token ids whose labels a collator makes, and streams of any length."""

import pytest
import torch
from transformers import DataCollatorForLanguageModeling

from fixtures.bad_input import TorchStream
from fixtures.models import make_trainer, tiny_model, tiny_tokenizer, weights

PARTS = r"(?s)Expected (.*)Got: (.*)Why it matters: (.*)What to do: "


def token_rows(word: str, count: int, *, labels=None, **columns) -> list[dict]:
    rows = [{"input_ids": tiny_tokenizer()(f"{word} {i} " * (1 + i % 3)).input_ids, **columns} for i in range(count)]
    return [row | ({} if labels is None else {"labels": labels(row["input_ids"])}) for row in rows]


def whole(ids: list[int]) -> list[int]:
    """DataCollatorForLanguageModeling's: every token but those that are padding."""
    return [-100 if token == tiny_tokenizer().pad_token_id else token for token in ids]


def after_three(ids: list[int]) -> list[int]:
    return [-100] * 3 + ids[3:]


class AfterThree(DataCollatorForLanguageModeling):
    """Trains what follows the third token, as a collator of completions does after its marker."""

    def torch_call(self, examples):
        batch = super().torch_call(examples)
        batch["labels"][:, :3] = -100
        return batch


def stepped(folder, data, collator=None, **arguments) -> dict[str, torch.Tensor]:
    trainer = make_trainer(folder, tiny_model(), sets=data, data_collator=collator, max_length=64, **arguments)
    trainer.train()
    return weights(trainer.model)


@pytest.mark.parametrize("stream", [False, True], ids=["list", "stream"])
@pytest.mark.parametrize(
    ("collator", "labels"), [(DataCollatorForLanguageModeling, whole), (AfterThree, after_three)], ids=["all", "some"]
)
def test_labels_that_a_collator_makes_are_those_of_the_rows(tmp_path, collator, labels, stream):
    """The same step as of rows with these labels; a `text` column beside them is dropped, as plain Trainer does."""

    def sets(**more):
        rows = {"forget": token_rows("fox", 8, **more), "retain": token_rows("tea", 8, **more)}
        return {name: TorchStream(given) for name, given in rows.items()} if stream else rows

    made = stepped(tmp_path, sets(text="left out"), collator(tiny_tokenizer(), mlm=False))
    given = stepped(tmp_path, sets(labels=labels, text="left out"))
    other = stepped(tmp_path, sets(labels=lambda ids: [-100] * 2 + ids[2:]))
    assert all(torch.equal(made[name], given[name]) for name in given)
    assert any(not torch.equal(made[name], other[name]) for name in other)


def test_labels_that_nobody_makes_are_asked_for(tmp_path):
    data = {"forget": token_rows("fox", 8), "retain": token_rows("tea", 8)}
    with pytest.raises(ValueError, match=PARTS + r".*DataCollatorForLanguageModeling\(tokenizer, mlm=False\)"):
        make_trainer(tmp_path, tiny_model(), sets=data)
    tokenizer = tiny_tokenizer()
    tokenizer.mask_token = "?"
    torch.manual_seed(0)
    masked = DataCollatorForLanguageModeling(tokenizer, mlm=True, mlm_probability=0.9)
    with pytest.raises(ValueError, match=PARTS + ".*mlm=False"):
        make_trainer(tmp_path, tiny_model(), sets=data, data_collator=masked)


@pytest.mark.parametrize("kind", ["torch", "datasets"])
def test_rows_of_a_stream_count_as_long_as_they_are(tmp_path, kind):
    """max_length is beyond the model's positions; the rows are not, until one is, which is refused when it comes."""
    model = tiny_model()
    positions = model.config.max_position_embeddings

    def sets(last: int):
        long = [{"prompt": "q", "completion": " x" * last}]
        rows = {
            name: [{"prompt": f"{name} {i}?", "completion": " a"} for i in range(8)] for name in ("forget", "retain")
        }
        streams = {name: TorchStream(given + long * 4) for name, given in rows.items()}
        return streams if kind == "torch" else {name: datasets_stream(stream) for name, stream in streams.items()}

    make_trainer(tmp_path, model, sets=sets(2), max_length=8 * positions, max_steps=3).train()
    trainer = make_trainer(tmp_path, model, sets=sets(positions), max_length=8 * positions, max_steps=3)
    with pytest.raises(ValueError, match=rf"(?s)at most {positions} tokens.*in a batch.*max_length={positions}"):
        trainer.train()


def datasets_stream(stream: TorchStream):
    import datasets

    return datasets.Dataset.from_list(list(stream)).to_iterable_dataset()
