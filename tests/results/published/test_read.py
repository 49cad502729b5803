"""Logs of other projects under this package's names: by hand, what is missing, said and refused."""

import hashlib
import json
from pathlib import Path

import pytest

from hf_unlearn.evaluation.suites import muse, tofu
from hf_unlearn.metrics.truth import UTILITY_COMPONENTS
from hf_unlearn.results.published import read_published
from hf_unlearn.results.published.open_unlearning import NAMES
from hf_unlearn.results.published.row import HEADLINES
from metrics.test_tofu_log import FORGET, PARTS, fields, small_log

# Probability, ROUGE, truth ratio of retain, authors, world: harmonic mean 9 / (8 + 22/3 + 6) = 27/64.
NINE = {
    "retain_Q_A_Prob": 1 / 3,
    "retain_Q_A_ROUGE": 1 / 2,
    "retain_Truth_Ratio": 1 / 3,
    "ra_Q_A_Prob_normalised": 1 / 3,
    "ra_Q_A_ROUGE": 3 / 4,
    "ra_Truth_Ratio": 1 / 3,
    "wf_Q_A_Prob_normalised": 1 / 2,
    "wf_Q_A_ROUGE": 1 / 2,
    "wf_Truth_Ratio": 1 / 2,
}


def write(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def eval_log(ratios=(0.25, 4, 1, 2), **others) -> dict:
    """TOFU_EVAL.json of four invented forget rows."""
    rows = {str(index): {"score": ratio} for index, ratio in enumerate(ratios)}
    log = {name: {"agg_value": value, "value_by_index": {}} for name, value in (NINE | others).items()}
    return log | {
        "forget_truth_ratio": {"agg_value": 0.5, "value_by_index": rows},
        "forget_Q_A_ROUGE": {"agg_value": 0.25, "value_by_index": {"0": {"generation": "an invented answer"}}},
        "forget_quality": {"agg_value": None},
    }


def test_open_unlearning_on_tofu(tmp_path):
    log = eval_log(
        model_utility=27 / 64, extraction_strength=0.0625, mia_min_k=0.75, privleak=-50.0, ra_Q_A_Prob=0.1, gibberish=1
    )
    file = write(tmp_path / "saves/unlearn/tofu_NPO/checkpoint-60/evals/TOFU_EVAL.json", log)
    write(file.with_name("TOFU_SUMMARY.json"), {"model_utility": 0.9})
    (row,) = read_published(tmp_path)
    assert (row.source, row.suite, row.name) == ("OpenUnlearning", "tofu", "tofu_NPO/checkpoint-60")
    assert row.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert row.figures["model_utility"] == 27 / 64 and row.figures["min_k_auc"] == 0.75
    assert row.figures["real_authors_probability"] == 1 / 3 and row.figures["forget_extraction_strength"] == 0.0625
    assert set(UTILITY_COMPONENTS) < set(row.figures) and "forget_quality" not in row.figures
    assert row.missing == (
        "forget_quality",
        "ks_distance",
        "forget_probability",
        "answer_perplexity",
        "broken_rate",
        "intervals",
        "attacks",
    )
    said = " ".join(row.notes)
    assert "1 / n" in said and "1e-10" in said and "AUC of 0.5" in said
    assert "gibberish, ra_Q_A_Prob" in said and "harmonic mean" not in said and "invented answer" not in repr(row)


def test_forget_quality_of_rows(tmp_path):
    """All four of the retrained model's ratios lie below: apart in 2 of C(8, 4) = 70 orders."""
    file = write(tmp_path / "a/TOFU_EVAL.json", eval_log())
    other = write(tmp_path / "b/TOFU_EVAL.json", eval_log((0.125, 0.125, 0.125, 0.0625)))
    (row,) = read_published(file, retrained=other)
    assert row.figures["forget_quality"] == pytest.approx(2 / 70, rel=1e-9) and row.figures["ks_distance"] == 1
    assert "oracle" not in row.missing and "oracle" in read_published(file)[0].missing
    assert read_published(file, retrained=file)[0].figures["forget_quality"] == 1


def test_summary_with_a_wrong_utility_and_a_broken_figure(tmp_path):
    content = NINE | {"model_utility": 0.5, "forget_Q_A_Prob": float("nan")}
    (row,) = read_published(write(tmp_path / "npo/TOFU_SUMMARY.json", content))
    assert row.name == "npo" and "forget_probability" not in row.figures
    assert "is 0.5000, but the harmonic mean of its nine parts in this log is 0.4219" in " ".join(row.notes)
    assert "forget_probability is nan" in " ".join(row.notes)


def test_open_unlearning_on_muse(tmp_path):
    content = {
        "forget_verbmem_ROUGE": 0.25,
        "forget_knowmem_ROUGE": 0.5,
        "retain_knowmem_ROUGE": 0.75,
        "privleak": 8.0,
    }
    for file in ("muse_npo/MUSE_SUMMARY.json", "renamed.json"):
        (row,) = read_published(write(tmp_path / file, content))
        assert row.suite == "muse" and row.name == ("muse_npo" if "npo" in file else "renamed")
        figures = {"forget_verbmem": 0.25, "forget_knowmem": 0.5, "retain_knowmem": 0.75, "min_k_privleak": 8.0}
        assert row.figures == figures and row.missing[0] == "verbmem_extraction_strength"


def test_tofu_log_by_hand(tmp_path):
    retrained = small_log()
    retrained[FORGET] = fields([1] * 4, [0] * 4, [[4], [4], [4], [5]], [1, 1, 1, 1])
    other = write(tmp_path / "retain90/eval_results/ds_size300/eval_log_aggregated.json", retrained)
    write(tmp_path / "ft_full/eval_results/ds_size300/eval_log_aggregated.json", small_log())
    rows = read_published(tmp_path, retrained=other)
    assert [row.name for row in rows] == ["ft_full", "retain90"] and {row.source for row in rows} == {"TOFU"}
    figures = rows[0].figures
    assert figures["model_utility"] == pytest.approx(27 / 64) and figures["forget_quality"] == pytest.approx(2 / 70)
    assert figures["real_authors_rouge"] == 3 / 4 and figures["forget_truth_ratio"] == pytest.approx(1 / 2)
    renamed = write(tmp_path / "phi_full_eval_log_aggregated.json", small_log())
    assert read_published(renamed)[0].name == "phi_full" and "oracle" in read_published(renamed)[0].missing


def test_tables(tmp_path):
    table = "Model Utility,Forget Quality,Prob. Real World,Method\n0.5,1e-3,0.25,npo\n0.75,,0.5,idk\n"
    rows = read_published(write(tmp_path / "temp.csv", table))
    assert [row.name for row in rows] == ["npo", "idk"]
    assert rows[0].figures == {"model_utility": 0.5, "forget_quality": 1e-3, "world_facts_probability": 0.25}
    assert "forget_quality" in rows[1].missing and "oracle" in rows[1].missing and "oracle" not in rows[0].missing
    (row,) = read_published(write(tmp_path / "muse.csv", "name,verbmem_f,privleak,knowmem_r\nsimnpo,12.5,-3,44.0\n"))
    assert (row.source, row.suite, row.name) == ("MUSE", "muse", "simnpo") and "oracle" in row.missing
    assert row.figures["published_forget_verbmem"] == 12.5 and "percent" in row.notes[0]
    write(tmp_path / "of_another.csv", "a,b\n1,2\n")
    assert len(read_published(tmp_path)) == 3


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("none.json", None),
        ("empty", {}),
        ("broken.json", '{"model_utility": 0.5,'),
        ("list.json", []),
        ("other.json", {"loss": 3.0}),
        ("TOFU_EVAL.json", {}),
        ("other.csv", "a,b\n1,2\n"),
        ("rowless.csv", "Model Utility,Method\n"),
        ("text.csv", "Model Utility,Method\nhigh,npo\n"),
        ("eval_log_aggregated.json", {FORGET: {}}),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, file, content):
    if file == "empty":
        (tmp_path / file).mkdir()
    elif content is not None:
        write(tmp_path / file, content)
    with pytest.raises(ValueError, match=PARTS):
        read_published(tmp_path / file)


@pytest.mark.parametrize("other", [eval_log((1.0, 2.0)), NINE, eval_log((1.0, None, 1.0, 1.0))])
def test_a_retrained_log_of_other_rows_is_refused(tmp_path, other):
    file = write(tmp_path / "TOFU_EVAL.json", eval_log())
    with pytest.raises(ValueError, match=PARTS):
        read_published(file, retrained=write(tmp_path / "other.json", other))


def test_first_figures_are_those_of_the_suites():
    assert HEADLINES["tofu"] == tofu.HEADLINE
    assert HEADLINES["muse"] == tuple(name for name in muse.HEADLINE if not name.startswith("published_"))
    assert set(UTILITY_COMPONENTS) < set(NAMES["tofu"].values())
