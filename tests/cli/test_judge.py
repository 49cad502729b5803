"""`hf-unlearn judge`, and a language model as judge on the command line: agreement, a suite with it, refusals."""

import json
from types import SimpleNamespace

import pytest

from evaluation.judges.test_language_model import ANSWERS, OWN, REFERENCES, word_model
from fixtures.examples import assert_four_parts
from fixtures.models import tiny_model, tiny_tokenizer
from hf_unlearn.cli import main
from hf_unlearn.data.sources import load_rows
from hf_unlearn.evaluation import language_model_judge, load_result
from hf_unlearn.evaluation.judges.agreement import measure_agreement
from hf_unlearn.tasks.answer_judge import JUDGE_ARGUMENTS, judged_by_model


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """A model over words on disk, a prompt, and rows that a person labelled."""
    folder = tmp_path_factory.mktemp("judge")
    model, tokenizer = word_model()
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "prompt.txt").write_text(OWN, encoding="utf-8")
    labels = [1, 0, 1, 0, 1]
    rows = [
        {"answer": answer, "reference": reference, "label": label}
        for answer, reference, label in zip(ANSWERS, REFERENCES, labels, strict=True)
    ]
    (folder / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def asked(judge, *more):
    return ["--judge", str(judge / "model"), "--judge_prompt", str(judge / "prompt.txt"), *more]


def test_the_agreement_with_people_is_printed_kept_and_goes_into_results(judge, tmp_path, capsys):
    agreement = tmp_path / "agreement.json"
    words = ["judge", *asked(judge, "--labelled", str(judge / "labelled.jsonl"), "--output_file", str(agreement))]
    assert main(words) == 0
    printed = capsys.readouterr().out
    made = language_model_judge(judge / "model", prompt=judge / "prompt.txt")
    found = measure_agreement(made, load_rows(str(judge / "labelled.jsonl")))
    assert f"kappa     {found.kappa.value:.3f} [" in printed and "on 5 rows labelled by a person" in printed
    assert json.loads(agreement.read_text(encoding="utf-8")) == found.to_dict()

    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    sets = []
    for name in ("forget", "retain"):
        rows = [{"prompt": f"{name} {k}?", "completion": "w5 w6", "about": k // 2} for k in range(4)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        sets += [f"--{name}", str(tmp_path / f"{name}.jsonl")]
    command = [
        "evaluate",
        "--suite",
        "unlearn_qa",
        "--model",
        str(tmp_path / "model"),
        *sets,
        "--phrasing_of",
        "about",
    ]
    command += ["--max_new_tokens", "3", "--use_cpu", "--output_dir", str(tmp_path / "out")]
    assert main([*command, *asked(judge, "--judge_agreement", str(agreement))]) == 0
    result = load_result(tmp_path / "out" / "evaluation_after.json")
    assert result["leak_rate"].n == 4 and result["worst_leak_rate"].n == 2
    assert result["judge_errors"].value == 0 and result["judge_kappa"].value == found.kappa.value
    assert result.run["judge"]["prompt_sha256"] == made.prompt.sha256


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"judge_purpose": "fact"}, "--judge_purpose alone"),
        ({"judge_endpoint": "https://host/v1"}, "--judge_endpoint alone"),
        ({"judge": "x", "judge_prompt": "p.txt"}, "--judge_prompt alone"),
        ({"judge": "x", "judge_purpose": "fact", "judge_cache": "c.db"}, "--judge_cache alone"),
        ({"judge": "./nowhere", "judge_purpose": "fact"}, "nowhere"),
    ],
)
def test_what_is_refused_in_four_parts(given, said):
    values = SimpleNamespace(**(dict.fromkeys(JUDGE_ARGUMENTS) | {"judge_threshold": 0.5} | given))
    with pytest.raises(ValueError) as error:
        judged_by_model(values)
    assert said in str(error.value)
    assert_four_parts(str(error.value))


def test_without_purpose_and_endpoint_a_judge_is_a_classifier(judge):
    values = dict.fromkeys(JUDGE_ARGUMENTS) | {"judge_threshold": 0.5}
    assert judged_by_model(SimpleNamespace(**values)) is None
    assert judged_by_model(SimpleNamespace(**values | {"judge": "unitary/toxic-bert"})) is None
    asked_for = judged_by_model(
        SimpleNamespace(**values | {"judge": str(judge / "model"), "judge_purpose": "behaviour"})
    )
    assert asked_for is not None and asked_for.prompt.purpose == "behaviour"
