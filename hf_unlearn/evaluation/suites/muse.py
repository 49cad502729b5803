"""The suite of MUSE (Shi et al. 2407.06460): verbatim and knowledge memory, privacy leakage, utility."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from ... import metrics
from ...data.muse import MuseData, Source, load_muse
from ...data.muse_tokens import (
    continuation_rows,
    excerpt_rows,
    first_answer,
    published_rows,
    question_prompts,
    question_rows,
)
from ...errors import require_range
from ...results.evaluation_result import EvaluationResult
from ..evidence import AnsweredRows, Evidence
from ..suite import Suite, SuiteOutput, baseline
from .metric_groups import (
    Metrics,
    likelihood_metrics,
    membership_metrics,
    membership_warnings,
    row_nll,
    usable_attacks,
    wording_metrics,
    wording_warnings,
)
from .unseen_group import unseen_metrics

HEADLINE = (
    "forget_verbmem",
    "forget_knowmem",
    "retain_knowmem",
    "min_k_privleak",
    "published_forget_verbmem",
    "published_forget_knowmem",
    "published_retain_knowmem",
    "published_privleak",
    "verbmem_extraction_strength",
    "forget_nll",
    "retain_nll",
    "min_k_auc",
    "answer_perplexity",
    "broken_rate",
)
QUESTIONS = ("forget", "retain")
# The Min-40% AUC of the paper's retrained models, holdout texts being the members, as the published code has it.
PUBLISHED_AUC = {"news": 0.47719999999999996, "books": 0.5392999999999999}
_LONGER = 0.05  # share of expected answers that do not fit, from which on it is said
_PUBLISHED = "published_"


@dataclass(frozen=True)
class _Options:
    """What the sets and metrics of a suite are made with; see `muse`."""

    corpus: str
    published: bool
    verbmem_tokens: int
    knowmem_tokens: int
    attacks: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("verbmem_tokens", "knowmem_tokens"):
            require_range(name, getattr(self, name), at_least=1, whole=True)

    @property
    def answered(self) -> tuple[str, ...]:
        """The sets that are answered."""
        asked = ("verbmem", *(f"{name}_qa" for name in QUESTIONS))
        return (*asked, *(f"{_PUBLISHED}{name}" for name in asked)) if self.published else asked


def muse(
    source: Source | None = None,
    corpus: str = "news",
    *,
    part: str = "forget",
    published: bool = False,
    oracle: EvaluationResult | str | Path | None = None,
    before: EvaluationResult | str | Path | None = None,
    attacks: Sequence[str] | None = None,
    limit: int | None = None,
    verbmem_tokens: int = 128,
    knowmem_tokens: int = 32,
    max_length: int | None = None,
    revision: str | None = None,
) -> Suite:
    """MUSE's evaluation of a model that was to forget news articles or books.

    `forget_verbmem`: ROUGE-L F1 of the greedy continuation of an excerpt and how it goes on, of as many tokens.
    `forget_knowmem` and `retain_knowmem` (the utility): ROUGE-L F1 of the greedy answer to a question behind ten
    examples, up to where the model asks another. Words are those of every script, not stemmed. Of the excerpts, behind
    which no end of text is put, NLL and the like, and membership attacks; with `oracle` `min_k_privleak`.

    Args:
        source: a dataset on the Hub, a folder of its files, or the sets themselves (`data.muse.load_muse`).
        corpus: "news" or "books".
        part: what was to be forgotten: "forget", "scal_1" to "scal_4", "sust_1" to "sust_4". All but the first add the
            likelihoods of its texts (`request_nll`); questions and excerpts are those of "forget".
        published: whether to add the numbers of the published code (`published_metrics`, which names its faults).
        oracle, before: results of this suite on the model retrained without the texts, and before unlearning.
        attacks: membership attacks, as in `custom`.
        limit: at most so many rows of each set.
        verbmem_tokens, knowmem_tokens: longest continuation and answer.
        max_length, revision: longest row in tokens, the rest cut; of a dataset on the Hub.

    Raises:
        ValueError: an unknown corpus or part, a missing set or column, or a result that is not of this suite.
    """
    data = load_muse(source, corpus, part=part, limit=limit, revision=revision)
    retrained = baseline(oracle, "muse", "oracle")
    used = usable_attacks(attacks, {"holdout": data.holdout}, retrained)
    options = _Options(corpus, published, verbmem_tokens, knowmem_tokens, used)
    return Suite(
        name="muse",
        sets={},
        token_sets=partial(_token_sets, data=data, options=options),
        measure=partial(_measured, data=data, options=options),
        answered=options.answered,
        fluent=("verbmem",),
        gradient_norms=("forget", "holdout") if "gradient_norm" in used else (),
        vocabulary_statistics=("forget", "holdout") if "min_k_plus_plus" in used else (),
        max_new_tokens=verbmem_tokens,
        answer_lengths={name: knowmem_tokens for name in options.answered if name.endswith("_qa")},
        max_length=max_length,
        headline=HEADLINE,
        forget_metric="forget_knowmem",
        utility_metric="retain_knowmem",
        before=baseline(before, "muse", "before"),
        oracle=retrained,
        settings={"corpus": corpus, "part": part, "published": published, "knowmem_tokens": knowmem_tokens},
    )


def _token_sets(tokenizer: PreTrainedTokenizerBase, *, data: MuseData, options: _Options) -> dict[str, Any]:
    """The rows that are scored and answered."""
    prompts, continuations = data.verbatim["prompt"][:], data.verbatim["gt"][:]
    sets: dict[str, Any] = {
        "verbmem": continuation_rows(tokenizer, prompts, continuations, options.verbmem_tokens),
        **{f"{name}_qa": question_rows(tokenizer, *_questions(data, name)) for name in QUESTIONS},
    }
    excerpts = {"forget": data.forget, "retain": data.retain, "holdout": data.holdout, "request": data.request}
    sets |= {name: excerpt_rows(tokenizer, rows["text"][:]) for name, rows in excerpts.items() if rows is not None}
    if options.published:
        whole = published_rows(tokenizer, prompts, continuations, options.verbmem_tokens)
        sets[f"{_PUBLISHED}verbmem"] = whole
        for name in QUESTIONS:
            questions, examples = _questions(data, name)
            asked = question_prompts(questions, examples)
            sets[f"{_PUBLISHED}{name}_qa"] = published_rows(tokenizer, asked, questions["answer"][:])
    return sets


def _questions(data: MuseData, name: str) -> tuple[Any, Any]:
    return (data.forget_qa, data.forget_examples) if name == "forget" else (data.retain_qa, data.retain_examples)


def _measured(evidence: Evidence, *, data: MuseData, options: _Options) -> SuiteOutput:
    """The suite's metrics."""
    measured: Metrics = {"forget_verbmem": _verbatim(evidence)}
    for name in QUESTIONS:
        answers = [first_answer(text) for text in _texts(evidence, f"{name}_qa")]
        measured[f"{name}_knowmem"] = metrics.rouge_f1(answers, _questions(data, name)[0]["answer"][:])
    memory = likelihood_metrics("verbmem", evidence.scored["verbmem"])
    measured |= {name: value for name, value in memory.items() if name.endswith(("memorization", "strength"))}
    for name in ("forget", "retain", "holdout", "request"):
        if name in evidence.scored:
            measured |= likelihood_metrics(name, evidence.scored[name])
    asked = evidence.answered["verbmem"]
    measured |= wording_metrics(asked, evidence.vocabulary)
    measured |= membership_metrics(evidence, options.attacks) | unseen_metrics(evidence)
    if options.published:
        measured |= published_metrics(evidence, data, options.corpus)
    warnings = [*wording_warnings(asked, evidence.vocabulary), *_longer_answers(evidence, options)]
    warnings += membership_warnings(measured, evidence.oracle, options.attacks)
    rows = {name: losses for name, losses in row_nll(evidence).items() if not name.startswith(_PUBLISHED)}
    return SuiteOutput(measured, rows, warnings)


