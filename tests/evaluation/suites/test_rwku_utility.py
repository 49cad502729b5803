"""RWKU's utility sets in its suite, against loops over one prompt at a time, and the faults of its published code."""

import math
from typing import Any

import numpy as np
import pytest

from fixtures.fitted_rows import model_of_rows
from fixtures.models import tiny_model, tiny_tokenizer
from fixtures.rwku_rows import ADA, UTILITY, mapping
from fixtures.tokenizer import make_tokenizer
from hf_unlearn.data.rwku import load_rwku
from hf_unlearn.data.rwku_utility_tokens import utility_rows
from hf_unlearn.evaluation import EvaluationResult, Evidence, evaluate, rwku
from hf_unlearn.evaluation.evidence import AnsweredRows, ScoredRows
from hf_unlearn.evaluation.suites.rwku import HEADLINE
from hf_unlearn.evaluation.suites.rwku_utility import published_utility, utility_metrics, utility_warnings
from hf_unlearn.metrics import METRIC_DESCRIPTIONS
from oracles import rwku_utility as by_hand

GENERAL, REASON, TRUTHFULNESS, FACTUALITY = UTILITY.values()
OTHERS = ("forget_level1", "forget_level3", "neighbor_level1", "mia_forget", "mia_retain", "utility_fluency")
ALONE = mapping(**dict.fromkeys(OTHERS), **UTILITY)
FEW = {"answer_tokens": 11, "reason_tokens": 3}  # tokens, which are letters here


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer) -> Any:
    """A model that has learnt some of the answers."""
    sets = load_rwku(ALONE).sets
    rows = [
        row for name in ("utility_reason", "utility_factuality") for row in utility_rows(tokenizer, name, sets[name])
    ]
    return model_of_rows(rows, steps=24, positions=1024)


@pytest.fixture(scope="module")
def result(model, tokenizer) -> EvaluationResult:
    return evaluate(model, tokenizer, rwku(ALONE, published=True, **FEW), batch_size=8)


def test_the_metrics_are_those_of_a_loop(model, tokenizer, result):
    facts = by_hand.answers(model, tokenizer, [by_hand.TRIVIA.format(row["question"]) for row in FACTUALITY], 11)
    replies = by_hand.answers(model, tokenizer, [by_hand.reason_prompt(row) for row in REASON], 3)
    accepted = [row["answers"] for row in FACTUALITY]
    firsts = [text.strip().split("\n")[0] for text in facts]
    mc1, mc2 = by_hand.truthfulness(model, tokenizer, TRUTHFULNESS)
    expected = {
        "utility_general_accuracy": by_hand.general(model, tokenizer, GENERAL),
        "published_utility_general": by_hand.general(model, tokenizer, GENERAL, last_token=True),
        "utility_reason_exact_match": by_hand.average(
            [reply.strip() == row["answer"] for reply, row in zip(replies, REASON, strict=True)]
        ),
    }
    expected |= {f"{name}utility_truthfulness_mc1": mc1 for name in ("", "published_")}
    expected |= {f"{name}utility_truthfulness_mc2": mc2 for name in ("", "published_")}
    for name, said, words in (("", firsts, by_hand.trivia), ("published_", facts, by_hand.squad)):
        scores = [by_hand.f1(text, listed, words) for text, listed in zip(said, accepted, strict=True)]
        expected[f"{name}utility_factuality_f1"] = by_hand.average(scores)
        expected[f"{name}utility_factuality_exact_match"] = by_hand.average([score == 1 for score in scores])
    assert {name: result[name].value for name in expected} == pytest.approx(expected, rel=1e-4)
    assert all(0 < value < 1 for value in expected.values())
    assert expected["utility_factuality_f1"] != expected["published_utility_factuality_f1"]


