"""Questions that attacks put in place of a row's prompt, and what of the row's answer each does not give away."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from ..data.digests import prompt_digest
from ..data.neighbours import near_neighbours
from ..data.tokenized_row import prompt_ids
from ..metrics.segmentation import folded, is_unspaced, words, words_or_symbols
from .answer_scores import answer_scores, expected_answers, longest_answer
from .prompt_parts import Scaffold
from .rows import AttackedRows
from .target import Target

HINT = '{prompt} (Hint: the answer begins with "{hint}".)'
LETTERS = "{prompt} (Hint: the first words of the answer begin with the letters {hint}.)"
_HINTED_WORDS = 5
_BETWEEN_EXAMPLES = "\n\n"
_NOISE = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Question:
    """What is asked for a row.

    Attributes:
        prompt: token ids.
        expected: the row's own answer, without what the question gives away of it.
        given: the beginning of the answer that the question gives away in words; not counted in an answer either.
    """

    prompt: list[int]
    expected: str
    given: str = ""

    def counted(self, answer: str) -> str:
        """An answer without the given beginning."""
        said = answer.lstrip()
        repeats = self.given and folded(said[: len(self.given)]) == folded(self.given)
        return said[len(self.given) :] if repeats else answer


@dataclass(frozen=True)
class Questions:
    """The questions of attacked rows, all in the rows' order; None for a row of which nothing is left to be asked.

    Attributes:
        target: who is asked.
        rows: whose answers are wanted.
    """

    target: Target
    rows: AttackedRows

    @cached_property
    def prompts(self) -> list[list[int]]:
        """The rows' own."""
        return [prompt_ids(row) for row in self.rows.rows]

    @cached_property
    def answers(self) -> list[list[int]]:
        """The rows' own, without their ends."""
        return expected_answers(self.target, self.rows.rows)

    @cached_property
    def texts(self) -> list[str]:
        """The same as text."""
        return [self.target.text(ids) for ids in self.answers]

    @cached_property
    def scaffold(self) -> Scaffold:
        """Of the prompts, and of rows about other things that end in the same scaffold."""
        own = Scaffold.of(self.target.tokenizer, self.prompts)
        others = (prompt_ids(row) for row in (*self.rows.retain, *self.rows.unseen))
        alike = [prompt for prompt in others if prompt[len(prompt) - len(own.after) :] == own.after]
        return Scaffold.of(self.target.tokenizer, [*self.prompts, *alike])

    def plain(self) -> list[Question | None]:
        """The prompts as they are."""
        return [Question(*pair) for pair in zip(self.prompts, self.texts, strict=True)]

    def prefilled(self, tokens: int) -> list[Question | None]:
        """The prompts with the first tokens of the answers behind them; None where these are all words of it."""
        questions: list[Question | None] = []
        for prompt, answer in zip(self.prompts, self.answers, strict=True):
            rest = self.target.text(answer[tokens:])
            questions.append(Question([*prompt, *answer[:tokens]], rest) if words_or_symbols(rest) else None)
        return questions

    def written(self, template: str) -> list[Question | None]:
        """The prompts with what the user says in a template."""
        return [
            Question(self.scaffold.changed(prompt, lambda said: template.replace("{prompt}", said)), text)
            for prompt, text in zip(self.prompts, self.texts, strict=True)
        ]

    def paraphrased(self, number: int) -> list[Question | None]:
        """The user's own paraphrases of a number; the prompts of rows that have none of that number."""
        questions = self.plain()
        for place, others in self.rows.paraphrases.items():
            if number < len(others):
                questions[place] = Question(prompt_ids(others[number]), self.texts[place])
        return questions

    def with_word(self) -> list[Question | None]:
        """The prompts with the first word of the answer as a hint; None where that is all of it."""
        questions: list[Question | None] = []
        for prompt, text in zip(self.prompts, self.texts, strict=True):
            word = _first_word(text)
            rest = text.lstrip()[len(word) :]
            if not words_or_symbols(rest):
                questions.append(None)
                continue
            questions.append(Question(self._hinted(prompt, HINT, word), rest, word))
        return questions

    def with_letters(self) -> list[Question | None]:
        """The prompts with the first letters of the answer's first words as a hint; no letter is a word by itself."""
        questions: list[Question | None] = []
        for prompt, text in zip(self.prompts, self.texts, strict=True):
            letters = _letters(text)
            asked = self._hinted(prompt, LETTERS, ", ".join(letters)) if letters else prompt
            questions.append(Question(asked, text))
        return questions

    def noisy(self, share: float) -> list[Question | None]:
        """The prompts with a share of what the user says, at least a character, swapped, left out or replaced."""
        questions: list[Question | None] = []
        for prompt, text in zip(self.prompts, self.texts, strict=True):
            noise = partial(_noise, share=share, seed=f"{self.target.seed} {share} {prompt_digest(prompt)}")
            questions.append(Question(self.scaffold.changed(prompt, noise), text))
        return questions

    def after_examples(self, given: Sequence[int], pairs: int) -> list[Question | None]:
        """The prompts behind the given rows that are nearest to them, nearest last; None for the given rows.

        Args:
            given: places of rows that the attacker has whole.
            pairs: examples of a prompt, as many as the model has positions for.
        """
        questions = self.plain()
        pool = [self.target.text(self.rows.rows[place]["input_ids"]) for place in given]
        for place in range(len(questions)):
            if place in given:
                questions[place] = None
                continue
            nearest = _nearest(self.target.text(self.prompts[place]), pool)[:pairs]
            examples = [given[number] for number in nearest]
            questions[place] = Question(self._behind(examples, place), self.texts[place])
        return questions

    def leaks(self, questions: Sequence[Question | None], given: Sequence[int] = ()) -> NDArray[np.float64] | None:
        """Leak of each row, [N]; None where no row can be asked.

        It is 0 of a row of which nothing beyond what was given could come out, or for whose question the model has no
        positions; NaN of rows that the attacker has whole.

        Args:
            questions: of each row.
            given: places of rows that the attacker has whole.
        """
        positions = self._positions()
        asked = {
            place: question
            for place, question in enumerate(questions)
            if question is not None and len(question.prompt) + 1 < positions
        }
        if not asked:
            return None
        prompts = [question.prompt for question in asked.values()]
        drawn = self.target.answers(prompts, max_new_tokens=longest_answer(self.answers))
        counted = [
            question.counted(self.target.text(ids)) for question, ids in zip(asked.values(), drawn, strict=True)
        ]
        leaks = np.zeros(len(questions))
        leaks[list(asked)] = answer_scores(self.target, counted, [question.expected for question in asked.values()])
        leaks[list(given)] = np.nan
        return leaks

    def _hinted(self, prompt: list[int], template: str, hint: str) -> list[int]:
        return self.scaffold.changed(prompt, lambda said: template.replace("{hint}", hint).replace("{prompt}", said))

    def _behind(self, examples: list[int], place: int) -> list[int]:
        """A prompt behind examples, from the farthest to the nearest, the farthest left out where they do not fit."""
        prompt = self.prompts[place]
        first = self.target.tokenizer.bos_token_id
        opening = prompt[:1] if prompt[:1] == [first] else []
        room = self._positions() - len(prompt) - len(self.answers[place]) - 2
        shown: list[list[int]] = []
        for example in examples:
            ids = self._example(example, len(opening))
            room -= len(ids)
            if room < 0:
                break
            shown.append(ids)
        return [*opening, *(token for ids in reversed(shown) for token in ids), *prompt[len(opening) :]]

    def _example(self, place: int, opening: int) -> list[int]:
        """A row as an example before a prompt: a turn of a conversation with its end, or a passage of text."""
        prompt = self.prompts[place][opening:]
        if any(token in self.scaffold.special for token in prompt):
            return list(self.rows.rows[place]["input_ids"][opening:])
        between = self.target.tokenizer(_BETWEEN_EXAMPLES, add_special_tokens=False)["input_ids"]
        return [*prompt, *self.answers[place], *between]

    def _positions(self) -> float:
        positions = getattr(self.target.model.config.get_text_config(), "max_position_embeddings", None)
        return float("inf") if positions is None else positions


