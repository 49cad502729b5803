"""Answers that may be shown: which prompts are read, what each model answers, and that nothing is kept unasked."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from fixtures.examples import assert_four_parts
from hf_unlearn import UnlearningConfig
from hf_unlearn.lab import Lab, load_lab
from hf_unlearn.results.report import SHOWABLE_FILE
from hf_unlearn.tasks.shown_answers import ShownAnswers, read_prompts

LONGEST = 12


@pytest.fixture(scope="module")
def lab() -> Lab:
    return load_lab()


def trainer_of(lab: Lab, folder: Path) -> SimpleNamespace:
    """What of a trainer is asked for: tokenizer, arguments and accelerator."""
    return SimpleNamespace(
        processing_class=lab.load_tokenizer(),
        args=UnlearningConfig(output_dir=str(folder), use_cpu=True, per_device_eval_batch_size=2),
        accelerator=Accelerator(cpu=True),
    )


def greedy(lab: Lab, model, prompt: str) -> str:
    """The likeliest token after the prompt, one after the other."""
    tokenizer = lab.load_tokenizer()
    ids = tokenizer(prompt)["input_ids"]
    start = len(ids)
    with torch.no_grad():
        while len(ids) < start + LONGEST:
            ids.append(int(model.eval()(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
    return tokenizer.decode(ids[start:], skip_special_tokens=True).strip()


# Prompts


def test_no_file_is_no_prompt():
    assert read_prompts(None) == []


def test_lines_of_a_text_file(tmp_path):
    (tmp_path / "asked.txt").write_text("Who is it?\n\n  Where?  \nWhen?", encoding="utf-8-sig")
    assert [each.strip() for each in read_prompts(str(tmp_path / "asked.txt"))] == ["Who is it?", "Where?", "When?"]


def test_the_prompts_of_rows(tmp_path):
    rows = [{"completion": "unread", "prompt": "Who?"}, {"completion": "unread", "prompt": "Where?\nHere?"}]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_prompts(str(tmp_path / "asked.jsonl")) == ["Who?", "Where?\nHere?"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("asked.txt", "", ["asked.txt", "an empty file"]),
        ("asked.txt", "\n \n\t\n", ["asked.txt", "an empty file"]),
        ("asked.jsonl", "", ["asked.jsonl", "an empty file"]),
        ("asked.jsonl", '{"question": "Who?"}\n', ["columns question", "a column `prompt`"]),
        ("asked.md", "Who?\n", ["asked.md"]),
    ],
)
def test_a_file_without_prompts_is_refused(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError) as error:
        read_prompts(str(tmp_path / name))
    assert_four_parts(str(error.value), *words)
    assert "Who" not in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError) as error:
        read_prompts(str(tmp_path / "asked.txt"))
    assert_four_parts(str(error.value), "asked.txt", "there is no file")


# Answers


def test_the_answers_of_each_model_are_saved_in_the_order_of_the_prompts(lab, tmp_path):
    prompts = [lab.datasets["forget"][0]["prompt"], "What?", lab.datasets["retain"][3]["prompt"]]
    shown = ShownAnswers(prompts, trainer_of(lab, tmp_path), LONGEST)
    models = {"before": lab.load_model(), "oracle": lab.load_oracle()}
    for name, model in models.items():
        shown.ask(name, model)
    shown.save(tmp_path)
    saved = json.loads((tmp_path / SHOWABLE_FILE).read_text(encoding="utf-8"))
    assert saved == [
        {"prompt": prompt, "answers": {name: greedy(lab, model, prompt) for name, model in models.items()}}
        for prompt in prompts
    ]
    before, oracle = (saved[0]["answers"][name] for name in models)
    assert before and oracle and before != oracle


def test_a_template_stands_around_the_prompt_as_around_a_row(lab, tmp_path):
    prompt = lab.datasets["retain"][0]["prompt"]
    inner = prompt.removeprefix("Question: ").removesuffix("\nAnswer:")
    assert len(inner) < len(prompt) - 10
    trainer = trainer_of(lab, tmp_path)
    trainer.args.template = "Question: {prompt}\nAnswer:{completion}"
    shown = ShownAnswers([inner], trainer, LONGEST)
    shown.ask("before", lab.load_model())
    shown.save(tmp_path)
    (saved,) = json.loads((tmp_path / SHOWABLE_FILE).read_text(encoding="utf-8"))
    assert saved == {"prompt": inner, "answers": {"before": greedy(lab, lab.load_model(), prompt)}}


def test_without_prompts_no_model_is_asked_and_nothing_is_written(tmp_path):
    shown = ShownAnswers([], SimpleNamespace(), LONGEST)
    shown.ask("before", None)
    shown.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_text_of_an_earlier_run_does_not_stay(tmp_path):
    (tmp_path / SHOWABLE_FILE).write_text("[]")
    ShownAnswers([], None, 8).save(tmp_path)
    assert not (tmp_path / SHOWABLE_FILE).exists()
