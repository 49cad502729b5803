"""MUSE's rows as token ids: questions with examples, excerpts without an end, and prompts as its code has them."""

from collections.abc import Iterable, Sequence

import datasets
from transformers import PreTrainedTokenizerBase

from .tokenized_row import IGNORED_LABEL, TokenizedRow

# A model that goes on with another question has ended its answer, in this order.
ENDS = ("\n\n", "\nQuestion", "Question:")


def excerpt_rows(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> list[TokenizedRow]:
    """Texts as rows of which every token but the first is scored. An excerpt does not end: no end of text is added."""
    return [_row(ids[:1], ids[1:]) for ids in (_ids(tokenizer, text) for text in texts)]


def continuation_rows(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], continuations: Sequence[str], count: int | None
) -> list[TokenizedRow]:
    """Prompts, each with at most the first `count` tokens (None: all) of its continuation, a space between them."""
    rows = []
    for prompt, text in zip(prompts, continuations, strict=True):
        glue = "" if prompt[-1:].isspace() or text[:1].isspace() else " "
        before, whole = _ids(tokenizer, prompt), _ids(tokenizer, f"{prompt}{glue}{text}")
        if whole[: len(before)] == before:
            after = whole[len(before) :]
        else:  # the prompt's last word is tokenised otherwise in the whole text
            after = tokenizer(f"{glue}{text}", add_special_tokens=False)["input_ids"]
        rows.append(_row(before, after[:count]))
    return rows


def question_rows(
    tokenizer: PreTrainedTokenizerBase, questions: datasets.Dataset, examples: datasets.Dataset
) -> list[TokenizedRow]:
    """Questions behind the examples, "Question: ...\\nAnswer:", with the space as part of the answer."""
    prompts = [prompt.rstrip(" ") for prompt in question_prompts(questions, examples)]
    answers = [f" {answer}" for answer in questions["answer"]]
    return continuation_rows(tokenizer, prompts, answers, max(len(_ids(tokenizer, answer)) for answer in answers))


def question_prompts(questions: datasets.Dataset, examples: datasets.Dataset) -> list[str]:
    """The prompts of the published code, each with the space behind "Answer:"."""
    shown = zip(examples["question"], examples["answer"], strict=True)
    before = "".join(f"Question: {question}\nAnswer: {answer}\n\n" for question, answer in shown)
    return [f"{before}Question: {question}\nAnswer: " for question in questions["question"]]


def first_answer(text: str) -> str:
    """What a model said up to where it asks another question."""
    for end in ENDS:
        text = text.split(end)[0]
    return text


def published_rows(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], answers: Sequence[str], count: int | None = None
) -> list[TokenizedRow]:
    """Prompts and answers, each tokenised on its own and with special tokens, as the published code does.

    Args:
        tokenizer: of the model.
        prompts: texts.
        answers: texts.
        count: the first so many tokens of an answer, a beginning-of-text token among them; None for all.
    """
    both = zip(tokenizer(list(prompts))["input_ids"], tokenizer(list(answers))["input_ids"], strict=True)
    return [_row(prompt, answer[:count]) for prompt, answer in both]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text, without the end of text that some tokenizers add."""
    ids = list(tokenizer(text, verbose=False)["input_ids"])
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids


def _row(prompt: Sequence[int], answer: Sequence[int]) -> TokenizedRow:
    return {"input_ids": [*prompt, *answer], "labels": [*[IGNORED_LABEL] * len(prompt), *answer]}