def _first_word(text: str) -> str:
    """The first word of an answer as it is written; in scripts without spaces the first two characters."""
    piece = next(iter(text.split()), "")
    parts = words(piece)
    if parts and is_unspaced(parts[0]):
        return piece[:2]
    return piece.rstrip(",.;:!?") or piece


def _letters(text: str) -> list[str]:
    """First letters of the first words that have more than one; none of scripts without spaces."""
    pieces = [piece for piece in text.split()[:_HINTED_WORDS] if len(piece) > 1 and piece[0].isalnum()]
    return [piece[0] for piece in pieces if not any(map(is_unspaced, words(piece)))]


def _nearest(prompt: str, pool: Sequence[str]) -> list[int]:
    """Numbers of the texts of a pool by the words that they have in common with a prompt, nearest first."""
    if not any(map(words, pool)):
        return list(range(len(pool)))
    rows = [{"text": text} for text in pool]
    ranked = near_neighbours([{"text": prompt}], rows, text=lambda row: str(row["text"]))
    return [int(number) for number in ranked.order]


def _noise(text: str, share: float, seed: str) -> str:
    """A text with a share of its characters changed, at least one."""
    characters, drawn = list(text), random.Random(seed)
    if not characters:
        return text
    count = max(1, round(share * len(characters)))
    # From the end, so that a character that is left out moves none of those that are still to be changed.
    for place in sorted(drawn.sample(range(len(characters)), count), reverse=True):
        kind, own = drawn.choice(("swap", "drop", "replace")), characters[place]
        if kind == "swap" and place + 1 < len(characters) and characters[place + 1] != own:
            characters[place : place + 2] = characters[place + 1], own
        elif kind == "replace":
            characters[place] = drawn.choice(_NOISE.replace(own, ""))
        else:
            del characters[place]
    return "".join(characters)
