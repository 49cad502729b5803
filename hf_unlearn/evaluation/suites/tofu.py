"""The suite of TOFU (Maini et al. 2401.06121): model utility, forget quality, and what its successors added."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from ... import metrics
from ...data.tofu import TofuData, load_tofu
from ...metrics import MetricResult
from ...results.evaluation_result import EvaluationResult
from ..evidence import Evidence, ScoredRows
from ..suite import Suite, SuiteOutput, baseline
from .metric_groups import (
    length_warnings,
    likelihood_metrics,
    membership_metrics,
    membership_warnings,
    recall_metrics,
    row_nll,
    usable_attacks,
    wording_metrics,
    wording_warnings,
)
from .unseen_group import unseen_metrics

HEADLINE = (
    "model_utility",
    "forget_quality",
    "ks_distance",
    "forget_probability",
    "forget_rouge",
    "forget_truth_ratio",
    "forget_extraction_strength",
    "retain_probability",
    "retain_rouge",
    "min_k_auc",
    "min_k_privleak",
    "answer_perplexity",
    "broken_rate",
)
# The four sets that questions are asked of; in the last two a wrong answer is an option.
ASKED = ("forget", "retain", "real_authors", "world_facts")
FEW_ROWS = 100  # below which a large p-value says little
_WITH_OPTIONS = ("real_authors", "world_facts")


def tofu(
    source: str | Mapping[str, Any] = "locuslab/TOFU",
    split: str = "forget10",
    *,
    holdout: Any = None,
    oracle: EvaluationResult | str | Path | None = None,
    before: EvaluationResult | str | Path | None = None,
    attacks: Sequence[str] | None = None,
    limit: int | None = None,
    reworded: bool = False,
    max_new_tokens: int | None = 200,
    max_length: int | None = None,
    template: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    revision: str | None = None,
) -> Suite:
    """TOFU's evaluation of a forget split.

    For the four sets `forget`, `retain`, `real_authors`, `world_facts`: probability (of the answer; for the last two
    against the wrong options), ROUGE-L recall of the greedy answer, truth ratio. `model_utility` is the harmonic mean
    of the nine that are not of `forget`. With `oracle`, `forget_quality` is the p-value of the KS test between the
    truth ratios of the forget set and the retrained model's, `ks_distance` its statistic; without it they are absent.
    `forget_rouge_short`, `_middle` and `_long` are of thirds of the forget rows, by the length of their answers.
    With holdout rows, membership attacks. Of forget and retain rows also exact memorisation and extraction strength.

    Args:
        source, revision: a dataset on the Hub, a folder of its JSON files, or the sets themselves (`data.tofu`).
        split: "forget01", "forget05" or "forget10".
        holdout: rows of authors that no model has seen; found by itself in a local folder.
        oracle, before, attacks: results on the model retrained without the split, and before; as in `custom`.
        limit, reworded: at most so many rows of a set; also ask the forget questions in other words, as `in_scope`.
        max_new_tokens, max_length: longest answer (200 in the paper; None: the longest expected) and row, in tokens.
        template, chat_template_kwargs: as in UnlearningConfig, e.g. "Question: {prompt}\\nAnswer: {completion}".

    Raises:
        ValueError: an unknown split, a missing set or column, or a result that is not of this suite.
    """
    data = load_tofu(source, split, holdout=holdout, limit=limit, revision=revision, reworded=reworded)
    retrained = baseline(oracle, "tofu", "oracle")
    sets, sizes = _sets(data)
    used = usable_attacks(attacks, sets, retrained)
    return Suite(
        name="tofu",
        sets=sets,
        measure=partial(_measured, sizes=sizes, attacks=used),
        answered=(*ASKED, "in_scope") if reworded else ASKED,
        fluent=("forget",),
        gradient_norms=("forget", "holdout") if "gradient_norm" in used else (),
        vocabulary_statistics=("forget", "holdout") if "min_k_plus_plus" in used else (),
        max_new_tokens=max_new_tokens,
        max_length=max_length,
        template=template,
        chat_template_kwargs=chat_template_kwargs,
        headline=HEADLINE,
        forget_metric="forget_probability",
        utility_metric="model_utility",
        before=baseline(before, "tofu", "before"),
        oracle=retrained,
        settings={"split": split},
    )


def _measured(evidence: Evidence, *, sizes: Mapping[str, Sequence[int]], attacks: Sequence[str]) -> SuiteOutput:
    """The suite's metrics; `sizes` says how many wrong answers each question has."""
    ratios = {name: _ratios(name, evidence.scored, sizes[name]) for name in ASKED}
    measured = _answers_and_ratios(evidence, ratios, sizes)
    measured["model_utility"] = metrics.model_utility({name: measured[name] for name in metrics.UTILITY_COMPONENTS})
    if evidence.oracle is not None:
        others = np.array(evidence.oracle.row_scores["forget_truth_ratios"])
        measured["forget_quality"] = metrics.forget_quality(ratios["forget"], others)
        measured["ks_distance"] = metrics.ks_distance(ratios["forget"], others)
    asked = evidence.answered["forget"]
    measured |= wording_metrics(asked, evidence.vocabulary)
    if attacks:
        measured |= membership_metrics(evidence, attacks) | unseen_metrics(evidence)
    rows = row_nll(evidence) | {"forget_truth_ratios": ratios["forget"].tolist()}
    warnings = [*wording_warnings(asked, evidence.vocabulary), *length_warnings(evidence)]
    warnings += membership_warnings(measured, evidence.oracle, attacks)
    if "forget_quality" in measured and len(ratios["forget"]) < FEW_ROWS:
        warnings.append(
            f"Forget quality rests on {len(ratios['forget'])} rows: with so few the KS test passes models that have "
            "forgotten nothing."
        )
    return SuiteOutput(measured, rows, warnings)


