"""Overlap of a generated text with its reference: ROUGE recall and F1, longest common substring, BLEU."""

import unicodedata
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np

from .checks import Floats, choice, numbers, same_lengths, strings
from .description import PERCENT, MetricDescription, of_sets
from .result import MetricResult, bootstrap, mean
from .segmentation import spaced, words_or_symbols

_ROUGE_KINDS = ("rouge1", "rougeL")
_THIRDS = ("short", "middle", "long")
_ORDERS = 4  # BLEU counts n-grams of one to four words


def rouge_recalls(answers: Sequence[str], references: Sequence[str], kind: str = "rougeL") -> Floats:
    """ROUGE recall of each reference's words in its answer, [N]; 0 for a reference without words.

    Words are those of `metrics.words`: of texts in plain letters (a to z) exactly rouge_score's, with its English
    stemmer; other letters, which rouge_score drops, count, and are not stemmed. In scripts without spaces between
    words each character is one, and in texts without words, such as emoji alone, each symbol.

    Args:
        answers: [N] generated.
        references: [N] expected.
        kind: "rouge1" (words) or "rougeL" (longest common subsequence of words).

    Raises:
        ValueError: no answers, lengths that differ, or another kind.

    Paper: Lin 2004, https://aclanthology.org/W04-1013; with the stemmer, as TOFU has it.
    """
    return rouge_recalls_of(answers, references, (kind,))[kind]


def rouge_recalls_of(answers: Sequence[str], references: Sequence[str], kinds: Sequence[str]) -> dict[str, Floats]:
    """`rouge_recalls` of several kinds, by kind: stemming takes most of the time, and each text is stemmed once.

    Args and raises as of `rouge_recalls`.
    """
    rows = _rouge(answers, references, kinds, stemmer=True, published=False)
    return {kind: np.array([row[kind].recall for row in rows], dtype=np.float64) for kind in kinds}


def rouge_f1s(
    answers: Sequence[str],
    references: Sequence[str],
    kind: str = "rougeL",
    *,
    stemmer: bool = False,
    published: bool = False,
) -> Floats:
    """ROUGE F1 of each answer and its reference, [N]: 2 P R / (P + R); 0 for texts without words in common.

    P is the share of the answer's words that match, R that of the reference's.

    Args:
        answers: [N] generated.
        references: [N] expected.
        kind: "rouge1" or "rougeL".
        stemmer: whether words in plain letters match by their stem, as OpenUnlearning has it; the code of MUSE does
            not stem.
        published: as rouge_score reads words: runs of a to z and 0 to 9 alone, so that a word in other letters has
            none, and one with an accent is two.

    Raises:
        ValueError: no answers, lengths that differ, or another kind.

    Paper: Lin 2004, https://aclanthology.org/W04-1013; in MUSE, Shi et al. 2024, https://arxiv.org/abs/2407.06460.
    """
    rows = _rouge(answers, references, (kind,), stemmer=stemmer, published=published)
    return np.array([row[kind].fmeasure for row in rows], dtype=np.float64)


def rouge_f1(
    answers: Sequence[str],
    references: Sequence[str],
    kind: str = "rougeL",
    *,
    stemmer: bool = False,
    published: bool = False,
) -> MetricResult:
    """Mean over the rows of `rouge_f1s`, with its arguments."""
    return mean(rouge_f1s(answers, references, kind, stemmer=stemmer, published=published))


def _rouge(
    answers: Sequence[str], references: Sequence[str], kinds: Sequence[str], *, stemmer: bool, published: bool
) -> list[dict[str, Any]]:
    """rouge_score's scores of each row, by kind."""
    # Imported here and below, because a trainer that measures nothing has no use for seconds of nltk and sacrebleu.
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    class StemsOnce(DefaultTokenizer):
        def tokenize(self, text: str) -> list[str]:
            words = super().tokenize(text)
            return [token for word in words for token in _stemmed()(word)] if stemmer else words

    class UnicodeTokenizer(StemsOnce):
        def tokenize(self, text: str) -> list[str]:
            if text.isascii():
                return super().tokenize(text)
            stemmed, pieces = super().tokenize, words_or_symbols(text)
            return [token for word in pieces for token in (stemmed(word) if word.isascii() else [word])]

    reader = StemsOnce if published else UnicodeTokenizer
    scorer = RougeScorer([choice("kind", kind, _ROUGE_KINDS) for kind in kinds], tokenizer=reader())
    return [scorer.score(reference, answer) for answer, reference in _pairs(answers, references)]


@cache
def _stemmed() -> Callable[[str], list[str]]:
    """rouge_score's tokens of a word, stemmed; a word that texts have in common is stemmed once."""
    from rouge_score.tokenizers import DefaultTokenizer

    return lru_cache(2**16)(DefaultTokenizer(use_stemmer=True).tokenize)


def rouge_recall(answers: Sequence[str], references: Sequence[str], kind: str = "rougeL") -> MetricResult:
    """Mean over the rows of `rouge_recalls`, with its arguments."""
    return mean(rouge_recalls(answers, references, kind))


def by_length(values: Any, texts: Sequence[str]) -> dict[str, MetricResult]:
    """The mean of rows' values in each third of their texts by length in words: "short", "middle", "long".

    Texts of one length stay in their order; where the thirds are unequal the first ones have a row more. Below three
    rows there are none.

    Args:
        values: [N] numbers, such as recalls.
        texts: [N] the rows' texts, such as expected answers.

    Raises:
        ValueError: no rows, or lengths that differ.
    """
    measured, read = numbers("values", values), strings("texts", texts)
    same_lengths(values=measured, texts=read)
    order = np.argsort([len(words_or_symbols(text)) for text in read], kind="stable")
    thirds = zip(_THIRDS, np.array_split(order, len(_THIRDS)), strict=True)
    return {name: mean(measured[rows]) for name, rows in thirds if len(read) >= len(_THIRDS)}


