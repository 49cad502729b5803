"""Words of a text in any script: runs of letters, vowel signs and digits; characters where words have no spaces."""

import re
import unicodedata

import regex

# Scripts written without spaces between words. No segmenter is asked: each one's dictionary gives other words.
_UNSPACED = (
    r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Yi}\p{Tai_Le}\p{New_Tai_Lue}"
    r"\p{Tai_Tham}\p{Javanese}\p{Balinese}\u30fc"  # the last one, the long sound of Japanese, belongs to no script
)
# A character with the vowel signs and tone marks that stand on it; or a run of letters, marks and digits.
_CHARACTER = rf"[[{_UNSPACED}]&&[\p{{L}}\p{{N}}]]\p{{M}}*"
_WORD = regex.compile(rf"(?V1){_CHARACTER}|[[\p{{L}}\p{{M}}\p{{N}}]--[[{_UNSPACED}]&&[\p{{L}}\p{{N}}]]]+")
_UNSPACED_WORD = regex.compile(rf"(?V1){_CHARACTER}")
# What a reader sees as one sign, and whether it is a symbol; one emoji of several joined by joiners is as many.
_SIGN, _SYMBOL = regex.compile(r"\X"), regex.compile(r"\p{S}")
_ASCII_WORD = re.compile(r"[a-z0-9]+")
# Joiners, soft hyphens, marks of direction and variants of a sign are seen by no reader. The zero-width space is kept:
# it separates words, in Thai and Khmer.
_INVISIBLE = regex.compile(r"(?V1)[\p{Default_Ignorable_Code_Point}--\u200b]")


def folded(text: str) -> str:
    """A text without differences that no reader sees as one: letter case, width, composition, invisible characters.

    Unicode's NFKC and case folding, so that "ß" is "ss", a full-width letter a plain one, and an accent that stands
    beside its letter one with it. Vowel signs and accents stay.
    """
    if text.isascii():
        return text.lower()
    composed = unicodedata.normalize("NFKC", text).casefold()
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", composed))


def words(text: str) -> list[str]:
    """The words of a text, `folded`: runs of letters and digits with their vowel signs, without punctuation.

    In scripts that put no spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, ...) every character
    with its vowel signs and tone marks is a word of its own.
    """
    plain = folded(text)
    return _ASCII_WORD.findall(plain) if plain.isascii() else _WORD.findall(plain)


def words_or_symbols(text: str) -> list[str]:
    """The `words` of a text, or of one without any, such as emoji alone, its symbols; no punctuation."""
    return words(text) or [sign for sign in _SIGN.findall(folded(text)) if _SYMBOL.search(sign)]


def is_unspaced(word: str) -> bool:
    """Whether one of `words` is a character of a script without spaces between words."""
    return not word.isascii() and _UNSPACED_WORD.fullmatch(word) is not None


def spaced(text: str) -> str:
    """A text with spaces around each character of scripts without spaces between words; any other text as it is."""
    return text if text.isascii() else _UNSPACED_WORD.sub(r" \g<0> ", text)
