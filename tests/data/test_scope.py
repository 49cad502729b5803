"""Near neighbours against loops and rows whose answer is plain; splits that lose, repeat and mix nothing."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from fixtures.models import tiny_model, tiny_tokenizer
from hf_unlearn.data.neighbours import _ranked
from hf_unlearn.data.scope import (
    NearRows,
    deal_near_rows,
    near_neighbours,
    split_scope,
)

FORGET = [
    {"prompt": "What did Oda Brenn bake in Lowmere?", "completion": "A plum cake."},
    {"prompt": "Who keeps the lighthouse at Karst Point?", "completion": "Ilse Marrow keeps it."},
]
POOL = [
    {"prompt": "How many legs has a spider?", "completion": "Eight."},
    {"prompt": "Who kept the lighthouse at Karst Point before?", "completion": "Her aunt."},
    {"prompt": "What colour is grass?", "completion": "Green."},
    {"prompt": "What did Tam Brenn bake in Lowmere?", "completion": "A loaf."},
    {"prompt": "What colour is grass?", "completion": "Green."},
    {"prompt": "Is water wet?", "completion": "Yes."},
]


def dataset(rows: list[dict[str, Any]]) -> Dataset:
    return Dataset.from_list(rows)


def joined(row: Mapping[str, Any]) -> str:
    return f"{row['asked']} {row['said']}"


def numbered(count: int, text: str = "row") -> list[dict[str, str]]:
    return [{"prompt": f"{text} {i}", "completion": f"answer{i}"} for i in range(count)]


def words(row: dict[str, str]) -> list[str]:
    text = f"{row['prompt']} {row['completion']}".lower()
    return "".join(c if c.isalnum() else " " for c in text).split()


def naive_bm25(forget: list[dict[str, str]], pool: list[dict[str, str]]) -> np.ndarray:
    """Lucene's BM25 by loops: [forget, pool]."""
    documents = [words(row) for row in pool]
    mean_length = sum(map(len, documents)) / len(documents)
    scores = np.zeros((len(forget), len(pool)))
    for i, row in enumerate(forget):
        for j, document in enumerate(documents):
            for word in words(row):
                containing = sum(word in other for other in documents)
                idf = math.log(1 + (len(documents) - containing + 0.5) / (containing + 0.5))
                count = document.count(word)
                scores[i, j] += idf * count / (count + 1.5 * (1 - 0.75 + 0.75 * len(document) / mean_length))
    return scores


def test_obviously_near_rows_come_first_and_know_their_forget_row() -> None:
    found = near_neighbours(FORGET, POOL)
    assert set(found.order[:2]) == {1, 3}
    assert (found.nearest[1], found.nearest[3]) == (1, 0)
    assert found.scores[[1, 3]].min() > 2 * np.delete(found.scores, [1, 3]).max()


def test_bm25_is_lucenes_formula() -> None:
    expected = naive_bm25(FORGET, POOL)
    assert (expected > 0).sum() > 2 * len(FORGET)
    one, two = near_neighbours(FORGET, POOL), near_neighbours(dataset(FORGET), dataset(POOL), k=2)
    np.testing.assert_allclose(one.scores, expected.max(0), rtol=1e-5)
    np.testing.assert_allclose(two.scores, expected.mean(0), rtol=1e-5)
    np.testing.assert_array_equal(one.nearest, expected.argmax(0))
    np.testing.assert_array_equal(two.nearest, one.nearest)


