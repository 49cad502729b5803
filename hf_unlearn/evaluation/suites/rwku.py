"""The suite of RWKU (Jin et al. 2406.10890): probes about people to forget, neighbours, membership, utility."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from ... import metrics
from ...data.muse_tokens import excerpt_rows
from ...data.rwku import FLUENCY, HUB, MEMBERSHIP, PROBES, RwkuData, Source, load_rwku
from ...data.rwku_tokens import instruction_rows, probe_rows
from ...data.rwku_utility import GENERAL
from ...data.wmdp_tokens import letter_tokens
from ...metrics.rwku import FORMS
from ...results.evaluation_result import EvaluationResult
from ..evidence import Evidence
from ..judges.judge import Judge
from ..judges.judgement import Judgement, judge_answers
from ..suite import Suite, SuiteOutput, baseline
from .judged_group import what_judge_adds
from .metric_groups import (
    CHEAP_ATTACKS,
    Metrics,
    membership_scores,
    row_nll,
    wording_metrics,
    wording_warnings,
)
from .rwku_utility import (
    PUBLISHED,
    PUBLISHED_HEADLINE,
    UTILITY_HEADLINE,
    Options,
    answer_lengths,
    first_line,
    published_utility,
    utility_metrics,
    utility_token_sets,
    utility_warnings,
)

HEADLINE = (
    "forget_level1_rouge",
    "forget_level2_rouge",
    "forget_level3_rouge",
    "forget_level3_mean_rouge",
    "forget_level3_worst_rouge",
    "neighbor_level1_rouge",
    "neighbor_level2_rouge",
    *(f"{name}_judged" for name in PROBES),
    *(f"{PUBLISHED}{name}" for name in PROBES),
    "mia_min_k_auc",
    "mia_forget_nll",
    "mia_retain_nll",
    *UTILITY_HEADLINE,
    *PUBLISHED_HEADLINE,
    "fluency_entropy",
    "answer_perplexity",
    "broken_rate",
)
_LONGER = 0.05  # share of expected answers that do not fit, from which on it is said
_STOPS = ("<|eot_id|>", " \n", "\n")
_NO_ANSWER = "NOANSWER"


def rwku(
    source: Source = HUB,
    target: str | Sequence[str] | None = None,
    *,
    published: bool = False,
    judge: Judge | None = None,
    oracle: EvaluationResult | str | Path | None = None,
    before: EvaluationResult | str | Path | None = None,
    limit: int | None = None,
    answer_tokens: int = 30,
    reason_tokens: int = 256,
    fluency_tokens: int = 256,
    max_length: int | None = None,
    revision: str | None = None,
) -> Suite:
    """RWKU's evaluation of a model that was to forget one or more real people.

    `forget_level1_rouge` (blanks to fill), `forget_level2_rouge` (questions), `forget_level3_rouge` (adversarial ones;
    each form too, `forget_level3_mean_rouge`, `forget_level3_worst_rouge` over them), `neighbor_level1_rouge`,
    `neighbor_level2_rouge`: mean ROUGE-L recall (`metrics.rouge_recalls`) of the expected answer in the first line
    of the greedy one. `mia_*_auc`: texts about the target told from texts about others, both trained on (Min-K%: the
    lowest 40% of tokens). `fluency_entropy`: `metrics.n_gram_entropy` of answers to instructions. `utility_general`
    (MMLU) by letter, `utility_reason` (BBH) by the conclusion, `utility_truthfulness` (TruthfulQA) by MC1 and MC2,
    `utility_factuality` (TriviaQA) by F1 and exact match. Prompts go through the chat template, if any.

    Args:
        source: a dataset on the Hub, a folder of its files, or the sets themselves (`data.rwku.load_rwku`).
        target: the subject, or subjects, that were to be forgotten; None measures the rows of all.
        published: whether to add the numbers of the published code (`published_metrics`, which names its faults).
        judge: tells which answers give the expected one away: its share as `forget_level1_judged` and so on.
        oracle, before: results of this suite on the model trained without the targets, and before unlearning.
        limit, revision: at most so many rows of each set and of each adversarial form; of a dataset on the Hub.
        answer_tokens, reason_tokens, fluency_tokens: longest answer to a probe or a question of TriviaQA, to a
            question of BBH, and to an instruction.
        max_length: longest row in tokens: of utility questions the beginning is cut, of other rows the end.

    Raises:
        ValueError: a missing set or column, an unknown subject or form, or a result that is not of this suite.
    """
    options = Options(published, answer_tokens, reason_tokens, fluency_tokens, max_length, judge)
    suite = _suite(load_rwku(source, target, limit=limit, revision=revision), options)
    return replace(suite, before=baseline(before, "rwku", "before"), oracle=baseline(oracle, "rwku", "oracle"))


def _suite(data: RwkuData, options: Options) -> Suite:
    """The suite over loaded sets."""
    probes = [name for name in PROBES if name in data.sets]
    again = [f"{PUBLISHED}{name}" for name in probes] if options.published else []
    lengths = answer_lengths(data, options)
    settings = {"targets": list(data.targets), "published": options.published}
    return Suite(
        name="rwku",
        sets={},
        token_sets=partial(_token_sets, data=data, options=options),
        measure=partial(_measured, data=data, options=options),
        answered=(*probes, *again, *lengths),
        fluent=("forget_level2",),
        vocabulary_statistics=tuple(name for name in MEMBERSHIP if name in data.sets),
        option_tokens=letter_tokens if GENERAL in data.sets else None,
        max_new_tokens=options.answer_tokens,
        answer_lengths=lengths,
        max_length=options.max_length,
        headline=HEADLINE,
        forget_metric="forget_level2_rouge",
        utility_metric="neighbor_level2_rouge",
        settings=settings if options.judge is None else settings | {"judge": options.judge.name},
    )


def _token_sets(tokenizer: PreTrainedTokenizerBase, *, data: RwkuData, options: Options) -> dict[str, Any]:
    """The rows that are scored and answered."""
    sets: dict[str, Any] = {}
    for name, rows in data.sets.items():
        if name in MEMBERSHIP:
            sets[name] = excerpt_rows(tokenizer, rows["text"][:])
        elif name == FLUENCY:
            sets[name] = instruction_rows(tokenizer, rows["instruction"][:])
        elif name in PROBES:
            sets[name] = probe_rows(tokenizer, name, rows)
            if options.published:
                sets[f"{PUBLISHED}{name}"] = probe_rows(tokenizer, name, rows, published=True)
    return sets | utility_token_sets(tokenizer, data, options)


def _measured(evidence: Evidence, *, data: RwkuData, options: Options) -> SuiteOutput:
    """The suite's metrics."""
    measured: Metrics = {}
    judged: dict[str, Judgement] = {}
    for name in (name for name in PROBES if name in data.sets):
        rows = data.sets[name]
        answers, expected = [first_line(text) for text in evidence.answered[name].answers], rows["answer"][:]
        recalls = metrics.rouge_recalls(answers, expected)
        measured[f"{name}_rouge"] = metrics.mean(recalls)
        if name == "forget_level3":
            measured |= form_metrics(recalls, rows["type"][:])
        if options.judge is not None:
            judged[name] = judge_answers(options.judge, answers, expected)
            measured[f"{name}_judged"] = metrics.judged_rate(judged[name].values)
    measured |= _membership(evidence, data) | utility_metrics(evidence, data)
    if FLUENCY in data.sets:
        measured["fluency_entropy"] = metrics.n_gram_entropy(evidence.answered[FLUENCY].answers)
    asked = evidence.answered["forget_level2"]
    measured |= wording_metrics(asked, evidence.vocabulary)
    if options.published:
        measured |= published_metrics(evidence, data) | published_utility(evidence, data)
    warnings = [*wording_warnings(asked, evidence.vocabulary), *_longer_answers(evidence, options.answer_tokens)]
    warnings += utility_warnings(evidence, data, options.reason_tokens)
    kept = {name: nll for name, nll in row_nll(evidence).items() if not name.startswith((PUBLISHED, "utility_"))}
    of_judge = what_judge_adds(options.judge, judged)
    warnings += [*of_judge.warnings, *_not_measured(data, measured)]
    return SuiteOutput(measured | of_judge.metrics, kept, warnings, of_judge.run)


