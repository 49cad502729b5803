"""`hf-unlearn evaluate --suite NAME --model MODEL`: what flags become, what comes out, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.models import tiny_model, tiny_tokenizer
from fixtures.muse_rows import ROWS
from hf_unlearn.cli import main
from hf_unlearn.evaluation import load_result
from hf_unlearn.tasks.named_suite import parse_named

PARTS = r"Expected (.|\n)*Got: (.|\n)*Why it matters: (.|\n)*What to do: "


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """MUSE's sets as files of JSON, and a folder that stands for a model."""
    for name, rows in ROWS.items():
        path = tmp_path / "data" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "model").mkdir()
    return tmp_path


def words(files: Path, *more: str) -> list[str]:
    return ["--model", str(files / "model"), "--source", str(files / "data"), *more]


def test_flags_are_the_suites_arguments_and_the_evaluations(files):
    flags = ["--published", "--part=scal_2", "--knowmem-tokens", "7", "--attacks", "min_k", "--use_cpu", "true"]
    evaluation, suite = parse_named("muse", words(files, *flags, "--limit", "2", "--batch_size", "4"))
    assert (evaluation.use_cpu, evaluation.batch_size, evaluation.seed) == (True, 4, 0)
    expected = {"corpus": "news", "part": "scal_2", "published": True, "knowmem_tokens": 7}
    assert suite.settings == expected and suite.answer_lengths["forget_qa"] == 7
    assert not suite.vocabulary_statistics  # min-k alone


def test_values_are_json_where_the_argument_is_no_text(tmp_path):
    (tmp_path / "model").mkdir()
    for name in ("forget", "retain"):
        rows = [{"question": f"{name} {k}?", "answer": "yes"} for k in range(2)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sets = [word for name in ("forget", "retain") for word in (f"--{name}", str(tmp_path / f"{name}.jsonl"))]
    renaming = ["--columns", '{"question": "prompt", "answer": "completion"}', "--max_new_tokens", "null"]
    evaluation, suite = parse_named(
        "unlearn_qa", ["--model", str(tmp_path / "model"), *sets, *renaming, "--model_revision", "123"]
    )
    assert evaluation.model_revision == "123" and suite.max_new_tokens is None
    assert list(suite.sets["forget"]) == [{"prompt": f"forget {k}?", "completion": "yes"} for k in range(2)]


def test_the_result_is_printed_and_kept(files, capsys):
    tiny_model().save_pretrained(files / "model")
    tiny_tokenizer().save_pretrained(files / "model")
    short = ["--verbmem_tokens", "2", "--knowmem_tokens", "2", "--limit", "2", "--attacks", "min_k", "--use_cpu"]
    command = ["evaluate", "--suite", "muse", *words(files, *short, "--output_dir", str(files / "out"))]
    assert main([*command, "--name", "oracle", "--json"]) == 0
    out = capsys.readouterr().out
    printed = json.loads(out[out.index("{") :])  # a library may greet first, once a process
    kept = load_result(files / "out" / "evaluation_oracle.json")
    assert printed["suite"] == kept.suite == "muse" and "min_k_privleak" not in kept.metrics
    assert main([*command, "--oracle", str(files / "out" / "evaluation_oracle.json")]) == 0
    assert "forget questions answered" in capsys.readouterr().out
    assert load_result(files / "out" / "evaluation_after.json")["min_k_privleak"].value == 0


@pytest.mark.parametrize(
    ("suite", "flags", "said"),
    [
        ("muse", ["--prt", "forget"], "did you mean 'part'"),
        ("muse", ["scal_2"], "'scal_2' before any"),
        ("harmful", ["--forget", "rows.jsonl"], "'judge'"),
        ("custom", ["--forget", "rows.jsonl", "--retain", "rows.jsonl"], "a path or a name"),
    ],
)
def test_what_is_refused_in_four_parts(tmp_path, suite, flags, said):
    with pytest.raises(ValueError, match=PARTS) as error:
        parse_named(suite, [*flags, "--model", str(tmp_path)])
    assert said in str(error.value)


def test_one_process_in_place_of_several_is_refused(files, monkeypatch):
    evaluation, suite = parse_named("muse", words(files))
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # as accelerate launch --cpu --num_processes 2 leaves them
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(ValueError, match="as many processes as accelerate launch was asked for"):
        evaluation(suite, "after")


def refused(capsys: Any, *arguments: str) -> str:
    assert main(["evaluate", *arguments]) == 2
    return capsys.readouterr().err


def test_what_the_command_refuses(capsys):
    assert "did you mean 'muse'" in refused(capsys, "--suite", "muze", "--model", "model")
    assert "Got: no model." in refused(capsys, "--suite", "muse")
    assert "where there is no folder" in refused(capsys, "--suite", "muse", "--model", "./nowhere")
