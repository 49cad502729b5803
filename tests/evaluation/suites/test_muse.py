"""MUSE's suite against loops over one text at a time, by hand, resumed after a kill, and what it refuses."""

from typing import Any

import numpy as np
import pytest

from fixtures.fitted_rows import model_of_rows
from fixtures.models import tiny_model, tiny_tokenizer
from fixtures.muse_rows import ROWS, mapping
from hf_unlearn.data.muse import MuseData, load_muse
from hf_unlearn.data.muse_tokens import continuation_rows, published_rows, question_rows
from hf_unlearn.evaluation import EvaluationResult, Evidence, evaluate, muse
from hf_unlearn.evaluation.evidence import AnsweredRows, ScoredRows
from hf_unlearn.evaluation.suites.muse import PUBLISHED_AUC, published_metrics
from hf_unlearn.metrics import METRIC_DESCRIPTIONS
from oracles import muse as by_hand

VERBATIM, ANSWER = 14, 10  # tokens, which are letters here
LENGTHS = {"verbmem_tokens": VERBATIM, "knowmem_tokens": ANSWER}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer) -> Any:
    """A model that has learnt some of the answers and some of how the texts go on."""
    data = load_muse(mapping())
    rows = continuation_rows(tokenizer, data.verbatim["prompt"][:], data.verbatim["gt"][:], 99)
    rows += question_rows(tokenizer, data.forget_qa, data.forget_examples)
    rows += question_rows(tokenizer, data.retain_qa, data.retain_examples)
    return model_of_rows(rows, steps=25)


@pytest.fixture(scope="module")
def retrained(tokenizer) -> EvaluationResult:
    """The suite's result of a model that has not seen the forget texts."""
    return evaluate(tiny_model(seed=1), tokenizer, muse(mapping(), published=True, **LENGTHS))


@pytest.fixture(scope="module")
def result(model, tokenizer, retrained) -> EvaluationResult:
    return evaluate(model, tokenizer, muse(mapping(), published=True, oracle=retrained, **LENGTHS), batch_size=4)


def texts(name: str) -> list[str]:
    return [row["text"] for row in ROWS[f"privleak/{name}"]]


def test_the_metrics_are_those_of_a_loop(model, tokenizer, retrained, result):
    asked = {
        name: (ROWS[f"knowmem/{name}_qa"], ROWS[f"knowmem/{name}_qa_icl"], ANSWER) for name in ("forget", "retain")
    }
    auc = 1 - by_hand.holdout_auc(
        lambda text: by_hand.min_k(model, tokenizer, text), texts("forget"), texts("holdout")
    )
    base = retrained["min_k_auc"].value
    expected = {
        "forget_verbmem": by_hand.verbatim(model, tokenizer, ROWS["verbmem/forget"], VERBATIM),
        "forget_knowmem": by_hand.knowledge(model, tokenizer, *asked["forget"]),
        "retain_knowmem": by_hand.knowledge(model, tokenizer, *asked["retain"]),
        "min_k_auc": auc,
        "min_k_privleak": 100 * (base - auc) / (1 - base),
    }
    assert {name: result[name].value for name in expected} == pytest.approx(expected, rel=1e-4)
    assert min(expected[name] for name in ("forget_verbmem", "forget_knowmem", "retain_knowmem")) > 0.2
    assert expected["forget_verbmem"] > retrained["forget_verbmem"].value and 0 < auc != base
    assert (result["forget_verbmem"].n, result["forget_knowmem"].n, result["retain_knowmem"].n) == (5, 4, 5)


def test_the_published_numbers_are_those_of_its_loop(model, tokenizer, result):
    rows, shown = ROWS["knowmem/forget_qa"], ROWS["knowmem/forget_qa_icl"]
    auc = by_hand.holdout_auc(lambda text: by_hand.min_k(model, tokenizer, text), texts("forget"), texts("holdout"))
    expected = {
        "forget_verbmem": by_hand.published_verbatim(model, tokenizer, ROWS["verbmem/forget"], VERBATIM),
        "forget_knowmem": 100 * by_hand.knowledge(model, tokenizer, rows, shown, ANSWER, space=" "),
        "privleak": 100 * (auc - PUBLISHED_AUC["news"]) / PUBLISHED_AUC["news"],
    }
    assert {name: result[f"published_{name}"].value for name in expected} == pytest.approx(expected, rel=1e-4)
    assert not [name for name in result.row_scores if name.startswith("published")]


def test_every_metric_is_described(result):
    undescribed = set(result.metrics) - METRIC_DESCRIPTIONS.packaged.keys()
    assert undescribed == set() and result.pair == ("forget_knowmem", "retain_knowmem")