def form_metrics(recalls: np.ndarray, forms: Sequence[str]) -> Metrics:
    """Recall of each form of the adversarial probes, their mean, each form alike, and the highest.

    The highest of several means is too high by chance where forms have few rows; its interval shows as much.
    """
    form_of_row = np.array(forms)
    by_form = {form: recalls[form_of_row == form] for form in FORMS if form in forms}
    measured = {f"forget_level3_{form}_rouge": metrics.mean(own) for form, own in by_form.items()}
    over = {"mean": np.mean, "worst": np.max}
    return measured | {
        f"forget_level3_{name}_rouge": metrics.bootstrap(
            lambda *rows, of=of: of([own.mean() for own in rows]), *by_form.values()
        )
        for name, of in over.items()
    }


def _membership(evidence: Evidence, data: RwkuData) -> Metrics:
    """How likely the membership texts are, and whether those to forget are told from those to keep."""
    measured: Metrics = {}
    for name in (name for name in MEMBERSHIP if name in data.sets):
        rows = evidence.scored[name]
        measured[f"{name}_nll"] = metrics.token_nll(rows.nll_sum, rows.lengths)
    if all(name in data.sets for name in MEMBERSHIP):
        forget, retain = (membership_scores(name, evidence, CHEAP_ATTACKS) for name in MEMBERSHIP)
        for attack in CHEAP_ATTACKS:
            measured[f"mia_{attack}_auc"] = metrics.membership_auc(forget[attack], retain[attack])
    return measured