def test_every_metric_is_described_and_has_an_interval(result):
    found = {name: own for name, own in result.metrics.items() if "utility_" in name}
    assert len(found) == 12 and {own.n for own in found.values()} == {3}
    assert all(own.low <= own.value <= own.high for own in found.values())
    assert found.keys() - METRIC_DESCRIPTIONS.packaged.keys() == set() and found.keys() <= set(HEADLINE)
    assert not [name for name in result.row_scores if "utility" in name]
    assert any("100% of the replies to utility_reason do not say" in warning for warning in result.warnings)


def test_one_row_serves_for_all_letters():
    tokenizer = make_tokenizer(tuple(("Ġ", letter) for letter in "ABCD"))
    model = tiny_model(vocabulary=len(tokenizer)).eval()
    model.config.max_position_embeddings = 1024
    given = ALONE | dict.fromkeys(UTILITY) | {"utility_general": ALONE["utility_general"]}
    result = evaluate(model, tokenizer, rwku(given, limit=2, **FEW))
    assert result["utility_general_accuracy"].value == by_hand.general(model, tokenizer, GENERAL[:2])
    assert result.rows["utility_general"]["count"] == 2
    assert [name for name in UTILITY if any(f"{name} is not" in said for said in result.warnings)] == list(UTILITY)[1:]


def test_the_faults_of_the_published_code():
    """Each answer below is right by one definition and wrong by the other."""
    reasons = {"3.5": "The answer is 3.5.", "-5": "The answer is 5.", "] >": "The answer is ] ).", "(A)": "It is so."}
    replies = [*reasons.values(), "the answer is valid."]
    rows = {name: [] for name in ("forget_level2", "neighbor_level2")}
    rows = {name: [{"query": "?", "answer": "hen", "subject": ADA}] for name in rows}
    rows["utility_reason"] = [{"cot": "Q", "question": "?", "answer": text} for text in [*reasons, "valid"]]
    rows["utility_truthfulness"] = TRUTHFULNESS[:1]
    rows["utility_factuality"] = [{"question": "?", "answers": ["the oat", "The The"]}] * 2
    rows["utility_general"] = GENERAL[:1]
    said = {"utility_reason": replies, "utility_factuality": ["Oat\nQ: And?", ""]}
    answered = {name: AnsweredRows(texts, texts) for name, texts in said.items()}
    letters = [ScoredRows([np.array([[math.nan], [1.0]])] * 4)]
    # "No", "They cluck", "All do": too long for a probability in floating point, the right ones e times as likely.
    truths = ScoredRows([np.array([[logp], [1.0]]) for logp in (-2000.0, -9000.0, -2001.0)])
    scored = {"utility_general": letters[0], "utility_truthfulness": truths}
    twice = [
        {f"{name}{key}": own for name in ("", "published_") for key, own in kind.items()}
        for kind in (scored, answered)
    ]
    evidence, data = Evidence(*twice, {}), load_rwku(rows)
    ours, theirs = utility_metrics(evidence, data), published_utility(evidence, data)
    assert ours["utility_reason_exact_match"].value == 2 / 5  # 3.5 and valid
    # 5 is a letter of "-5", brackets and "" are alike; "3" is one of "3.5". "It is so" and "valid" are no letter.
    assert theirs["published_utility_reason"].value == 3 / 5
    assert ours["utility_truthfulness_mc2"].value == pytest.approx(1 / (1 + math.exp(-1)))
    assert math.isnan(theirs["published_utility_truthfulness_mc2"].value)
    assert ours["utility_truthfulness_mc1"].value == theirs["published_utility_truthfulness_mc1"].value == 1
    assert math.isnan(ours["utility_general_accuracy"].value) and theirs["published_utility_general"].value == 1
    assert ours["utility_factuality_exact_match"].value == 1 / 2  # the first line of the first
    assert theirs["published_utility_factuality_exact_match"].value == 1 / 2  # "", which is like "The The"
    assert theirs["published_utility_factuality_f1"].value == (2 / 4 + 1) / 2
    assert "20% of the replies to utility_reason" in utility_warnings(evidence, data, 256)[0]