def evidence_of(tokenizer: Any, data: MuseData, continued: str, answer: str) -> Evidence:
    """A model that goes on with a text behind every prompt, and gives one answer."""
    rows = published_rows(tokenizer, data.verbatim["prompt"][:], data.verbatim["gt"][:], VERBATIM)
    expected = [tokenizer.decode([t for t in row["labels"] if t > 4]) for row in rows]
    ids = {text: tokenizer(text, add_special_tokens=False)["input_ids"] for text in (continued, answer)}
    answered = {"published_verbmem": AnsweredRows([continued], expected, ids=[ids[continued]])}
    for name in ("forget", "retain"):
        answered[f"published_{name}_qa"] = AnsweredRows([answer], ["?"], ids=[ids[answer]])
    scored = {"forget": [-1.0, -1.0, -3.0], "holdout": [-2.0, -1.0, -1.0]}
    tokens = {
        name: ScoredRows([np.array([[logp] * 5, [0.0] * 5]) for logp in logps]) for name, logps in scored.items()
    }
    return Evidence(tokens, answered, {}, tokenizer=tokenizer)


def test_the_published_numbers_by_hand(tokenizer):
    """One row a set; 13 letters are left of the reference: "to mill 0, an"."""
    rows = {"verbmem__forget": ROWS["verbmem/forget"][:1]}
    rows |= {f"knowmem__{name}_qa": [{"question": "who?", "answer": "Zoë Smith"}] for name in ("forget", "retain")}
    data = load_muse(mapping(**rows))
    found = published_metrics(
        evidence_of(tokenizer, data, "to mill 0 , and on", "Zoë\n\nQuestion: Smith"), data, "news"
    )
    # to, mill, 0 of the reference's to, mill, 0, an and of the answer's five words: 2 * 3 / (4 + 5).
    assert found["published_forget_verbmem"].value == pytest.approx(100 * 2 * 3 / 9)
    # Of "zo", "smith" in a to z the answer has one: 2 * 1 / (2 + 1).
    assert found["published_forget_knowmem"].value == pytest.approx(100 * 2 / 3)
    # Holdout above forget in four of nine pairs, equal in four: AUC 6 / 9... by pairs below.
    pairs = [(own, other) for own in (-1.0, -1.0, -3.0) for other in (-2.0, -1.0, -1.0)]
    auc = sum((own < other) + (own == other) / 2 for own, other in pairs) / 9
    assert auc == pytest.approx(5 / 9)
    leak = 100 * (auc - 0.4772) / 0.4772
    assert found["published_privleak"].value == pytest.approx(leak)


def test_rows_of_another_part_are_scored_beside_and_short_answers_are_warned_of(model, tokenizer):
    result = evaluate(model, tokenizer, muse(mapping(), part="scal_2", limit=3, verbmem_tokens=9, knowmem_tokens=16))
    assert result.rows["request"]["count"] == 3 and result["request_nll"].n == 3
    assert result.settings["part"] == "scal_2" and "published_privleak" not in result.metrics
    assert not [warning for warning in result.warnings if "knowmem_tokens" in warning]
    short = evaluate(model, tokenizer, muse(mapping(), limit=2, verbmem_tokens=2, knowmem_tokens=4))
    assert len([warning for warning in short.warnings if "100% of the expected" in warning]) == 2


def test_a_killed_evaluation_goes_on(model, tokenizer, tmp_path, monkeypatch):
    """Killed when the answers of one length are found: the others alone are asked for again."""
    suite, generate, calls = muse(mapping(), **LENGTHS), model.generate, []

    def generating(**inputs: Any) -> Any:
        calls.append(inputs["input_ids"].shape[0])
        if len(calls) == limit:
            raise KeyboardInterrupt
        return generate(**inputs)

    whole, limit = evaluate(model, tokenizer, suite), 3
    monkeypatch.setattr(model, "generate", generating)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, tokenizer, suite, batch_size=4, partial=tmp_path / "partial")
    asked, limit = sum(calls[:-1]), -1
    assert asked == 5  # the continuations
    calls.clear()
    again = evaluate(model, tokenizer, suite, batch_size=4, partial=tmp_path / "partial")
    assert sum(calls) == 9 and again.values() == pytest.approx(whole.values(), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"corpus": "papers"}, "corpus"),
        ({"part": "scal_5"}, "did you mean"),
        ({"verbmem_tokens": 0}, "verbmem_tokens"),
        ({"attacks": ["min_q"]}, "min_k"),
        ({"oracle": EvaluationResult("tofu", {})}, "result of the muse suite"),
        ({"corpus": "books", "part": "sust_2"}, "of the news alone"),
        ({"source": "muse-bench/MUSE-Books"}, "corpus='books'"),
    ],
)
def test_what_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        muse(**{"source": mapping()} | arguments)
