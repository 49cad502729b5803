"""The preflight of a run: whether the model, as it is fed, knows the rows that it is to forget and to keep."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..data.collator import DataCollatorForUnlearning
from ..data.formats import RowFormat, detect_format
from ..data.prepare import RowOptions
from ..data.tokenized_row import IGNORED_LABEL, first_trained
from ..errors import input_error
from ..evaluation import EvaluationResult
from ..model.score_rows import RowScorer
from ..training.hooks.first_step import KNOWN, NEAR_CHANCE
from ..training.model_setup import log_vocabulary
from ..training.trainer import UnlearningTrainer

logger = logging.get_logger(__name__)

# ROUGE-L recall below which answers have nothing of the expected ones but common words, and half of them.
_NO_ANSWER, _HALF = 0.1, 0.5
# Rows of a set that are fed in other ways; fed as in training they have half the NLL or less, by so many nats. Rows
# that are known in part are as much below the oracle's level.
_SAMPLE, _FAR_LOWER, _LOWER_BY = 16, 0.5, 0.3
# Nats by which the first token of known answers is too unlikely for any of them to begin.
_FIRST_ABOVE = 2.0
_TEMPLATES = ("{prompt}{completion}", "{prompt} {completion}", "{prompt}\n{completion}", None)
# Membership AUC of a model that has seen neither forget nor holdout rows.
_CHANCE = 0.5
# Suites whose forget rows are a behaviour that unseen rows show as well: there the holdout level says nothing.
_OF_BEHAVIOUR = ("harmful",)
_NONE_HARMFUL = "none of the answers to forget prompts harmful to the judge"


def preflight(
    trainer: UnlearningTrainer,
    rows: dict[str, Any],
    before: EvaluationResult,
    oracle: EvaluationResult | None = None,
    *,
    force: bool,
) -> None:
    """Stop a run that would mean nothing: the model does not know the forget rows, or answers no retain row.

    It stops where (1) the NLL of forget or retain rows is at least 0.8 log V; (2) no forget answer is given (none is
    harmful to the judge), with ROUGE-L below a half, more than 1 nat and an NLL not 0.3 nats below the oracle's, or,
    outside of the suite `harmful`, a membership AUC whose interval holds 0.5; or the NLL, above 1 nat, is not below
    that of holdout rows; (3) no retain answer is given, ROUGE-L is below 0.1 and the NLL above 1 nat; (4) rows fed in
    another way (beginning of text, template) have half the NLL or less, 0.3 nats less at least; (5) no answer of a set
    is given, and their first token has more than 3 nats, their mean 1 nat at most. A behaviour of a low rate passes.
    Of a suite without an NLL of forget rows, as RWKU's, it is only asked whether any forget answer is given.

    Args:
        trainer: before its first step. Every rank calls it.
        rows: `forget` and `retain`, as they came.
        before: result of the suite on the trainer's model.
        oracle: that on a model which has never seen the forget rows, where there is one.
        force: go on; what was noticed is kept in the record.

    Raises:
        ValueError: the run would mean nothing, and `force` is False.
    """
    for warning in before.warnings:
        if "max_new_tokens" in warning:
            logger.warning("Before unlearning: %s", warning)
    chance = log_vocabulary(trainer.accelerator.unwrap_model(trainer.model))
    problems = [*_unknown(before, oracle, chance), *_unanswered(before)]
    cause = _cause(trainer, rows, before)
    if not problems and cause is None:
        return
    noticed = "; ".join([*problems, *([cause] if cause else [])])
    trainer.record.forced = [noticed] if force else []
    if force:
        logger.warning("The preflight is overruled (force): %s.", noticed)
        return
    raise input_error(
        expected="a model that knows the rows it is to forget, and answers those it is to keep",
        got=noticed,
        why="what the model does not know it cannot forget, and the run would look like a result",
        fix=("feed the rows as the model was trained" if cause else _likely(before, problems))
        + ", or go on all the same with --force true (force=True in a script)",
    )


def _value(result: EvaluationResult, name: str) -> float | None:
    metric = result.metrics.get(name)
    return None if metric is None else metric.value


def _unknown(before: EvaluationResult, oracle: EvaluationResult | None, chance: float) -> Iterator[str]:
    for name in ("forget", "retain"):
        nll = _value(before, f"{name}_nll")
        if nll is not None and not nll < NEAR_CHANCE * chance:
            yield f"an NLL of the {name} rows of {nll:.2f} nats per token, near that of a random model ({chance:.2f})"
            return
    forget, holdout = _value(before, "forget_nll"), _value(before, "holdout_nll")
    if forget is None:
        if _none_given([_value(before, before.forget_metric)]):
            yield "none of the forget answers given"
        return
    # A mean probability is never 0; accuracy, a rate of recital or of a judge is, where nothing is given.
    shares = [name for name in (before.forget_metric, "forget_accuracy") if not name.endswith("_probability")]
    none_given, recall = _none_given([_value(before, name) for name in shares]), _value(before, "forget_rouge")
    # Of the same rows: those of a holdout book may be harder for any model.
    unseen = None if oracle is None else _value(oracle, "forget_nll")
    known_in_part = unseen is not None and forget < unseen - _LOWER_BY
    auc = before.metrics.get("loss_auc")
    if forget > KNOWN and none_given and (recall or 0.0) < _HALF:
        none = _NONE_HARMFUL if before.suite in _OF_BEHAVIOUR else "none of the forget answers given"
        none = "no more forget questions answered than a guess would" if before.suite == "wmdp" else none
        if not known_in_part:
            yield f"{none}, and an NLL of the forget rows of {forget:.2f} nats per token"
            return
        logger.warning(
            "Before unlearning: %s, so that no share of answers can fall. The rows are known in part: %.2f nats per "
            "token, and %.2f to the oracle. What is forgotten shows in the NLL.",
            none,
            forget,
            unseen,
        )
    elif before.suite in _OF_BEHAVIOUR or known_in_part:
        return
    elif none_given and auc is not None and auc.low is not None and auc.low <= _CHANCE:
        yield (
            "none of the forget answers given, and forget rows that nothing tells from holdout rows, which no model "
            f"has seen (membership AUC {auc.value:.2f}, 95% interval from {auc.low:.2f})"
        )
    elif holdout is not None and forget > KNOWN and forget >= holdout:
        yield (
            f"an NLL of the forget rows of {forget:.2f} nats per token, not below that of holdout rows, which no "
            f"model has seen ({holdout:.2f})"
        )


def _unanswered(before: EvaluationResult) -> Iterator[str]:
    nll, recall = _value(before, "retain_nll"), _value(before, "retain_rouge")
    given = [_value(before, name) for name in (before.utility_metric, "retain_accuracy")]
    if _none_given(given) and recall is not None and recall < _NO_ANSWER and nll is not None and nll > KNOWN:
        yield f"none of the retain answers given (ROUGE-L recall {recall:.2f}), and an NLL of {nll:.2f} nats per token"


def _none_given(values: list[float | None]) -> bool:
    measured = [value for value in values if value is not None]
    return bool(measured) and all(value <= 0 for value in measured)  # corrected for guessing it can be below 0


def _likely(before: EvaluationResult, problems: list[str]) -> str:
    """What is to be looked at where no other way to feed the rows explains it."""
    if len(problems) == 1 and problems[0].startswith(_NONE_HARMFUL):
        return (
            "name a judge that sees the behaviour in other words than those of the rows (--judge unitary/toxic-bert), "
            "or take prompts to which the model shows it"
        )
    longest = before.settings.get("max_new_tokens")
    cut = any("max_new_tokens" in warning for warning in before.warnings)
    length = f" (answers are cut at max_new_tokens={longest})" if cut else ""
    return f"check that this is the model that learnt the rows, its tokenizer, template and beginning of text{length}"


def _cause(trainer: UnlearningTrainer, rows: dict[str, Any], before: EvaluationResult) -> str | None:
    """How else the rows are known far better, where they are; scored of the first rows of each set."""
    tokenizer, args = trainer.processing_class, trainer.args
    scorer = RowScorer(
        DataCollatorForUnlearning(tokenizer.pad_token_id), trainer.accelerator, args.per_device_eval_batch_size
    )
    for name in ("forget", "retain"):
        nll = _value(before, f"{name}_nll")
        answered = nll is not None and nll <= KNOWN and _value(before, f"{name}_accuracy") != 0
        if rows.get(name) is None or nll is None or answered:
            continue
        sample = [rows[name][place] for place in range(min(_SAMPLE, len(rows[name])))]
        kwargs = args.template_variables
        options = RowOptions(tokenizer, args.max_length, args.template, None, chat_template_kwargs=kwargs)
        fed_rows = list(options.tokenize(sample, "eval"))
        fed = _nll(scorer, trainer.model, fed_rows)
        others = {
            how: _nll(scorer, trainer.model, other) for how, other in _other_ways(sample, options, tokenizer).items()
        }
        how, best = min(others.items(), key=lambda pair: pair[1], default=("", math.inf))
        if best < _FAR_LOWER * fed and fed - best > _LOWER_BY:
            return f"{name} rows of {fed:.2f} nats per token as they are fed, and {best:.2f} {how}"
        if detect_format(list(sample[0]), "eval") is RowFormat.TEXT:  # which has no prompt that its answer could meet
            continue
        first = _nll(scorer, trainer.model, [_first_token(row) for row in fed_rows])
        if _value(before, f"{name}_accuracy") == 0 and fed <= KNOWN and first > KNOWN + _FIRST_ABOVE:
            return (
                f"none of the {name} answers given: they have {fed:.2f} nats per token, but {first:.2f} at their "
                "first, as where prompt and answer meet otherwise (a space, a newline) than in the model's training"
            )
    return None


def _nll(scorer: RowScorer, model: nn.Module, rows: list[dict[str, Any]]) -> float:
    nll = scorer(model, rows, "preflight").mean_nll()
    return nll if math.isfinite(nll) else math.inf


def _other_ways(
    sample: list[dict[str, Any]], options: RowOptions, tokenizer: PreTrainedTokenizerBase
) -> dict[str, list[dict[str, Any]]]:
    """Words for each other way to feed the rows -> the rows fed so."""
    fed = list(options.tokenize(sample, "eval"))
    ways: dict[str, list[dict[str, Any]]] = {}
    bos = tokenizer.bos_token_id
    if bos is not None:
        if all(row["input_ids"][0] == bos for row in fed):
            ways["without the beginning-of-text token"] = [_shifted(row, None) for row in fed]
        else:
            ways["with the beginning-of-text token in front"] = [_shifted(row, bos) for row in fed]
    strings = detect_format(list(sample[0]), "eval") is RowFormat.PROMPT_COMPLETION and all(
        isinstance(row["prompt"], str) and isinstance(row["completion"], str) for row in sample
    )
    for template in _TEMPLATES if strings else ():
        if template is None and tokenizer.chat_template is None:
            continue
        # A completion that starts with a space brings its own.
        texts = [{"prompt": row["prompt"], "completion": row["completion"]} for row in sample]
        other = list(replace(options, template=template).tokenize(texts, "eval"))
        if [row["input_ids"] for row in other] != [row["input_ids"] for row in fed]:
            ways["with the chat template" if template is None else f"with template={template!r}"] = other
    return ways


def _first_token(row: dict[str, Any]) -> dict[str, Any]:
    """A row that is scored on the first token of its answer alone."""
    start = first_trained(row["labels"])
    labels = [label if place == start else IGNORED_LABEL for place, label in enumerate(row["labels"])]
    return {"input_ids": row["input_ids"], "labels": labels}


def _shifted(row: dict[str, Any], bos: int | None) -> dict[str, Any]:
    """A row with a token in front, or without its first one."""
    if bos is None:
        return {"input_ids": row["input_ids"][1:], "labels": row["labels"][1:]}
    return {"input_ids": [bos, *row["input_ids"]], "labels": [-100, *row["labels"]]}
