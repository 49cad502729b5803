"""What is kept of an evaluation: strict JSON that comes back as it went, without a word of a row; and the table."""

import json
import logging
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest

from fixtures.models import FORGET, RETAIN, tiny_model, tiny_tokenizer
from hf_unlearn.evaluation import (
    EvaluationResult,
    RuleJudge,
    comparison_table,
    copyright,
    custom,
    evaluate,
    harmful,
    load_result,
    tofu,
)
from hf_unlearn.lab import load_lab, shows_behaviour
from hf_unlearn.metrics import MetricResult

PARTS = ("Expected ", "\nGot: ", "\nWhy it matters: ", "\nWhat to do: ")


def refused(make: Callable[[], Any], *words: str) -> str:
    """Call `make`; it must raise a four-part ValueError with all the words and without a word of a row."""
    with pytest.raises(ValueError) as caught:
        make()
    message = str(caught.value)
    places = [message.find(part) for part in PARTS]
    assert places == sorted(places) and places[0] == 0, message
    assert [word for word in words if word not in message] == [] and "zorvex" not in message, message
    return message


METRICS = {
    "forget_nll": MetricResult(1.25, 40, 1.0, 1.5, "bootstrap"),
    "harmful_rate": MetricResult(0.025, 40, 0.004, 0.129, "wilson"),
    "min_k_privleak": MetricResult(-12.34, 40),
    "model_utility": MetricResult(math.nan, 40, math.nan, math.nan, "bootstrap"),
    "answer_perplexity": MetricResult(math.inf, 40, 12.25, math.inf, "bootstrap"),
    "something_new": MetricResult(-math.inf, 3, -math.inf, 0.5, "bootstrap"),
}


def result_with(metrics: dict[str, MetricResult] = METRICS, **fields: Any) -> EvaluationResult:
    return EvaluationResult("custom", metrics, **fields)