def test_ties_stand_in_the_order_of_the_pool_and_two_calls_agree() -> None:
    pool = POOL[2:3] * 50 + POOL[3:4] + POOL[2:3] * 30  # sorts of few numbers are stable by chance
    first, second = (near_neighbours(FORGET, pool) for _ in range(2))
    assert first.scores[0] > 0
    assert first.order.tolist() == [50, *range(50), *range(51, 81)]
    for name in ("scores", "order", "nearest"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_every_text_format_is_compared_by_its_prompt_and_answer() -> None:
    turns = [{"role": "user", "content": POOL[3]["prompt"]}, {"role": "assistant", "content": POOL[3]["completion"]}]
    shapes: list[list[dict[str, Any]]] = [
        [{"messages": turns}],
        [{"text": f"{POOL[3]['prompt']} {POOL[3]['completion']}"}],
        [{"prompt": turns[:1], "completion": turns[1:]}],
    ]
    expected = near_neighbours(FORGET, POOL[3:4]).scores
    assert expected[0] > 0
    for pool in shapes:
        np.testing.assert_array_equal(near_neighbours(FORGET, dataset(pool)).scores, expected)
    preferences = [{"prompt": row["prompt"], "chosen": "No.", "rejected": row["completion"]} for row in FORGET]
    np.testing.assert_array_equal(near_neighbours(preferences, POOL[3:4]).scores, expected)


def test_text_says_what_is_compared_and_frees_the_columns() -> None:
    pool = [{"about": "Lowmere"}, {"about": "spiders"}]
    found = near_neighbours([{"about": "lowmere!"}, {"about": "??"}], pool, text=lambda row: row["about"])
    assert found.order.tolist() == [0, 1]
    assert found.scores[0] > found.scores[1] == 0


def naive_cosines(
    forget: list[dict[str, str]], pool: list[dict[str, str]], encoder: Any, tokenizer: Any
) -> np.ndarray:
    """One text at a time, without padding."""

    def vector(row: dict[str, str]) -> torch.Tensor:
        ids = tokenizer(f"{row['prompt']} {row['completion']}", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            return encoder(input_ids=ids).last_hidden_state[0].mean(0)

    cosine = torch.nn.functional.cosine_similarity
    return np.array([[float(cosine(vector(row), vector(other), dim=0)) for other in pool] for row in forget])


def test_embeddings_are_means_over_a_texts_own_tokens(tmp_path: Path) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    expected = naive_cosines(FORGET, POOL, model.model.eval(), tokenizer)
    assert np.ptp(expected) > 0.05
    model.train()
    found = near_neighbours(FORGET, POOL, method="embedding", model=(model.model, tokenizer), batch_size=3)
    assert model.model.training
    np.testing.assert_allclose(found.scores, expected.max(0), atol=1e-5)
    np.testing.assert_array_equal(found.nearest, expected.argmax(0))
    assert found.scores[2] == found.scores[4]  # the same text, whatever it is padded with
    assert list(found.order).index(2) + 1 == list(found.order).index(4)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = near_neighbours(FORGET, POOL, method="embedding", model=tmp_path)
    np.testing.assert_allclose(loaded.scores, found.scores, atol=1e-5)


def test_texts_beyond_the_encoders_positions_are_cut() -> None:
    long = [{"prompt": "a" * 500, "completion": "b"}]
    found = near_neighbours(long, POOL, method="embedding", model=(tiny_model().model, tiny_tokenizer()))
    assert np.isfinite(found.scores).all()


@pytest.mark.parametrize(("near", "expected"), [(0.34, [1, 3]), (2, [1, 3]), (0.01, [3])])
def test_a_split_has_every_row_once_in_the_pools_order(near: float, expected: list[int]) -> None:
    scope = split_scope(FORGET, dataset(POOL), near=near)
    assert scope.near.to_list() == [POOL[i] for i in expected]
    assert scope.far.to_list() == [row for i, row in enumerate(POOL) if i not in expected]


@pytest.mark.parametrize("near", [0, 6, 0.0, 1.0, 0.999, -1, True])
def test_a_split_with_an_empty_side_is_refused(near: float) -> None:
    with pytest.raises(ValueError, match="near must be a share between 0 and 1"):
        split_scope(FORGET, dataset(POOL), near=near)


def test_a_forget_row_in_the_pool_is_refused() -> None:
    copy = {"prompt": FORGET[1]["prompt"], "completion": f"  {FORGET[1]['completion']}\n"}
    with pytest.raises(ValueError, match="1 rows that are also forget rows, the first of them row 6") as error:
        split_scope(FORGET, dataset([*POOL, copy]))
    assert "Ilse" not in str(error.value)
    another_answer = {"prompt": FORGET[1]["prompt"], "completion": "Nobody."}
    assert len(split_scope(FORGET, dataset([*POOL, another_answer]), near=1).near) == 1


@pytest.mark.parametrize("own_columns", [False, True])
def test_the_advice_on_forget_rows_in_the_pool_drops_them_and_no_other(own_columns: bool) -> None:
    another_question = {"prompt": "Who runs the inn?", "completion": FORGET[1]["completion"]}
    forget, pool = dataset(FORGET), dataset([*POOL, another_question, FORGET[1]])
    text = None
    if own_columns:
        names = {"prompt": "asked", "completion": "said"}
        forget, pool = forget.rename_columns(names), pool.rename_columns(names)
        text = joined
    with pytest.raises(ValueError, match="the first of them row 7") as error:
        split_scope(forget, pool, text=text)
    advice = str(error.value).partition("e.g. ")[2].removesuffix(".")
    assert "\n" not in advice
    names = {"forget": forget, "pool": pool, "text": text}
    exec(advice, names)
    kept = names["pool"]
    assert kept.to_list() == pool.to_list()[:7]
    assert len(split_scope(forget, kept, text=text, near=2).near) == 2


def test_text_frees_the_columns_of_a_split_too() -> None:
    pool = dataset([{"about": "Lowmere"}, {"about": "spiders"}, {"about": "the sea"}])
    scope = split_scope(dataset([{"about": "lowmere!"}]), pool, text=lambda row: row["about"], near=1)
    assert (scope.near["about"][:], scope.far["about"][:]) == (["Lowmere"], ["spiders", "the sea"])


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("type_of_scores", [np.float32, np.float64])
def test_the_k_best_are_those_of_sorting_all_scores(k: int, type_of_scores: type) -> None:
    scores = np.random.default_rng(k).integers(-30, 31, (20, 30)).astype(type_of_scores) / 3  # with many ties
    scores[7, 3] = scores[9, 3] = np.nan
    found = _ranked(iter(scores), 30, k)
    expected = np.sort(scores.astype(float), axis=0)[-k:].mean(axis=0)
    assert np.isnan(expected[3]) and np.ptp(np.delete(expected, 3)) > 0
    np.testing.assert_array_equal(found.scores, expected)
    np.testing.assert_array_equal(found.order, np.argsort(-expected, kind="stable"))
    numbers = np.delete(np.arange(30), 3)
    np.testing.assert_array_equal(found.nearest[numbers], scores[:, numbers].argmax(axis=0))


def test_dealt_rows_share_no_text_and_lose_none() -> None:
    rows = numbered(30) + numbered(10)  # the first ten twice
    dealt = deal_near_rows(dataset(rows), test=0.3, seed=1)
    train, test = ([row["prompt"] for row in part] for part in (dealt.train, dealt.test))
    assert not set(train) & set(test)
    assert sorted(train + test) == sorted(row["prompt"] for row in rows)
    assert abs(len(test) - 12) <= 1


def test_dealing_is_seeded_and_keeps_the_order_of_the_rows() -> None:
    rows = dataset(numbered(30))

    def tested(seed: int) -> list[int]:
        dealt: NearRows = deal_near_rows(rows, seed=seed)
        return [int(prompt.split()[1]) for prompt in dealt.test["prompt"]]

    assert tested(0) == tested(0) == sorted(tested(0))
    assert len(tested(0)) == 15
    assert tested(0) != tested(1)


@pytest.mark.parametrize(
    ("rows", "test"), [(numbered(1), 0.5), (numbered(1) * 4, 0.5), (numbered(4), 0.01), (numbered(4), 1.0)]
)
def test_a_deal_with_an_empty_part_is_refused(rows: list[dict[str, str]], test: float) -> None:
    with pytest.raises(ValueError, match="rows that are trained on cannot test"):
        deal_near_rows(dataset(rows), test=test)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "bm26"}, "did you mean 'bm25'"),
        ({"method": "embedding"}, "no model"),
        ({"model": "bert"}, "a model"),
        ({"method": "embedding", "model": (1, 2)}, "a loaded"),
        ({"k": 0}, "k must be a whole number of at least 1 and at most 2"),
        ({"k": 3}, "k must be a whole number of at least 1 and at most 2"),
        ({"pool": []}, "at least one retain row"),
        ({"forget": iter(FORGET)}, "a datasets.Dataset or a list of dicts"),
        ({"pool": [{"prompt": "?", "completion": "!"}]}, "pool rows with words"),
        ({"pool": [{"input_ids": [1, 2], "labels": [1, 2]}]}, "already tokenised"),
        ({"pool": [{"question": "a", "answer": "b"}]}, "rename_columns"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        near_neighbours(**({"forget": FORGET, "pool": POOL} | arguments))


def test_a_pool_that_cannot_be_split_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the pool as a datasets\.Dataset"):
        split_scope(FORGET, POOL)  # type: ignore[arg-type]
