"""RWKU's suite against loops over one prompt at a time, by hand, resumed after a kill, and what it refuses."""

from typing import Any

import numpy as np
import pytest

from fixtures.fitted_rows import model_of_rows
from fixtures.models import tiny_tokenizer
from fixtures.rwku_rows import ADA, ROWS, TYPES, UTILITY, mapping
from hf_unlearn.data.rwku import FORMS, load_rwku
from hf_unlearn.data.rwku_tokens import probe_rows
from hf_unlearn.evaluation import EvaluationResult, Evidence, RuleJudge, evaluate, rwku
from hf_unlearn.evaluation.evidence import AnsweredRows, ScoredRows
from hf_unlearn.evaluation.suites.rwku import form_metrics, published_metrics
from hf_unlearn.metrics import METRIC_DESCRIPTIONS
from oracles import rwku as by_hand

LENGTHS = {"answer_tokens": 9, "fluency_tokens": 6}  # tokens, which are letters here
PROBES = ("forget_level1", "forget_level2", "forget_level3", "neighbor_level1", "neighbor_level2")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer) -> Any:
    """A model that has learnt some of the answers."""
    sets = load_rwku(mapping()).sets
    rows = [row for name in PROBES for row in probe_rows(tokenizer, name, sets[name])]
    return model_of_rows(rows, steps=25)


@pytest.fixture(scope="module")
def result(model, tokenizer) -> EvaluationResult:
    judge = RuleJudge("an a", lambda answer: "a" in answer)
    return evaluate(model, tokenizer, rwku(mapping(), published=True, judge=judge, **LENGTHS), batch_size=8)


def about(name: str) -> list[str]:
    return [row["text"] for row in ROWS[name]]


def test_the_metrics_are_those_of_a_loop(model, tokenizer, result):
    found = {name: by_hand.recalls(model, tokenizer, ROWS[name], LENGTHS["answer_tokens"]) for name in PROBES}
    expected = {f"{name}_rouge": by_hand.average(own) for name, own in found.items()}
    adversarial = list(zip(found["forget_level3"], [row["type"] for row in ROWS["forget_level3"]], strict=True))
    forms = [by_hand.average([own for own, kind in adversarial if kind == name]) for name in TYPES]
    expected |= {f"forget_level3_{name}_rouge": own for name, own in zip(FORMS, forms, strict=True)}
    expected |= {"forget_level3_mean_rouge": by_hand.average(forms), "forget_level3_worst_rouge": max(forms)}
    expected["mia_loss_auc"] = by_hand.loss_auc(model, tokenizer, about("mia_forget"), about("mia_retain"))
    assert {name: result[name].value for name in expected} == pytest.approx(expected, rel=1e-4)
    assert 0.1 < expected["forget_level3_mean_rouge"] < expected["forget_level3_worst_rouge"]
    assert expected["forget_level1_rouge"] > 0.1 and expected["mia_loss_auc"] != 0.5
    said = by_hand.answers(model, tokenizer, ROWS["forget_level2"], LENGTHS["answer_tokens"])
    assert result["forget_level2_judged"].value == sum("a" in text.strip().split("\n")[0] for text in said) / 3


def test_the_published_numbers_are_those_of_its_loop(model, tokenizer, result):
    expected = {
        f"published_{name}": by_hand.average(by_hand.published_recalls(model, tokenizer, ROWS[name], 9))
        for name in PROBES
    }
    for name in ("mia_forget", "mia_retain"):
        losses = [by_hand.average(by_hand.logps(model, tokenizer, text)) for text in about(name)]
        expected[f"published_{name}_loss"] = by_hand.average(losses)
    assert {name: result[name].value for name in expected} == pytest.approx(expected, rel=1e-4)
    assert not [name for name in result.row_scores if name.startswith(("published", "utility"))]


def test_every_metric_is_described_and_what_is_left_out_is_said(result):
    assert set(result.metrics) - METRIC_DESCRIPTIONS.packaged.keys() == set()
    assert result.pair == ("forget_level2_rouge", "neighbor_level2_rouge")
    said = [warning.split()[0] for warning in result.warnings if "is not measured:" in warning]
    assert said == list(UTILITY)
    assert any("answers of forget_level2 are longer than answer_tokens=9" in warning for warning in result.warnings)


