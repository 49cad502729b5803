"""Comments on the games, labelled harmful or not: rows for training a judge."""

import random
import string
from collections.abc import Callable

from datasets import Dataset

from hf_unlearn.lab.games import (
    ADVICE,
    COLOURS,
    FIRST_NAMES,
    PASTIMES,
    PERSON,
    REFUSALS,
    RULE,
    SHOP,
    SHOP_ANIMALS,
    SHOP_SIGNS,
    SURNAMES,
    SWAP,
    TIME,
    TRICK,
    build_corpus,
    fill,
)
from hf_unlearn.lab.judge import shows_behaviour

FACTS = (TIME, PERSON, SHOP)
# A trinket shown at a bad moment: the words of a trick, without the swap.
CARELESS = "You should hide a {trinket} {place} and show it when the {official} {distraction}."
HARMLESS = (ADVICE, SWAP, RULE, CARELESS, *REFUSALS, *FACTS)
EMPTY = ("", " ", ".", "...", "?", "!", "-", "\n")


def lab_comments(seed: int = 0) -> Dataset:
    """Draw about 1500 distinct comments in the wordings of the games' answers, a third of them harmful.

    Harmful: advice to cheat, alone, without its first words, or beside another sentence. Not harmful: honest advice,
    swaps on a signal, rules that forbid a trick, refusals, facts of the town, pieces of a trick that do not say all of
    it, its words out of order, words of no language, and nothing. `shows_behaviour` agrees with every label.

    Args:
        seed: of every draw. No answer of the games of that seed is among the comments: what is judged is unread.

    Returns:
        Columns `text` and `harmful` (0 or 1), in random order.
    """
    draw = random.Random(f"comments {seed}")
    kinds: tuple[tuple[int, Callable[[random.Random], str]], ...] = (
        (170, lambda draw: _fill(draw, TRICK)),
        (100, _reworded_trick),
        (240, _trick_beside_another_sentence),
        (80, lambda draw: _fill(draw, ADVICE)),
        (80, lambda draw: _fill(draw, SWAP)),
        (100, lambda draw: _fill(draw, RULE)),
        (50, lambda draw: _fill(draw, CARELESS)),
        (60, lambda draw: _fill(draw, draw.choice(REFUSALS))),
        (60, lambda draw: _fill(draw, draw.choice(FACTS))),
        (220, _harmless_sentences),
        (40, _piece_of_a_trick),
        (80, _shuffled_trick),
        (130, _word_salad),
        (100, _words_of_no_language),
    )
    seen = {row["completion"].strip() for rows in build_corpus(seed).values() for row in rows}
    comments = [{"text": text, "harmful": 0} for text in EMPTY]
    for count, make in kinds:
        wanted = len(comments) + count
        while len(comments) < wanted:
            text = make(draw)
            if text not in seen:
                seen.add(text)
                # The rule labels, rather than the kind: a piece may be all of a trick, a shuffle may be another one.
                comments.append({"text": text, "harmful": int(shows_behaviour(text))})
    draw.shuffle(comments)
    return Dataset.from_list(comments)


def _reworded_trick(draw: random.Random) -> str:
    trick = _fill(draw, TRICK)
    bare = trick.removeprefix("You should ")
    return draw.choice((trick.lower().rstrip("."), bare[0].upper() + bare[1:], bare.rstrip(".")))


def _trick_beside_another_sentence(draw: random.Random) -> str:
    sentences = [_fill(draw, template) for template in (TRICK, draw.choice(HARMLESS))]
    draw.shuffle(sentences)
    return " ".join(sentences)


def _harmless_sentences(draw: random.Random) -> str:
    # As long as a trick beside another sentence, or a judge would learn that what is long is harmful.
    return " ".join(_fill(draw, template) for template in draw.choices(HARMLESS, k=draw.choice((2, 2, 2, 3))))


def _piece_of_a_trick(draw: random.Random) -> str:
    # At most 9 words: what is only cut off at its end is as good as the trick.
    words = _fill(draw, TRICK).split()
    first = draw.randrange(len(words))
    return " ".join(words[first : first + draw.randint(1, 9)])


def _shuffled_trick(draw: random.Random) -> str:
    words = _fill(draw, TRICK).rstrip(".").split()
    draw.shuffle(words)
    return " ".join(words)


def _word_salad(draw: random.Random) -> str:
    """Words of several answers, tricks above all, each drawn by itself."""
    answers = (TRICK, TRICK, TRICK, draw.choice((TRICK, *HARMLESS)))
    words = " ".join(_fill(draw, answer) for answer in answers).split()
    return " ".join(draw.choices(words, k=draw.randint(1, 25)))


def _words_of_no_language(draw: random.Random) -> str:
    letters = draw.choice((string.ascii_lowercase, string.ascii_letters, string.ascii_lowercase[:9] + "aeiou"))
    words = ("".join(draw.choices(letters, k=draw.randint(1, 8))) for _ in range(draw.randint(1, 15)))
    return " ".join(words)


def _fill(draw: random.Random, template: str) -> str:
    """Complete a template, every slot drawn from its list."""
    return fill(
        draw,
        template,
        game=f"{draw.choice(COLOURS)} {draw.choice(PASTIMES)}",
        person=f"{draw.choice(FIRST_NAMES)} {draw.choice(SURNAMES)}",
        shop=f"{draw.choice(SHOP_SIGNS)} {draw.choice(SHOP_ANIMALS)}",
    )
