"""ROUGE-L recall as the package `rouge` computes it and RWKU publishes it. For one's own figures: `rouge_recalls`."""

from collections.abc import Sequence

import numpy as np

from .checks import Floats, same_lengths, strings


def sentence_rouge_recalls(answers: Sequence[str], references: Sequence[str]) -> Floats:
    """ROUGE-L recall of each reference, as `rouge` 1.0.1 has it: |union of common words| / |distinct words|, [N].

    Sentences end at every full stop, words at blanks alone, with case and punctuation kept ("Paris," is not "paris");
    a sentence of blanks is a word. Of each pair of sentences the words of a longest common subsequence are taken, and
    a word counts once however often it stands there. The package stops with an error where a text has no sentence;
    here that is 0.

    Args:
        answers: [N] generated.
        references: [N] expected.

    Raises:
        ValueError: no answers, or lengths that differ.

    Paper: Lin 2004, https://aclanthology.org/W04-1013, of which this is no faithful implementation.
    """
    given, wanted = strings("answers", answers), strings("references", references)
    same_lengths(answers=given, references=wanted)
    return np.array([_recall(_sentences(answer), _sentences(own)) for answer, own in zip(given, wanted, strict=True)])


def _sentences(text: str) -> list[list[str]]:
    return [" ".join(piece.split()).split(" ") for piece in text.split(".") if piece]


def _recall(answer: list[list[str]], reference: list[list[str]]) -> float:
    wanted = {word for sentence in reference for word in sentence}
    if not wanted:
        return 0.0
    common = {word for own in reference for said in answer for word in _common_words(own, said)}
    return len(common) / len(wanted)


def _common_words(reference: list[str], answer: list[str]) -> list[str]:
    """The words of one longest common subsequence, that which the package's way back through the table finds."""
    table = np.zeros((len(reference) + 1, len(answer) + 1), dtype=np.int64)
    for i, own in enumerate(reference, 1):
        for j, said in enumerate(answer, 1):
            table[i, j] = table[i - 1, j - 1] + 1 if own == said else max(table[i - 1, j], table[i, j - 1])
    found, i, j = list[str](), len(reference), len(answer)
    while i and j:
        if reference[i - 1] == answer[j - 1]:
            found.append(reference[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1, j] > table[i, j - 1]:
            i -= 1
        else:
            j -= 1
    return found
