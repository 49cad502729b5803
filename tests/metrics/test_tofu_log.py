"""The aggregates of a TOFU log: a log small enough for paper, larger ones against the loops. No real log."""

import math
import random

import pytest
import scipy.stats

from hf_unlearn.metrics.tofu_log import tofu_aggregates
from hf_unlearn.metrics.truth import UTILITY_COMPONENTS, model_utility
from oracles import metrics as naive

PARTS = r"Expected (.|\n)*Got: (.|\n)*Why it matters: (.|\n)*What to do: "
LN2 = math.log(2)

RETAIN, FORGET = "eval_log.json", "eval_log_forget.json"
AUTHORS, WORLD = "eval_real_author_wo_options.json", "eval_real_world_wo_options.json"
FIELDS = ("avg_gt_loss", "rougeL_recall", "average_perturb_loss", "avg_paraphrased_loss")


def fields(answer, rouge, perturbed, paraphrased) -> dict:
    """One set of a log, its losses given in units of ln 2."""
    columns = (
        [LN2 * loss for loss in answer],
        rouge,
        [[LN2 * loss for loss in losses] for losses in perturbed],
        [LN2 * loss for loss in paraphrased],
    )
    indexed = [{str(index): value for index, value in enumerate(column)} for column in columns]
    return dict(zip(FIELDS, indexed, strict=True))


def small_log() -> dict:
    """Three or four rows a set. R = 2^(paraphrased - mean perturbed)."""
    return {
        # p = 1/2 1/4 1/4; R = 1/2 1/2 2
        RETAIN: fields([1, 2, 2], [1, 0.5, 0], [[2, 2], [1, 3], [1, 1]], [1, 1, 2]),
        # p = 1/2 1/4 1/4, each of 1 in all; R = 1/2 1/2 2
        AUTHORS: fields([1, 2, 2], [1, 1, 0.25], [[2, 2], [1, 2], [1, 2]], [1, 0.5, 2.5]),
        # p = 1/2 of 1 in every row; R = 1/2
        WORLD: fields([1, 1, 1], [0.5, 0.75, 0.25], [[1], [1], [1]], [0, 0, 0]),
        # p = 1/2 1/4 1/8 1/8; R = 1/4 4 1 2
        FORGET: fields([1, 2, 3, 3], [0, 0.5, 0.5, 0], [[3, 3], [1, 1], [2, 2], [0, 2]], [1, 3, 2, 2]),
    }


BY_HAND = {
    "ROUGE Retain": 1 / 2,
    "Prob. Retain": 1 / 3,
    "Truth Ratio Retain": 1 / 3,
    "ROUGE Real Authors": 3 / 4,
    "Prob. Real Authors": 1 / 3,
    "Truth Ratio Real Authors": 1 / 3,
    "ROUGE Real World": 1 / 2,
    "Prob. Real World": 1 / 2,
    "Truth Ratio Real World": 1 / 2,
    "ROUGE Forget": 1 / 4,
    "Prob. Forget": 1 / 4,
    "Truth Ratio Forget": 1 / 2,  # of 1/4 1/4 1 1/2
    # 9 / (2 + 3 + 3 of the retain set, 4/3 + 3 + 3 of the authors, 2 + 2 + 2 of the world).
    "Model Utility": 27 / 64,
}
OF_RETRAINED = {"Forget Quality", "KS Test PVal Forget", "KS Test Forget"}


def random_log(rows: dict[str, int], seed: int, shift: float = 0.0) -> dict:
    """A log of so many rows a set; `shift` is added to the forget set's paraphrased losses, in nats."""
    rng = random.Random(seed)

    def losses(count: int, low: float = 0.1) -> list[float]:
        return [rng.uniform(low, 4.0) for _ in range(count)]

    log = {}
    for key, count in rows.items():
        moved = [loss + (shift / LN2 if key == FORGET else 0.0) for loss in losses(count)]
        rouge = [rng.random() for _ in range(count)]
        log[key] = fields(losses(count), rouge, [losses(5, low=1.0) for _ in range(count)], moved)
    return log


MANY = {RETAIN: 30, AUTHORS: 10, WORLD: 12, FORGET: 24}


def test_by_hand():
    aggregates = tofu_aggregates(small_log())
    assert aggregates.keys() == BY_HAND.keys()
    assert {name: aggregates[name].value for name in BY_HAND} == pytest.approx(BY_HAND, rel=1e-12)
    assert {aggregates[f"{kind} Forget"].n for kind in ("ROUGE", "Prob.", "Truth Ratio")} == {4}
    assert {aggregates[f"{kind} Real World"].n for kind in ("ROUGE", "Prob.", "Truth Ratio")} == {3}


def test_forget_quality_by_hand():
    """Retrained R = 1/8 1/8 1/8 1/16, all below 1/4: apart in 2 of C(8, 4) = 70 orders."""
    retrained = small_log()
    retrained[FORGET] = fields([1] * 4, [0] * 4, [[4], [4], [4], [5]], [1, 1, 1, 1])
    aggregates = tofu_aggregates(small_log(), retrained)
    assert aggregates.keys() == BY_HAND.keys() | OF_RETRAINED
    assert {name: aggregates[name].value for name in BY_HAND} == pytest.approx(BY_HAND, rel=1e-12)
    assert aggregates["KS Test Forget"].value == 1
    assert aggregates["Forget Quality"].value == pytest.approx(2 / 70, rel=1e-9)
    assert aggregates["KS Test PVal Forget"].value == aggregates["Forget Quality"].value