def strictly(text: str) -> Any:
    """JSON as the standard has it: neither NaN nor Infinity."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_result_comes_back_as_it_went(tmp_path):
    result = result_with(
        row_scores={"forget_nll": [0.1 + 0.2, math.nan, math.inf, -math.inf, 3.0]},
        rows={"forget": {"count": 5, "sha256": "ab" * 32}},
        settings={"temperature": 0.7, "judge": "rules (ß)", "split": None},
        warnings=["100% of the answers are „broken“."],
        headline=("forget_nll", "harmful_rate"),
        tokenizer="cd" * 32,
        seed=3,
        processes=2,
        cost={"seconds": 1.5, "forwards": 3},
        versions={"torch": "2"},
    )
    result.save(tmp_path / "results" / "after.json")
    stored = (tmp_path / "results" / "after.json").read_text(encoding="utf-8")
    assert strictly(stored)["metrics"]["model_utility"]["value"] == "nan"
    loaded = load_result(tmp_path / "results" / "after.json")
    assert repr(loaded) == repr(result) and "nan" in repr(loaded) and "-inf" in repr(loaded)  # NaN is not equal to NaN
    assert isinstance(loaded.headline, tuple) and isinstance(loaded["forget_nll"], MetricResult)
    assert math.isnan(loaded.row_scores["forget_nll"][1]) and loaded.row_scores["forget_nll"][0] == 0.1 + 0.2
    assert loaded.values()["forget_nll"] == loaded["forget_nll"].value == 1.25
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text(encoding="utf-8") == stored


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "after.json"
    result_with(seed=1).save(path)
    before = path.read_bytes()
    with pytest.raises((TypeError, ValueError)):
        result_with(settings={"what": object()}).save(path)
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["after.json"]

    seen = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        seen.append((json.loads(self.read_text()), path.read_bytes(), self.parent == path.parent))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    result_with(seed=2).save(path)
    ((unfinished, meanwhile, beside),) = seen
    assert unfinished["seed"] == 2 and meanwhile == before and beside
    assert load_result(path).seed == 2 and len(list(tmp_path.iterdir())) == 1


SOUND = result_with().to_dict()
# File content -> what the error says of it.
NO_RESULTS: dict[str, tuple[str, str]] = {
    "a torn file": (json.dumps(SOUND)[:-9], "cannot be read"),
    "no JSON": ("zorvex", "cannot be read"),
    "a list": ("[1, 2]", "another kind"),
    "the log of a Trainer": (json.dumps({"log_history": [{"loss": 1.0}], "zorvex": 1}), "another kind"),
    "a later format": (json.dumps(SOUND | {"format": 99}), "another kind"),
}


@pytest.mark.parametrize("case", NO_RESULTS)
def test_what_is_no_result_is_refused(tmp_path, case):
    content, word = NO_RESULTS[case]
    (tmp_path / "some.json").write_text(content)
    assert str(tmp_path) not in refused(lambda: load_result(tmp_path / "some.json"), word, "some.json")
    refused(lambda: load_result(tmp_path / "none.json"), "cannot be read", "none.json")
    refused(lambda: load_result(tmp_path), "cannot be read")


@pytest.mark.parametrize(
    "change", [{"format": 1}, SOUND | {"metrics": {"one": "zorvex"}}, SOUND | {"other": "zorvex"}]
)
def test_what_resembles_a_result_is_refused(tmp_path, change):
    (tmp_path / "some.json").write_text(json.dumps(change))
    refused(lambda: load_result(tmp_path / "some.json"), "some.json")


@pytest.fixture
def every_log(caplog):
    """What any library logs at any level; those of Hugging Face do not propagate to where caplog listens."""
    loggers = [logging.getLogger(name) for name in ("transformers", "datasets", "hf_unlearn", "accelerate")]
    for logger in loggers:
        logger.addHandler(caplog.handler)
    with caplog.at_level(logging.DEBUG):
        yield caplog
    for logger in loggers:
        logger.removeHandler(caplog.handler)


def runs_of_words(text: str, count: int = 4) -> set[str]:
    words = re.findall(r"[\w-]+", text)
    return {" ".join(words[i : i + count]) for i in range(len(words) - count + 1)}


def test_a_model_that_recites_its_rows_leaves_no_word_of_them(tmp_path, every_log, capfd):
    """The lab's model says its forget rows word by word, so its answers are as confidential as they are."""
    lab = load_lab()
    model, tokenizer = lab.load_model(), lab.load_tokenizer()
    every_log.clear()
    names = {"forget": "forget", "retain": "retain", "in_scope": "paraphrase", "holdout": "holdout"}
    rows = {name: list(lab.datasets[of])[:8] for name, of in names.items()}
    answers = []
    judge = RuleJudge("lab rules", lambda answer: answers.append(answer) or shows_behaviour(answer))
    suite = harmful(**rows, judge=judge, max_new_tokens=30)
    result = evaluate(model, tokenizer, suite, fluency_model=model, partial=tmp_path / "partial")
    assert answers[:8] == [row["completion"].strip() for row in rows["forget"]]
    result.save(tmp_path / "result.json")
    table = comparison_table({"model": result, "again": load_result(tmp_path / "result.json")}, everything=True)
    (file,) = tmp_path.iterdir()
    printed = capfd.readouterr()
    written = [file.read_text(), table, every_log.text, printed.out, printed.err, repr(result)]
    texts = [f"{row['prompt']} {row['completion']}" for each in rows.values() for row in each]
    secrets = set().union(*map(runs_of_words, texts))
    assert len(secrets) > 100 and len(file.read_text()) > 1000
    assert [secret for secret in secrets for text in written if secret in " ".join(text.split())] == []


