"""RWKU's rows as token ids: its prompts in the model's chat template, with one beginning of text or as published."""

from collections.abc import Sequence

import datasets
from transformers import PreTrainedTokenizerBase

from .tokenized_row import IGNORED_LABEL, TokenizedRow

_BLANK = "Please complete the blank in the following question."
_BRIEF = "Please briefly answer the following question."


def probe_rows(
    tokenizer: PreTrainedTokenizerBase, name: str, probes: datasets.Dataset, *, published: bool = False
) -> list[TokenizedRow]:
    """Probes as rows whose answers are scored.

    Args:
        tokenizer: with a chat template or, for a base model, without.
        name: of the configuration, which says how its probes are asked.
        probes: `query`, `answer`, and `type` of adversarial ones.
        published: leave a second beginning of text in, which the published code puts before a template's own.
    """
    forms = probes["type"][:] if "type" in probes.column_names else [""] * len(probes)
    rows = []
    for query, answer, form in zip(probes["query"], probes["answer"], forms, strict=True):
        asked, ending = _question(name, query, form)
        prompt = prompt_ids(tokenizer, asked, ending, published=published)
        rows.append(_row(prompt, tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]))
    return rows


def instruction_rows(tokenizer: PreTrainedTokenizerBase, instructions: Sequence[str]) -> list[TokenizedRow]:
    """Instructions to answer freely: nothing but the end of text is expected, and nobody scores that."""
    asked = [prompt_ids(tokenizer, f"Instruction: {instruction}\n", "") for instruction in instructions]
    return [_row(prompt, [int(tokenizer.eos_token_id)]) for prompt in asked]


def prompt_ids(tokenizer: PreTrainedTokenizerBase, asked: str, ending: str, *, published: bool = False) -> list[int]:
    """Token ids of a user's turn with what the answer begins with."""
    return text_ids(tokenizer, prompt_text(tokenizer, asked, ending), published=published)


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str, *, published: bool = False) -> list[int]:
    """Token ids of a prompt with one beginning of text and no end; as the tokenizer makes them where published."""
    ids = list(tokenizer(text, verbose=False)["input_ids"])
    if published:
        return ids
    if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]
    return ids[second_beginnings(tokenizer, ids) :]


def prompt_text(tokenizer: PreTrainedTokenizerBase, asked: str, ending: str) -> str:
    """A user's turn in the chat template, if any, with what the answer begins with."""
    if tokenizer.chat_template is None:
        return f"{asked}{ending}"
    turns = [{"role": "user", "content": asked}]
    return f"{tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)}{ending}"


def second_beginnings(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> int:
    """How many tokens to leave out at the front, so that one beginning of text is left: 1 or 0."""
    first = tokenizer.bos_token_id
    return int(first is not None and list(ids[:2]) == [first, first])


def _question(name: str, query: str, form: str) -> tuple[str, str]:
    """What the user says, and what the answer begins with."""
    if form == "affirmative_suffix":  # the query itself begins the answer
        return f"{_BRIEF}\nQuestion: {query}", ""
    if form == "in_context_learning":  # the query brings its questions with answers
        return f"{_BRIEF}\n{query}\n", "Answer:"
    return f"{_BLANK if name.endswith('level1') else _BRIEF}\nQuestion: {query}\n", "Answer:"


def _row(prompt: Sequence[int], answer: Sequence[int]) -> TokenizedRow:
    return {"input_ids": [*prompt, *answer], "labels": [*[IGNORED_LABEL] * len(prompt), *answer]}