def _verbatim(evidence: Evidence) -> metrics.MetricResult:
    """ROUGE-L F1 of continuations and references of the same number of tokens."""
    rows, lengths = evidence.answered["verbmem"], evidence.scored["verbmem"].lengths
    answers = [_decoded(evidence, ids[:length]) for ids, length in zip(rows.ids, lengths, strict=True)]
    return metrics.rouge_f1(answers, rows.expected)


def published_metrics(evidence: Evidence, data: MuseData, corpus: str) -> Metrics:
    """The published code's numbers in percent: `published_forget_verbmem` and the others.

    Its faults, which the metrics without `published_` do not have:
    - a continuation of 128 tokens is held against a reference cut to 128, a beginning-of-text token among them, and
      against one that is shorter as it is: a model that recites on has a precision below 1;
    - a question ends with "Answer: " and its space, which most tokenizers make a token that no text has there;
    - words are runs of a to z and digits: a name with accents falls apart, and other scripts have no words;
    - blanks before punctuation are removed before texts are compared, and from generated texts alone in questions;
    - the leak is set against the AUC of the paper's retrained 7B model, a constant, whatever model is measured;
    - its AUC takes holdout excerpts for the members, hence 1 - AUC here, in both leaks alike;
    - an excerpt of two tokens or fewer has no 40%, and its AUC cannot be computed; here the lowest one counts.
    """
    tokenizer = evidence.tokenizer
    assert tokenizer is not None
    verbatim: AnsweredRows = evidence.answered[f"{_PUBLISHED}verbmem"]
    compared = {
        "forget_verbmem": (
            _texts(evidence, f"{_PUBLISHED}verbmem", cleaned=True),
            [tokenizer.clean_up_tokenization(text) for text in verbatim.expected],
        )
    }
    for name in QUESTIONS:
        answers = [first_answer(text) for text in _texts(evidence, f"{_PUBLISHED}{name}_qa", cleaned=True)]
        compared[f"{name}_knowmem"] = (answers, _questions(data, name)[0]["answer"][:])
    measured = {
        f"{_PUBLISHED}{name}": metrics.mean(100 * metrics.rouge_f1s(*pair, published=True))
        for name, pair in compared.items()
    }
    scores = [metrics.min_k_scores(evidence.scored[name].logps) for name in ("forget", "holdout")]
    auc = metrics.membership_auc(*scores)
    return measured | {f"{_PUBLISHED}privleak": metrics.privleak(auc, 1 - PUBLISHED_AUC[corpus])}


def _texts(evidence: Evidence, name: str, *, cleaned: bool = False) -> list[str]:
    """A set's answers as text, with the whitespace around them; `cleaned` of blanks before punctuation."""
    texts = [_decoded(evidence, ids) for ids in evidence.answered[name].ids]
    tokenizer = evidence.tokenizer
    assert tokenizer is not None
    return [tokenizer.clean_up_tokenization(text) for text in texts] if cleaned else texts


def _decoded(evidence: Evidence, ids: Sequence[int]) -> str:
    assert evidence.tokenizer is not None
    return str(evidence.tokenizer.decode(list(ids), skip_special_tokens=True))


def _longer_answers(evidence: Evidence, options: _Options) -> list[str]:
    """Sets of questions whose expected answers do not fit into the length that answers may have."""
    warnings = []
    for name in QUESTIONS:
        longest = options.knowmem_tokens
        longer = float(np.mean(evidence.scored[f"{name}_qa"].lengths > longest))
        if longer >= _LONGER:
            warnings.append(
                f"{longer:.0%} of the expected {name} answers are longer than knowmem_tokens={longest}: "
                "the model is cut off, and their ROUGE comes out too low."
            )
    return warnings