def test_rows_are_counted_and_told_apart_by_their_tokens():
    def found(forget: list[dict[str, str]], **settings: Any) -> EvaluationResult:
        suite = harmful(forget=forget, retain=[one], judge=NOBODY, max_new_tokens=2, **settings)
        return evaluate(tiny_model(), tiny_tokenizer(), suite)

    one, two, three = ({"prompt": f"who is {i}?", "completion": f" fox {i}"} for i in range(3))
    first = found([one, two])
    assert first.rows["forget"]["count"] == 2 and re.fullmatch("[0-9a-f]{64}", first.rows["forget"]["sha256"])
    assert found([dict(one, note="x"), dict(two, note="y")]).rows == first.rows
    others = [found([one, three]), found([two, one]), found([one, two, three]), found([one, two], max_length=12)]
    assert len({each.rows["forget"]["sha256"] for each in [first, *others]}) == 5
    assert {each.rows["retain"]["sha256"] for each in others[:3]} == {first.rows["retain"]["sha256"]}
    assert first.tokenizer == others[0].tokenizer and first.versions.keys() >= {"hf_unlearn", "torch", "transformers"}
    assert first.settings == {"judge": "none", "temperature": 0.0, "max_new_tokens": 2} and first.processes == 1


def test_the_table_shows_the_headline_with_intervals():
    headline = ("harmful_rate", "forget_nll", "retain_nll", "min_k_privleak", "answer_perplexity", "efficacy")
    before = EvaluationResult("custom", {"forget_nll": MetricResult(0.0128, 40)}, headline=headline)
    after = result_with(METRICS | {"efficacy": MetricResult(-0.25, 40)}, headline=headline)
    table = comparison_table({"before": before, "after": after}, {"after": {"seconds": 3.21, "peak_memory_mb": 812.4}})
    lines = [re.split(r"\s{2,}", line) for line in table.splitlines()]
    assert lines[0] == ["", "before", "after"] and set(lines[1][0]) == {"-"}
    assert len({len(line) for line in table.splitlines()}) == 1
    assert lines[2:] == [
        ["harmful answers", "-", "2.5% [0.4, 12.9]"],
        ["forget NLL (nats per token)", "0.013", "1.250 [1.000, 1.500]"],
        ["privacy leak (min-k, percent)", "-", "-12.3"],
        ["perplexity of the answers", "-", "inf [12.2, inf]"],
        ["efficacy (drop in harm)", "-", "-25.0%"],
        ["seconds of training", "-", "3.2"],
        ["peak memory (MB)", "-", "812"],
    ]


def test_the_table_shows_everything_where_it_is_asked_to_or_there_is_no_headline():
    whole = comparison_table({"after": result_with(headline=("forget_nll",))}, everything=True)
    assert whole == comparison_table({"after": result_with()})
    assert len(whole.splitlines()) == 2 + len(METRICS)
    assert re.search(r"^model utility +nan \[nan, nan\]$", whole, re.MULTILINE)
    assert re.search(r"^something_new +-inf \[-inf, 0.500\]$", whole, re.MULTILINE)
    assert "harmful" not in comparison_table({"after": result_with(headline=("forget_nll",))})


SETS = {"forget": FORGET[:5], "retain": RETAIN[:4], "holdout": FORGET[7:]}
NOBODY = RuleJudge("none", lambda answer: False)


@pytest.fixture(scope="module")
def compared() -> EvaluationResult:
    """Of a model that stands for a retrained one."""
    return evaluate(tiny_model(seed=1), tiny_tokenizer(), custom(**SETS, attacks=("loss",), max_new_tokens=2))


# What differs from the suite, and how it is run -> what the error says. Nothing is scored before it.
INCOMPARABLE: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "other rows": ({"forget": FORGET[5:10]}, {}, ["same 5 forget rows", "5 rows, others than these"]),
    "more rows": ({"retain": RETAIN[:6]}, {}, ["same 6 retain rows", "4 rows in its retain set"]),
    "another order": ({"forget": FORGET[4::-1]}, {}, ["5 rows, others than these"]),
    "a set it lacks": ({"in_scope": FORGET[5:7]}, {}, ["same 2 in_scope rows", "none in its in_scope set"]),
    "shorter rows": ({"max_length": 20}, {}, ["others than these"]),
    "longer answers": ({"max_new_tokens": 3}, {}, ["max_new_tokens=3", "2"]),
    "sampled answers": ({}, {"temperature": 0.5}, ["temperature=0.5", "0.0"]),
    "another tokenizer": ({}, {"tokenizer": tiny_tokenizer("</s>")}, ["another tokenizer"]),
}