def published_metrics(evidence: Evidence, data: RwkuData) -> Metrics:
    """The published code's numbers: `published_forget_level1` and the others, `published_mia_forget_loss` and so on.

    Its faults, which the metrics without `published_` do not have:
    - the package `rouge` compares words with their case and punctuation, each distinct one once, and ends sentences
      at full stops (`metrics.sentence_rouge_recalls`): "Paris," does not hold "paris";
    - an answer is to end with its line, but the line break is looked up as a token of that name, which byte-level
      tokenizers such as Llama 3's do not have: what the model says on later lines counts, up to 30 tokens;
    - a chat template's beginning of text gets a second one in front;
    - an answer of full stops alone stops the evaluation with an error; here it has a recall of 0;
    - membership scores are means of each set, with no comparison of the two; `mink20` is Min-K%++, and Min-K% is not
      given; a text of fewer than five tokens has no 20%, which makes the mean NaN, here its lowest token counts; and
      a text whose loss is NaN is left out, here too.

    Its fluency splits words as nltk's downloaded models do, and is not repeated: `fluency_entropy` has the formula.
    """
    tokenizer = evidence.tokenizer
    assert tokenizer is not None
    stops = {tokenizer.convert_tokens_to_ids(stop) for stop in _STOPS} - {None}
    measured: Metrics = {}
    for name in (name for name in PROBES if name in data.sets):
        answers = []
        for ids in evidence.answered[f"{PUBLISHED}{name}"].ids:
            end = next((place for place, token in enumerate(ids) if token in stops), len(ids))
            text = str(tokenizer.decode(list(ids[:end]), skip_special_tokens=True)).strip()
            answers.append(text or _NO_ANSWER)
        recalls = metrics.sentence_rouge_recalls(answers, data.sets[name]["answer"][:])
        measured[f"{PUBLISHED}{name}"] = metrics.mean(recalls)
    for name in (name for name in MEMBERSHIP if name in data.sets):
        rows = evidence.scored[name]
        scores = {
            "loss": metrics.loss_scores(rows.logps),
            "zlib": metrics.zlib_scores(rows.logps, data.sets[name]["text"][:]),
            "min_k_plus_plus": metrics.min_k_plus_plus_scores(rows.logps, rows.means, rows.deviations, k=0.2),
        }
        counted = ~np.isnan(scores["loss"])
        if counted.any():
            measured |= {f"{PUBLISHED}{name}_{score}": metrics.mean(own[counted]) for score, own in scores.items()}
    return measured


def _not_measured(data: RwkuData, measured: Metrics) -> list[str]:
    """Parts of the benchmark that the source lacks, so that nobody takes them for zero."""
    warnings = [f"{name} is not measured: the source has no such rows." for name in data.missing]
    if "forget_level3" in data.sets:
        lacking = [form for form in FORMS if f"forget_level3_{form}_rouge" not in measured]
        if lacking:
            names = ", ".join(form.replace("_", " ") for form in lacking)
            warnings.append(f"Adversarial forms without a probe, in neither mean nor worst: {names}.")
    return warnings


def _longer_answers(evidence: Evidence, longest: int) -> list[str]:
    """Sets of probes whose expected answers do not fit into the length that answers may have."""
    warnings = []
    for name in (name for name in PROBES if name in evidence.scored):
        longer = float(np.mean(evidence.scored[name].lengths > longest))
        if longer >= _LONGER:
            warnings.append(
                f"{longer:.0%} of the expected answers of {name} are longer than answer_tokens={longest}: the model "
                "is cut off, and their ROUGE comes out too low."
            )
    return warnings
