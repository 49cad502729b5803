"""Questions with four options as token rows: a letter behind the options, or a text behind the question alone."""

from collections.abc import Sequence

import datasets
from transformers import PreTrainedTokenizerBase

from ..errors import input_error
from .muse_tokens import continuation_rows, question_rows
from .tokenization import tokenize_rows
from .tokenized_row import IGNORED_LABEL, TokenizedRow, trained_ids
from .wmdp import OPTIONS, stands_alone

LETTERS = "ABCD"
# What the published prompts call WMDP's domains; MMLU's subjects are called by their names.
_TOPICS = {"bio": "biology", "chem": "chemistry", "cyber": "cybersecurity"}


def choice_prompts(questions: datasets.Dataset, order: int = 0) -> list[str]:
    """The prompts of lm-evaluation-harness's `wmdp_bio`, `wmdp_cyber`, `wmdp_chem` and `mmlu_*`, without examples.

    Args:
        questions: columns subject, question, choices.
        order: by how many letters the options are moved on, the last ones to the front: option k is at k + order.
    """
    prompts = []
    for row in questions:
        topic = _TOPICS.get(row["subject"], row["subject"].replace("_", " "))
        shown = [row["choices"][(place - order) % OPTIONS] for place in range(OPTIONS)]
        options = "".join(f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, shown, strict=True))
        prompts.append(
            f"The following are multiple choice questions (with answers) about {topic}.\n\n"
            f"{row['question'].strip()}\n{options}Answer:"
        )
    return prompts


def letter_rows(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_length: int | None = None
) -> list[TokenizedRow]:
    """Each prompt with each of the four letters behind it, a row each; `max_length` cuts prompts from the left."""
    asked = [prompt for prompt in prompts for _ in LETTERS]
    letters = [f" {letter}" for _ in prompts for letter in LETTERS]
    return [cut_left(row, max_length) for row in continuation_rows(tokenizer, asked, letters, 8)]


def letter_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of " A", " B", " C", " D" behind "Answer:"; none where a letter is not one token."""
    letters = [trained_ids(row["labels"]) for row in letter_rows(tokenizer, ["Answer:"])]
    return [token for tokens in letters for token in tokens] if all(len(tokens) == 1 for tokens in letters) else []


def one_row_each(rows: list[TokenizedRow], letters: Sequence[int]) -> list[TokenizedRow]:
    """Of each question the first letter's row, where log p of all letters can be read off it; else all rows.

    Args:
        rows: of the four letters of each question.
        letters: their tokens, as `letter_tokens` has them.
    """
    answers = [trained_ids(row["labels"]) for row in rows]
    return rows[::OPTIONS] if answers == [[letter] for letter in letters] * (len(rows) // OPTIONS) else rows


def published_letter_rows(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_length: int | None = None
) -> list[TokenizedRow]:
    """The same by the harness: what a prompt with its letter has behind as many tokens as the prompt alone has."""
    rows = [row for prompt in prompts for row in published_continuations(tokenizer, prompt, LETTERS)]
    return [cut_left(row, max_length) for row in rows]


def published_continuations(
    tokenizer: PreTrainedTokenizerBase, prompt: str, continuations: Sequence[str]
) -> list[TokenizedRow]:
    """A prompt with each continuation, which is what both have behind as many tokens as the prompt alone has."""
    before = list(tokenizer(prompt, verbose=False)["input_ids"])
    rows: list[TokenizedRow] = []
    for text in continuations:
        after = list(tokenizer(f"{prompt} {text}", verbose=False)["input_ids"])[len(before) :]
        rows.append({"input_ids": [*before, *after], "labels": [*[IGNORED_LABEL] * len(before), *after]})
    return rows


def cut_left(row: TokenizedRow, max_length: int | None) -> TokenizedRow:
    """A row's last `max_length` tokens: the question's beginning goes, its options and the answer stay."""
    return row if max_length is None else {name: values[-max_length:] for name, values in row.items()}


def open_questions(questions: datasets.Dataset) -> datasets.Dataset:
    """The questions that stand alone: `question`, `answer` (the right option's text) and `wrong` (the others)."""
    rows = [row for row in questions if stands_alone(row["question"], row["choices"])]
    return datasets.Dataset.from_dict(
        {
            "question": [row["question"].strip() for row in rows],
            "answer": [row["choices"][row["answer"]].strip() for row in rows],
            "wrong": [
                [choice.strip() for place, choice in enumerate(row["choices"]) if place != row["answer"]]
                for row in rows
            ],
        }
    )


def wrong_answers(asked: datasets.Dataset) -> datasets.Dataset:
    """A row for each wrong option: `question` and `answer`."""
    pairs = [(row["question"], wrong) for row in asked for wrong in row["wrong"]]
    return datasets.Dataset.from_dict(
        {"question": [question for question, _ in pairs], "answer": [wrong for _, wrong in pairs]}
    )


def open_rows(
    tokenizer: PreTrainedTokenizerBase,
    asked: datasets.Dataset,
    max_length: int | None = None,
    *,
    chat_template: bool = False,
) -> list[TokenizedRow]:
    """Questions with answers behind them; in plain text without an end, as an option need not be all of an answer.

    Args:
        tokenizer: of the model.
        asked: columns `question` and `answer`.
        max_length: cuts questions from the left.
        chat_template: whether a question is a user's turn by the tokenizer's chat template and the answer the start of
            the assistant's; otherwise "Question: ...\\nAnswer:" and " " with the answer.

    Raises:
        ValueError: the tokenizer has no chat template, and one is asked for.
    """
    if not chat_template:
        examples = datasets.Dataset.from_dict({"question": [], "answer": []})
        return [cut_left(row, max_length) for row in question_rows(tokenizer, asked, examples)]
    if tokenizer.chat_template is None:
        raise input_error(
            expected="a tokenizer with a chat template",
            got="one without, and chat_template",
            why="nothing would write the questions as turns",
            fix="set tokenizer.chat_template, or leave chat_template out",
        )
    turns = [
        {
            "prompt": [{"role": "user", "content": row["question"]}],
            "completion": [{"role": "assistant", "content": row["answer"]}],
        }
        for row in asked
    ]
    rows = tokenize_rows(turns, tokenizer, set_name="eval", max_length=None)
    return [cut_left({name: row[name] for name in ("input_ids", "labels")}, max_length) for row in rows]