def _sets(data: TofuData) -> tuple[dict[str, Dataset], dict[str, list[int]]]:
    """Rows by set, wrong answers flattened, and how many wrong answers each question has."""
    sets: dict[str, Dataset] = {}
    sizes = {}
    for name in ASKED:
        rows = getattr(data, name)
        sizes[name] = [len(wrong) for wrong in rows["perturbed_answer"]]
        questions = rows["question"]
        repeated = [question for question, size in zip(questions, sizes[name], strict=True) for _ in range(size)]
        wrong = [answer for answers in rows["perturbed_answer"] for answer in answers]
        sets[name] = _rows(questions, rows["answer"])
        sets[f"{name}_paraphrased"] = _rows(questions, rows["paraphrased_answer"])
        sets[f"{name}_perturbed"] = _rows(repeated, wrong)
    if data.reworded is not None:
        sets["in_scope"] = _rows(data.reworded["question"], data.reworded["answer"])
    if data.holdout is not None:
        sets["holdout"] = _rows(data.holdout["question"], data.holdout["answer"])
    return sets, sizes


def _rows(questions: Sequence[str], answers: Sequence[str]) -> Dataset:
    return Dataset.from_dict({"prompt": list(questions), "completion": list(answers)})


def _ratios(name: str, scored: Mapping[str, ScoredRows], sizes: Sequence[int]) -> np.ndarray:
    wrong = scored[f"{name}_perturbed"].grouped(sizes)
    return metrics.truth_ratios(scored[f"{name}_paraphrased"].nll_per_token, wrong)


def _answers_and_ratios(
    evidence: Evidence, ratios: Mapping[str, np.ndarray], sizes: Mapping[str, Sequence[int]]
) -> dict[str, MetricResult]:
    """Probability, ROUGE and truth ratio of the four sets, and what is said of forget and retain rows beside."""
    measured: dict[str, MetricResult] = {}
    for name in ASKED:
        rows = evidence.scored[name]
        measured |= recall_metrics(name, evidence.answered[name])
        if name in _WITH_OPTIONS:
            wrong = evidence.scored[f"{name}_perturbed"].grouped(sizes[name])
            measured[f"{name}_probability"] = metrics.option_probability(rows.nll_per_token, wrong)
        else:
            measured |= likelihood_metrics(name, rows)
        variant = "forget" if name == "forget" else "utility"
        measured[f"{name}_truth_ratio"] = metrics.truth_ratio(ratios[name], variant=variant)
    for name in ("holdout", "in_scope"):
        if name in evidence.scored:
            measured |= likelihood_metrics(name, evidence.scored[name])
    if "in_scope" in evidence.answered:
        measured |= recall_metrics("in_scope", evidence.answered["in_scope"])
    asked = evidence.answered["forget"]
    by_length = metrics.by_length(metrics.rouge_recalls(asked.answers, asked.expected), asked.expected)
    return measured | {f"forget_rouge_{name}": value for name, value in by_length.items()}
