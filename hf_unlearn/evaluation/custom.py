"""The suite for rows of one's own, which the named suites add to: forget, retain, in scope, out of scope, unseen."""

from collections.abc import Callable, Sequence
from typing import Any

from .components import (
    ATTACKS,
    CHEAP_ATTACKS,
    Metrics,
    likelihood_metrics,
    membership_metrics,
    membership_warnings,
    recall_metrics,
    row_nll,
    usable_attacks,
    wording_metrics,
    wording_warnings,
)
from .evidence import Evidence
from .result import EvaluationResult
from .suite import Measured, Suite, baseline, chosen, present

HEADLINE = (
    "forget_accuracy",
    "in_scope_accuracy",
    "forget_nll",
    "retain_nll",
    "retain_accuracy",
    "out_of_scope_accuracy",
    "forget_extraction_strength",
    "min_k_auc",
    "min_k_privleak",
    "answer_perplexity",
    "broken_rate",
)


def custom(
    *,
    forget: Any,
    retain: Any,
    in_scope: Any = None,
    out_of_scope: Any = None,
    holdout: Any = None,
    oracle: EvaluationResult | str | None = None,
    before: EvaluationResult | str | None = None,
    attacks: Sequence[str] = CHEAP_ATTACKS,
    max_new_tokens: int = 64,
    max_length: int | None = None,
    template: str | None = None,
) -> Suite:
    """What was forgotten and what was kept, on rows of one's own.

    Metrics, each of a set by its name: nll, probability, exact memorisation and extraction strength of all sets;
    accuracy and ROUGE recall of the answers to all but holdout; wording of the answers to forget prompts; membership
    attacks of forget against holdout rows.

    Args:
        forget: rows that the model is to forget, in any accepted format.
        retain: rows that it is to keep.
        in_scope: paraphrases of forget rows: the same asked in words that were not trained on.
        out_of_scope: neighbours of the forget rows that are to be kept (`hf_unlearn.data.scope`).
        holdout: rows like the forget rows that no model has seen; without them there is no membership attack.
        oracle: result of this suite on the model retrained without the forget rows.
        before: result of this suite on the model before unlearning.
        attacks: among `components.ATTACKS`; `reference` needs the oracle, `gradient_norm` a backward pass a row.
        max_new_tokens: longest generated answer.
        max_length: longest row in tokens, the rest cut; None for no limit.
        template: of prompt/completion strings, as in UnlearningConfig.

    Raises:
        ValueError: a set or a result to compare with is missing, empty or of another suite.
    """
    sets = {
        "forget": forget,
        "retain": retain,
        "in_scope": in_scope,
        "out_of_scope": out_of_scope,
        "holdout": holdout,
    }
    options = dict(max_new_tokens=max_new_tokens, max_length=max_length, template=template)
    return row_suite("custom", sets, HEADLINE, attacks, oracle, before, options, {}, _nothing_more)


def _nothing_more(evidence: Evidence) -> Measured:
    return Measured({})


def row_suite(
    name: str,
    sets: dict[str, Any],
    headline: tuple[str, ...],
    attacks: Sequence[str],
    oracle: EvaluationResult | str | None,
    before: EvaluationResult | str | None,
    options: dict[str, Any],
    settings: dict[str, Any],
    more: Callable[[Evidence], Measured],
) -> Suite:
    """A suite over the sets of `custom`, with metrics of its own added.

    Args:
        name: of the suite.
        sets: by name, None for one that was not given.
        headline: metrics that a table shows first.
        attacks: membership attacks.
        oracle, before: results to compare with.
        options: of the suite: max_new_tokens, max_length, template.
        settings: what else makes two results comparable.
        more: metrics of the suite's own.
    """
    given = present(sets, ("forget", "retain"), name)
    retrained = baseline(oracle, name, "oracle")
    used = usable_attacks(chosen(attacks, ATTACKS, "attacks"), given, retrained)

    def measure(evidence: Evidence) -> Measured:
        found: Metrics = {}
        for each, rows in evidence.scored.items():
            found |= likelihood_metrics(each, rows)
        for each, answers in evidence.answered.items():
            found |= recall_metrics(each, answers)
        asked = evidence.answered["forget"]
        found |= wording_metrics(asked, evidence.vocabulary)
        if used:
            found |= membership_metrics(evidence, used)
        own = more(evidence)
        warnings = [*wording_warnings(asked, evidence.vocabulary), *own.warnings]
        warnings += membership_warnings(evidence.oracle, used)
        return Measured(found | own.metrics, row_nll(evidence) | own.row_scores, warnings)

    return Suite(
        name=name,
        sets=given,
        measure=measure,
        answered=tuple(each for each in given if each != "holdout"),
        fluent=("forget",),
        gradient_norms=("forget", "holdout") if "gradient_norm" in used else (),
        vocabulary_statistics="min_k_plus_plus" in used,
        headline=headline,
        before=baseline(before, name, "before"),
        oracle=retrained,
        settings=settings,
        **options,
    )