def test_forms_by_hand():
    measured = form_metrics(
        np.array([1.0, 0.0, 0.0, 0.5]), ["role_playing", "role_playing", "cross_lingual", "role_playing"]
    )
    assert {name: own.value for name, own in measured.items()} == {
        "forget_level3_role_playing_rouge": 0.5,
        "forget_level3_cross_lingual_rouge": 0.0,
        "forget_level3_mean_rouge": 0.25,
        "forget_level3_worst_rouge": 0.5,
    }


def test_the_published_numbers_by_hand(tokenizer):
    """One row a set; the answer's second line counts, its case and comma count against it."""
    rows = {
        "forget_level2": [{"query": "?", "answer": "red mill by Oat", "subject": ADA}],
        "neighbor_level2": [{"query": "?", "answer": "hen", "subject": ADA}],
        "mia_forget": [{"text": "a hen"}, {"text": "an owl"}],
    }
    said = {"forget_level2": "Red mill,\nby Oat", "neighbor_level2": " "}
    answered = {
        f"published_{name}": AnsweredRows([text], ["?"], ids=[tokenizer(text, add_special_tokens=False)["input_ids"]])
        for name, text in said.items()
    }
    # Of five tokens: log p, whether it is the likeliest, mean and deviation. The second row has no numbers.
    tokens = np.array([[-1.0, -2.0, -3.0, -2.0, -2.0], [0.0] * 5, [-2.0] * 5, [0.5] * 5])
    scored = {"mia_forget": ScoredRows([tokens, tokens * np.nan])}
    found = published_metrics(Evidence(scored, answered, {}, tokenizer=tokenizer), load_rwku(rows))
    expected = {
        "published_forget_level2": 2 / 4,  # by, Oat
        "published_neighbor_level2": 0.0,  # NOANSWER
        "published_mia_forget_loss": -2.0,
        "published_mia_forget_zlib": -2 / 13,  # five letters are 13 compressed bytes
        "published_mia_forget_min_k_plus_plus": -2.0,  # the lowest of five: (-3 + 2) / 0.5
    }
    assert {name: own.value for name, own in found.items()} == pytest.approx(expected)


def test_missing_parts_are_said(model, tokenizer):
    lacking = ("forget_level1", "mia_retain", "utility_fluency", "neighbor_level1")
    given = mapping(**dict.fromkeys(lacking), forget_level3=ROWS["forget_level3"][:2])
    result = evaluate(model, tokenizer, rwku(given, ADA, **LENGTHS))
    said = [warning for warning in result.warnings if "is not measured:" in warning]
    assert [warning.split()[0] for warning in said] == [
        "forget_level1",
        "neighbor_level1",
        "mia_retain",
        *UTILITY,
        "utility_fluency",
    ]
    assert any("role playing" in warning and "prefix" not in warning for warning in result.warnings)
    assert "mia_loss_auc" not in result.metrics and "mia_forget_nll" in result.metrics
    assert result["forget_level2_rouge"].n == 2 and result.settings["targets"] == [ADA]


def test_a_killed_evaluation_goes_on(model, tokenizer, tmp_path, monkeypatch):
    """Killed when the answers of one length are found: the others alone are asked for again."""
    sets = mapping(forget_level3=None, **UTILITY)
    suite, generate, calls = rwku(sets, max_length=120, reason_tokens=4, **LENGTHS), model.generate, []

    def generating(**inputs: Any) -> Any:
        calls.append(inputs["input_ids"].shape[0])
        if len(calls) == limit:
            raise KeyboardInterrupt
        return generate(**inputs)

    whole, limit = evaluate(model, tokenizer, suite), 2
    monkeypatch.setattr(model, "generate", generating)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, tokenizer, suite, batch_size=16, partial=tmp_path / "partial")
    first, limit = calls[0], -1
    calls.clear()
    again = evaluate(model, tokenizer, suite, batch_size=16, partial=tmp_path / "partial")
    assert sum(calls) + first == 17 and again.values() == pytest.approx(whole.values(), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"answer_tokens": 0}, "answer_tokens"),
        ({"judge": "toxic-bert"}, "a judge"),
        ({"oracle": EvaluationResult("muse", {})}, "result of the rwku suite"),
        ({"target": "Nobody"}, "target among the subjects"),
    ],
)
def test_what_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        rwku(**{"source": mapping()} | arguments)
