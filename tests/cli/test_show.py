"""`hf-unlearn show` on rows worked out by hand: prompt, answer and end, which are those that would be trained."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from fixtures.chat_templates import templated_tokenizer
from hf_unlearn.cli import main
from hf_unlearn.data.prepare import RowOptions
from hf_unlearn.data.tokenized_row import trained_ids
from hf_unlearn.tasks.shown_rows import render_set, show_set

ROWS = [{"question": "Who?", "answer": "Ada."}, {"question": "Where?", "answer": "In Lund.\n\x1b[31mShe left."}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("show")
    (path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name in ("qwen3", "text end", "llama2"):
        templated_tokenizer(name).save_pretrained(path / name)
    return path


def shown(capsys, folder: Path, model: str, *more: str) -> str:
    columns = '{"question": "prompt", "answer": "completion"}'
    assert main(["show", str(folder / "rows.jsonl"), "--model", str(folder / model), "--columns", columns, *more]) == 0
    return capsys.readouterr().out


def test_a_thinking_template_as_a_person_sees_it(capsys, folder):
    text = shown(capsys, folder, "qwen3")
    assert text.endswith(
        """
row 1: 53 tokens, 24 trained
  prompt | <|im_start|>user\\n
         | Where?<|im_end|>\\n
         | <|im_start|>assistant\\n
         | <think>\\n
         | \\n
         | </think>\\n
         | \\n
  answer | In Lund.\\n
         | \\x1b[31mShe left.
  end    | <|im_end|>
"""
    )
    assert "An answer ends at '<|im_end|>'.\n" in text and "bos) '<s>': not written.\n" in text
    assert "\x1b" not in text, "no terminal, no colour; and no row writes on a terminal"
    spread = shown(capsys, folder, "llama2", "--limit", "1")
    assert "  answer |  Ada. \n  end    | </s>\n" in spread and "once.\n" in spread and "row 1" not in spread
    written = shown(capsys, folder, "text end", "--limit", "1", "--max_length", "40")
    assert "1 of 1 rows cut to max_length=40" in written and "8 tokens cut off, 8 of them answer" in written


def test_it_is_what_training_makes_of_the_rows_in_colour_too(capsys, folder):
    data = json.loads(shown(capsys, folder, "qwen3", "--json", "--chat_template_kwargs", '{"enable_thinking": false}'))
    tokenizer = AutoTokenizer.from_pretrained(folder / "qwen3")
    options = RowOptions(tokenizer, 1024, None, None, chat_template_kwargs={"enable_thinking": False})
    rows = [{"prompt": row["question"], "completion": row["answer"]} for row in ROWS]
    for row, trained in zip(data["rows"], options.tokenize(rows, "forget"), strict=True):
        assert "".join(text for _, text in row["parts"]) == tokenizer.decode(trained["input_ids"])
        said = "".join(text for kind, text in row["parts"] if kind in ("answer", "end"))
        assert said == tokenizer.decode(trained_ids(trained["labels"]))
        assert row["trained"] == len(trained_ids(trained["labels"]))
    coloured = render_set(show_set(rows, options, "forget", 2), options, colour=True)
    assert "\x1b[1;32mAda.\x1b[0m" in coloured and "\x1b[1;35m<|im_end|>\x1b[0m" in coloured


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--limit", "0"], "limit"),
        (["--max_length", "1"], "max_length"),
        (["--chat_template_kwargs", "no"], "a JSON object"),
        (["--chat_template_kwargs", '{"tokenize": true}'], "tokenize"),
        (["--template", "{prompt}"], "template"),
        (["--columns", '{"name": "prompt"}'], "name"),
    ],
)
def test_what_it_refuses(capsys, folder, wrong, words):
    assert main(["show", str(folder / "rows.jsonl"), "--model", str(folder / "qwen3"), *wrong]) == 2
    out, err = capsys.readouterr()
    assert not out and "hf-unlearn show: " in err and words in err


def test_train_shows_the_sets_of_a_run_and_ends(capsys, folder, tmp_path):
    sets = [("forget", '{"question": "prompt", "answer": "completion"}')]
    (folder / "keep.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    arguments = [
        "--task",
        "custom",
        "--model_name_or_path",
        str(folder / "qwen3"),
        "--output_dir",
        str(tmp_path / "o"),
    ]
    arguments += ["--forget_dataset", str(folder / "rows.jsonl"), "--retain_dataset", str(folder / "keep.jsonl")]
    arguments += [word for name, columns in sets for word in (f"--{name}_columns", columns)]
    with pytest.raises(SystemExit) as end:
        main(["train", *arguments, "--show_rows", "1", "--use_cpu", "--chat_template_kwargs", '{"a": 1}'])
    assert not end.value.code
    out = capsys.readouterr().out
    assert "forget set, first 1 rows" in out and "retain set, first 1 rows" in out and "  answer | Ada.\n" in out
    assert not (tmp_path / "o").exists() or not [*(tmp_path / "o").iterdir()]
