"""Logs of other code under this package's names: invented ones, small enough to work out by hand."""

import json

import pytest

from hf_unlearn.results.lineage import file_hash
from hf_unlearn.results.published import read_published
from metrics.test_tofu_log import BY_HAND, small_log

LACKING = ("intervals", "an oracle on the same rows", "attacks")


def written(folder, name, content):
    path = folder / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_summary_of_openunlearning(tmp_path):
    folder = tmp_path / "tofu_1B_forget10_NPO"
    folder.mkdir()
    log = {"model_utility": 0.6, "forget_quality": 0.03, "forget_Q_A_Prob": 0.25, "forget_Q_A_ROUGE": 0.5}
    log |= {"extraction_strength": 0.06, "privleak": -20.0, "mia_min_k": 0.4, "forget_Q_A_gibberish": 0.9}
    row = read_published(written(folder, "TOFU_SUMMARY.json", log))
    assert (row.source, row.name, row.suite) == ("OpenUnlearning", "tofu_1B_forget10_NPO", "tofu")
    assert row.figures == {
        "model_utility": 0.6,
        "forget_quality": 0.03,
        "forget_probability": 0.25,
        "forget_rouge": 0.5,
        "forget_extraction_strength": 0.06,
        "min_k_privleak": -20.0,
        "min_k_auc": 0.6,  # its members are the rows never seen
    }
    assert row.missing == (*LACKING, "forget_truth_ratio")
    assert row.digest == file_hash(folder / "TOFU_SUMMARY.json")
    assert any("1 - AUC" in sentence for sentence in row.differences) and len(row.differences) == 4


def test_single_rows_of_a_log_are_not_kept(tmp_path):
    single = {"0": {"rougeL_recall": 0.5, "generation": "Basil lives in Quarz."}}
    log = {"forget_verbmem_ROUGE": {"agg_value": 0.3, "value_by_index": single}, "retain_knowmem_ROUGE": None}
    log |= {"privleak": {"agg_value": 10}}
    row = read_published(written(tmp_path, "MUSE_EVAL.json", log))
    assert (row.suite, row.name) == ("muse", tmp_path.name)
    assert row.figures == {"forget_verbmem": 0.3, "min_k_privleak": 10.0}
    assert row.missing == (*LACKING, "forget_knowmem", "retain_knowmem")
    assert "Basil" not in repr(row)


def test_a_log_of_tofus_own_code(tmp_path):
    place = written(tmp_path, "npo_log.json", small_log())
    alone = read_published(place)
    assert (alone.source, alone.suite, alone.name) == ("TOFU", "tofu", "npo_log")
    assert alone.missing == (*LACKING, "forget_quality", "ks_distance")
    assert alone.figures["model_utility"] == pytest.approx(BY_HAND["Model Utility"])
    assert alone.figures["world_facts_probability"] == pytest.approx(BY_HAND["Prob. Real World"])
    assert alone.figures["forget_truth_ratio"] == pytest.approx(BY_HAND["Truth Ratio Forget"])
    beside = read_published(place, place)
    assert beside.missing == LACKING
    assert (beside.figures["forget_quality"], beside.figures["ks_distance"]) == (1.0, 0.0)


def test_what_is_not_a_number_stays_none(tmp_path):
    place = tmp_path / "TOFU_SUMMARY.json"
    place.write_text('{"forget_quality": NaN, "model_utility": Infinity, "forget_Q_A_Prob": 0.5}', encoding="utf-8")
    figures = read_published(place).figures
    assert (
        figures["forget_quality"] != figures["forget_quality"] and figures["model_utility"] != figures["model_utility"]
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        ("{", "a file that is no JSON"),
        ("[1]", "JSON of another kind"),
        ('{"loss": 1.0}', "no figure that this package has a name for"),
        ('{"eval_log.json": {}}', "no set"),
    ],
)
def test_another_file_is_refused(tmp_path, content, words):
    place = tmp_path / "log.json"
    if content is not None:
        place.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=words) as refused:
        read_published(place)
    assert "What to do" in str(refused.value) and str(tmp_path) not in str(refused.value)


def test_a_second_log_is_of_tofus_own_code_alone(tmp_path):
    place = written(tmp_path, "TOFU_SUMMARY.json", {"forget_quality": 0.5})
    with pytest.raises(ValueError, match="forget quality"):
        read_published(place, place)