def longest_common_substrings(answers: Sequence[str], references: Sequence[str]) -> Floats:
    """Longest passage of each reference that its answer has character by character, as a share of the reference, [N].

    Runs of whitespace count as one space, and none at either end; letter case counts, and how an accent is composed
    (NFC) does not. 0 for an empty reference.

    Args:
        answers: [N] generated.
        references: [N] expected.

    Raises:
        ValueError: no answers, or lengths that differ.
    """
    pairs = _pairs(answers, references)
    return np.array([_common_share(_composed(answer), _composed(reference)) for answer, reference in pairs])


def common_substring(answers: Sequence[str], references: Sequence[str]) -> MetricResult:
    """Mean over the rows of `longest_common_substrings`, with its arguments."""
    return mean(longest_common_substrings(answers, references))


def bleu(answers: Sequence[str], references: Sequence[str]) -> MetricResult:
    """Corpus BLEU of sacrebleu (13a tokens, exponential smoothing) as a share from 0 to 1.

    In scripts without spaces between words each character is a token. Where no answer has four tokens, the n-grams go
    up to the longest answer only (sacrebleu's effective order), so that equal short texts have 1.

    BLEU is no mean over rows, so each resample of the rows adds up their n-gram counts and computes BLEU anew.

    Args:
        answers: [N] generated.
        references: [N] expected.

    Raises:
        ValueError: no answers, or lengths that differ.

    Paper: Post 2018, https://arxiv.org/abs/1804.08771.
    """
    from sacrebleu.metrics.bleu import BLEU

    scorer = BLEU(effective_order=True)  # the counts are the same without, but it would warn about short rows
    pairs = [[spaced(_composed(text)) for text in pair] for pair in _pairs(answers, references)]
    rows = [scorer.sentence_score(answer, [reference]) for answer, reference in pairs]
    return bootstrap(_corpus_bleu, np.array([[row.sys_len, row.ref_len, *row.counts, *row.totals] for row in rows]))


def _corpus_bleu(counts: Any) -> float:
    from sacrebleu.metrics.bleu import BLEU

    answer_length, reference_length, *grams = counts.sum(axis=0).tolist()
    correct, total = grams[:_ORDERS], grams[_ORDERS:]
    lengths = (answer_length, reference_length)
    score = BLEU.compute_bleu(correct, total, *lengths, smooth_method="exp", effective_order=True).score
    return min(score / 100, 1.0)  # equal texts come out a rounding error above 100


def _composed(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _common_share(answer: str, reference: str) -> float:
    if not reference:
        return 0.0
    shorter, longer = sorted((answer, reference), key=len)
    characters = np.array([ord(character) for character in longer])
    # At each place of the longer text the length of the run of common characters that ends there.
    runs, longest = np.zeros(len(longer) + 1, dtype=np.int64), 0
    for character in shorter:
        np.multiply(runs[:-1] + 1, characters == ord(character), out=runs[1:])
        longest = max(longest, int(runs.max()))
    return longest / len(reference)


def _pairs(answers: Sequence[str], references: Sequence[str]) -> list[tuple[str, str]]:
    given, wanted = strings("answers", answers), strings("references", references)
    same_lengths(answers=given, references=wanted)
    return list(zip(given, wanted, strict=True))


DESCRIPTIONS = (
    *of_sets("rouge", "ROUGE-L recall", knowing=True, about="ROUGE-L recall of the expected answers in the model's"),
    *of_sets("rouge1", "ROUGE-1 recall", knowing=True, about="ROUGE-1 recall of the expected answers in the model's"),
    MetricDescription(
        "common_substring",
        "longest common run with the text",
        "longest common substring of answer and text, as a share of the text",
        greater_is_better=False,
        rows="forget",
    ),
    MetricDescription(
        "recited_rate",
        "passages recited (half or more)",
        "share of answers that have an unbroken half of the text",
        "share",
        PERCENT,
        greater_is_better=False,
        rows="forget",
    ),
    MetricDescription(
        "bleu",
        "BLEU with the text",
        "corpus BLEU of answers and texts, 0 to 1",
        greater_is_better=False,
        rows="forget",
    ),
    *(
        MetricDescription(
            f"forget_rouge_{name}",
            f"forget ROUGE-L recall ({name} answers)",
            f"ROUGE-L recall of the {name} third of expected answers",
            greater_is_better=False,
            rows="forget",
        )
        for name in _THIRDS
    ),
    MetricDescription(
        "forget_verbmem",
        "forget texts continued",
        "ROUGE-L F1 of continuations of forget texts and how these go on",
        greater_is_better=False,
        rows="forget",
    ),
    *(
        MetricDescription(
            f"{name}_knowmem",
            f"{name} questions answered",
            f"ROUGE-L F1 of answers to questions about {name} texts",
            greater_is_better=name == "retain",
            rows=name,
        )
        for name in ("forget", "retain")
    ),
    *(
        MetricDescription(
            f"published_{name}",
            f"{words}, as published (percent)",
            "as the published code of MUSE computes it",
            "percent",
            ".1f",
            greater_is_better=name.startswith("retain"),
            rows=name.partition("_")[0],
        )
        for name, words in (
            ("forget_verbmem", "forget texts continued"),
            ("forget_knowmem", "forget questions answered"),
            ("retain_knowmem", "retain questions answered"),
        )
    ),
)
