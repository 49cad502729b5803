"""Retain rows from the model itself, where a user has prompts to keep and no answers to them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..data.formats import detect_format, to_row
from ..data.neighbours import Rows, near_neighbours, prompt_texts
from ..data.prepare import RowOptions
from ..data.provenance import from_model
from ..data.tokenized_row import answer_ids, prompt_ids
from ..errors import input_error, require_range
from ..metrics.overlap import rouge_recalls
from ..metrics.segmentation import words_or_symbols
from ..metrics.text import is_empty, is_repetitive
from .judges.judge import Judge
from .questioner import Questioner
from .stop_rule import StopRule

logger = logging.get_logger(__name__)

_SHARED = 0.9  # of a forget answer's words, in order; less is shared by sentences of one form, too
_CUT_OFF = "did not end"
# Why an answer is left out, in the order in which it is asked.
_REASONS = (
    *(_CUT_OFF, "were empty", "repeated themselves"),
    *("hold an answer that is to be forgotten", "show the behaviour"),
)


def generate_retain_rows(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    *,
    forget: Rows,
    scope: Rows | None = None,
    judge: Judge | None = None,
    max_new_tokens: int = 128,
    batch_size: int = 32,
    template: str | None = None,
    max_length: int | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> datasets.Dataset:
    """Rows to keep: a model's greedy answers to prompts outside of what is to be forgotten.

    They hold the model to what it says, right or wrong; retain rows of one's own are the better ones. The result
    follows from model and prompts alone. Left out, and said how many: answers that do not end within `max_new_tokens`,
    are empty or repeat themselves, hold nine tenths of the answer of the forget row that is nearest in words (ROUGE-L
    recall), or that the judge flags.

    Args:
        model: before unlearning, whole, on its device.
        tokenizer: of the model, with a padding and an end-of-text token.
        prompts: texts or lists of messages.
        forget: the rows to forget, as text.
        scope: other rows in the scope of the request, such as their paraphrases, as text.
        judge: of answers, where a behaviour is to be forgotten.
        max_new_tokens: longest answer.
        batch_size: prompts of a forward.
        template, max_length, chat_template_kwargs: how rows become tokens, as in UnlearningConfig.

    Returns:
        Columns `prompt` and `completion`, marked as generated: a run's record and card say so.

    Raises:
        ValueError: a prompt of a forget row, or one in scope (letter case, punctuation and spaces aside); no prompt;
            or no answer that is left.
    """
    require_range("max_new_tokens", max_new_tokens, at_least=1, whole=True)
    _require_outside(prompts, forget, scope)
    options = RowOptions(tokenizer, max_length, template, None, chat_template_kwargs=chat_template_kwargs)
    asked = [_row(prompt, " .") for prompt in prompts]
    tokens = options.tokenize(asked, "eval")
    questioner = Questioner(tokenizer, options.answer_ends(asked, tokens), batch_size)
    stop = StopRule.of(model, tokenizer, questioner.ends)
    said = questioner.answers(model, [prompt_ids(row) for row in tokens], max_new_tokens=max_new_tokens, ended=True)
    answers = [stop.strip(ids) for ids in said]
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in answers]
    cut = [len(answer) == len(whole) for answer, whole in zip(answers, said, strict=True)]
    reasons = _left_out(asked, texts, cut, forget, judge)
    kept = [i for i, reason in enumerate(reasons) if reason is None]
    _tell(reasons, max_new_tokens)
    rows = [_written(prompts[i], texts[i], answers[i], options, stop) for i in kept]
    return from_model(datasets.Dataset.from_list(rows))


def _require_outside(prompts: Sequence[Any], forget: Rows, scope: Rows | None) -> None:
    if not len(prompts):
        raise input_error(
            expected="at least one prompt",
            got="none",
            why="the model is asked them for the rows to keep",
            fix="check the file and any filter applied to it",
        )
    given = _words_of([_row(prompt, " .") for prompt in prompts], "retain")
    for rows, what in ((forget, "forget"), (scope, "in-scope")):
        own = set() if rows is None else {*_words_of(rows, "forget")} - {()}
        shared = [place for place, prompt in enumerate(given) if prompt in own]
        if shared:
            raise input_error(
                expected="prompts outside of what is to be forgotten",
                got=f"{len(shared)} prompts of {what} rows, the first of them at index {shared[0]}",
                why="the model's answers to them would be kept",
                fix="remove them from the prompts",
            )


def _words_of(rows: Rows, set_name: str) -> list[tuple[str, ...]]:
    return [tuple(words_or_symbols(text)) for text in prompt_texts(rows, set_name)]


def _left_out(
    asked: list[dict[str, Any]], texts: list[str], cut: list[bool], forget: Rows, judge: Judge | None
) -> list[str | None]:
    """Why each answer is left out; None for those that are kept."""
    reasons: list[str | None] = [
        _REASONS[0] if long else _REASONS[1] if is_empty(text) else _REASONS[2] if is_repetitive(text) else None
        for text, long in zip(texts, cut, strict=True)
    ]
    places = [i for i, reason in enumerate(reasons) if reason is None]
    if not places:
        return reasons
    near = near_neighbours(forget, [_row(asked[i]["prompt"], texts[i]) for i in places]).nearest
    row_format = detect_format(list(forget[0]), "forget")
    completions = [to_row(forget[int(row)], row_format, "forget", index=int(row)).completion for row in near]
    own = [text if isinstance(text, str) else str(text[-1].get("content") or "") for text in completions]
    said = [texts[i].strip() for i in places]
    flagged = [False] * len(places) if judge is None else judge(said, own)
    for place, recall, flag in zip(places, rouge_recalls(said, own), flagged, strict=True):
        reasons[place] = _REASONS[3] if recall >= _SHARED else _REASONS[4] if flag else None
    return reasons


def _tell(reasons: list[str | None], max_new_tokens: int) -> None:
    """Say how many answers were left out; raise where none is left."""
    counts = Counter(reason for reason in reasons if reason is not None)
    listed = ", ".join(f"{counts[reason]} {reason}" for reason in _REASONS if counts[reason])
    if sum(counts.values()) == len(reasons):
        raise input_error(
            expected="prompts that the model answers",
            got=f"{len(reasons)} answers, of which {listed}",
            why="there would be nothing to keep",
            fix=f"a larger max_new_tokens than {max_new_tokens}, or the template that the model was trained with"
            if counts[_CUT_OFF]
            else "other prompts, farther from what is to be forgotten",
        )
    if counts:
        logger.warning(f"Generated retain rows: {len(reasons) - sum(counts.values())}; left out: {listed}.")


def _row(prompt: Any, text: str) -> dict[str, Any]:
    completion = text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
    return {"prompt": prompt, "completion": completion}


def _written(prompt: Any, text: str, ids: list[int], options: RowOptions, stop: StopRule) -> dict[str, Any]:
    """The row whose tokens are those of the answer: some tokenizers decode a first word without its space."""
    rows = [_row(prompt, text), _row(prompt, f" {text}")]
    tokens = options.tokenize(rows, "eval")
    same = (row for row, tokenized in zip(rows, tokens, strict=True) if stop.strip(answer_ids(tokenized)) == ids)
    return next(same, rows[0])