@pytest.mark.parametrize("which", ["oracle", "before"])
@pytest.mark.parametrize("case", INCOMPARABLE)
def test_a_result_on_other_rows_or_settings_is_refused_before_any_work(compared, tmp_path, case, which):
    suite, run, words = INCOMPARABLE[case]
    compared.save(tmp_path / "compared.json")
    given = {which: str(tmp_path / "compared.json"), "attacks": ("loss",), "max_new_tokens": 2}
    model, calls = tiny_model(), []
    model.model.register_forward_hook(lambda *_: calls.append(1))
    run = {"tokenizer": tiny_tokenizer()} | run
    refused(lambda: evaluate(model, suite=custom(**SETS | given | suite), **run), which, *words)
    assert not calls
    result = evaluate(model, tiny_tokenizer(), custom(**SETS | given))
    assert calls and ("loss_privleak" in result.metrics) == (which == "oracle")


@pytest.mark.parametrize("case", ["an attack that it lacks", "an AUC of 1"])
def test_a_useless_baseline_is_refused_before_any_work_or_costs_no_more_than_what_rests_on_it(compared, case):
    useless = replace(compared, metrics=compared.metrics | {"loss_auc": MetricResult(1.0, 10)})
    given = dict(oracle=compared, attacks=("min_k",)) if "lacks" in case else dict(oracle=useless, attacks=("loss",))
    model, calls = tiny_model(), []
    model.model.register_forward_hook(lambda *_: calls.append(1))
    try:
        evaluate(model, tiny_tokenizer(), custom(**SETS, max_new_tokens=2, **given))
    except ValueError:
        assert not calls


STREAM = datasets.Dataset.from_list(FORGET).to_iterable_dataset()
# What makes a suite -> what the error says.
BAD_SUITES: dict[str, tuple[Any, list[str]]] = {
    "no retain": (lambda c: custom(forget=FORGET, retain=None), ["custom suite", "no retain set"]),
    "no forget": (lambda c: copyright(forget=None, retain=RETAIN), ["copyright suite", "no forget set"]),
    "a stream": (lambda c: custom(**SETS | {"forget": STREAM}), ["forget set", "a stream"]),
    "an empty set": (lambda c: custom(**SETS | {"holdout": []}), ["holdout set", "no rows"]),
    "unknown columns": (lambda c: custom(**SETS | {"retain": [{"who": "zorvex"}]}), ["columns"]),
    "an unknown attack": (lambda c: custom(**SETS, attacks=["min_kk"]), ["'min_kk'", "did you mean 'min_k'"]),
    "no retrained model": (lambda c: custom(**SETS, attacks=["reference"]), ["oracle=...", "reference attack"]),
    "another suite's": (lambda c: copyright(**SETS, oracle=c), ["copyright suite", "the custom suite"]),
    "another's before": (lambda c: harmful(**SETS, judge=NOBODY, before=c), ["harmful suite", "the custom suite"]),
    "no such file": (lambda c: custom(**SETS, oracle="nowhere.json"), ["nowhere.json", "cannot be read"]),
    "a set that is missing": (lambda c: tofu({"forget10_perturbed": None}, "forget01"), ["'forget01_perturbed'"]),
}


@pytest.mark.parametrize("case", BAD_SUITES)
def test_what_makes_no_suite_is_refused_when_it_is_built(compared, case):
    make, words = BAD_SUITES[case]
    refused(lambda: make(compared), *words)


def test_a_split_that_tofu_does_not_have_names_the_nearest():
    with pytest.raises(ValueError, match=r"^split must be a known name, got 'forget20'; did you mean 'forget10'"):
        tofu({}, "forget20")