def test_against_the_loop_and_scipy():
    log, retrained = random_log(MANY, seed=1), random_log(MANY, seed=2, shift=0.6)
    aggregates = tofu_aggregates(log, retrained)
    expected = naive.tofu_values(log)
    assert min(expected.values()) > 0.05 and len(set(expected.values())) == 13
    assert {name: aggregates[name].value for name in expected} == pytest.approx(expected, rel=1e-12)

    def ratios(of: dict) -> list[float]:
        columns = (of[FORGET][field].values() for field in ("avg_paraphrased_loss", "average_perturb_loss"))
        return [naive.truth_ratio_of_row(*pair) for pair in zip(*columns, strict=True)]

    peer = scipy.stats.ks_2samp(ratios(log), ratios(retrained))
    assert 0 < peer.pvalue < 1
    assert aggregates["Forget Quality"].value == pytest.approx(peer.pvalue, rel=1e-9)
    assert aggregates["KS Test Forget"].value == pytest.approx(peer.statistic, rel=1e-12)


def test_the_retrained_model_against_itself():
    log = random_log(MANY, seed=3)
    aggregates = tofu_aggregates(log, log)
    assert aggregates["Forget Quality"].value == 1 and aggregates["KS Test Forget"].value == 0


def test_utility_is_that_of_the_nine():
    aggregates = tofu_aggregates(random_log(MANY, seed=4))
    kinds = {"probability": "Prob.", "rouge": "ROUGE", "truth_ratio": "Truth Ratio"}
    sets = {"retain": "Retain", "real_authors": "Real Authors", "world_facts": "Real World"}
    nine = {f"{s}_{k}": aggregates[f"{kinds[k]} {sets[s]}"] for s in sets for k in kinds}
    assert nine.keys() == set(UTILITY_COMPONENTS)
    assert aggregates["Model Utility"].value == pytest.approx(model_utility(nine).value, rel=1e-12)
    assert max(result.value for result in nine.values()) > aggregates["Model Utility"].value > 0


def test_the_forget_set_is_no_part_of_utility():
    log = random_log(MANY, seed=5)
    other = {**log, FORGET: random_log(MANY, seed=6)[FORGET]}
    before, after = tofu_aggregates(log), tofu_aggregates(other)
    assert before["Prob. Forget"].value != after["Prob. Forget"].value
    assert before["Model Utility"] == after["Model Utility"]


def test_values_meet_by_index_and_not_by_place():
    """Options and answers of other rows would give another probability."""
    log = random_log(MANY, seed=7)
    turned = {key: dict(columns) for key, columns in log.items()}
    for key in turned:
        for name in ("average_perturb_loss", "rougeL_recall"):
            turned[key][name] = dict(reversed(turned[key][name].items()))
    expected = naive.tofu_values(log)
    aggregates = tofu_aggregates(turned)
    assert {name: aggregates[name].value for name in expected} == pytest.approx(expected, rel=1e-12)


def test_other_fields_and_other_sets_are_passed_over():
    log = small_log()
    log[RETAIN]["generated_text"] = {"0": ["q", "a", "b"]}
    log["eval_extra.json"] = {}
    assert tofu_aggregates(log) == tofu_aggregates(small_log())


def test_nan_is_shown():
    log = small_log()
    log[RETAIN]["avg_gt_loss"]["1"] = math.nan
    aggregates = tofu_aggregates(log)
    assert math.isnan(aggregates["Prob. Retain"].value) and math.isnan(aggregates["Model Utility"].value)
    assert aggregates["ROUGE Retain"].value == pytest.approx(1 / 2)


# --- What is refused ---


@pytest.mark.parametrize("key", [RETAIN, AUTHORS, WORLD, FORGET])
def test_a_missing_set_is_named(key):
    log = small_log()
    del log[key]
    with pytest.raises(ValueError, match=PARTS) as caught:
        tofu_aggregates(log)
    assert key in str(caught.value)


@pytest.mark.parametrize("key", [RETAIN, AUTHORS, WORLD, FORGET])
@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_named(key, field):
    log = small_log()
    del log[key][field]
    with pytest.raises(ValueError, match=PARTS) as caught:
        tofu_aggregates(log)
    assert field in str(caught.value)


@pytest.mark.parametrize("key", [RETAIN, AUTHORS, WORLD, FORGET])
@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_other_length_is_refused(key, field):
    log = small_log()
    log[key][field].popitem()
    with pytest.raises(ValueError, match=PARTS):
        tofu_aggregates(log)


def test_fields_of_other_indices_are_refused():
    log = small_log()
    log[RETAIN]["rougeL_recall"]["9"] = log[RETAIN]["rougeL_recall"].pop("0")
    with pytest.raises(ValueError, match=PARTS):
        tofu_aggregates(log)


@pytest.mark.parametrize("key", [RETAIN, FORGET])
def test_an_empty_set_is_refused(key):
    log = small_log()
    log[key] = {field: {} for field in FIELDS}
    with pytest.raises(ValueError, match=PARTS):
        tofu_aggregates(log)


def test_a_retrained_log_of_other_length_or_without_a_forget_set_is_refused():
    fewer = random_log({**MANY, FORGET: 23}, seed=8)
    with pytest.raises(ValueError, match=PARTS):
        tofu_aggregates(random_log(MANY, seed=9), fewer)
    without = small_log()
    del without[FORGET]
    with pytest.raises(ValueError, match=PARTS):
        tofu_aggregates(small_log(), without)
