"""Token ids of texts, and which of them are trained: from characters (`turns.py`) to tokens."""

from collections.abc import Sequence
from itertools import takewhile

from transformers import PreTrainedTokenizerBase

from ..errors import input_error
from .turns import WrittenRow


def tokenized_texts(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[WrittenRow], special_tokens: bool
) -> list[tuple[list[int], int, list[bool]]]:
    """Token ids of rows, the place of the first answer token in each, and of every token whether it is trained.

    A token that a text writes and the tokenizer adds as well (bos in front, eos at the end) is there once.

    Args:
        tokenizer: fast (the boundary comes from character offsets) or slow (from the ids that the prompt alone has).
        rows: the texts.
        special_tokens: whether the tokenizer adds its own (bos, ...).
    """
    options = dict(add_special_tokens=special_tokens, return_attention_mask=False, verbose=False)
    texts = [row.text for row in rows]
    tokenized = []
    if tokenizer.is_fast:
        encoded = tokenizer(texts, return_offsets_mapping=True, **options)
        for row, ids, offsets in zip(rows, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            ids, offsets = _once(tokenizer, ids, row.text, offsets)
            tokenized.append((ids, *_answer_labels(tokenizer, ids, offsets, row)))
        return tokenized
    prompts = tokenizer([row.text[: row.start] for row in rows], **options)["input_ids"]
    for row, prompt, ids in zip(rows, prompts, tokenizer(texts, **options)["input_ids"], strict=True):
        if row.marked is not None:
            raise input_error(
                expected="a fast tokenizer where a chat template marks answers, or an answer has several turns",
                got=f"{type(tokenizer).__name__}, which is slow",
                why="which tokens are trained is known only from the characters of each",
                fix="load the tokenizer with use_fast=True, or take {% generation %} out of its chat template, or "
                "move all turns but the last into the prompt",
            )
        ids, prompt = _once(tokenizer, ids, row.text)[0], _once(tokenizer, prompt, row.text)[0]
        start = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt, ids, strict=False)))
        tokenized.append((ids, start, [place >= start for place in range(len(ids))]))
    return tokenized


def _once(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], text: str, offsets: Sequence[tuple[int, int]] | None = None
) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids without a second bos in front and a second end token at the end, and their offsets, if there are any."""
    places = list(range(len(ids)))
    bos, end = tokenizer.bos_token_id, ids[-1] if ids else None
    if bos is not None and text.startswith(tokenizer.bos_token):
        while len(places) > 1 and ids[places[0]] == ids[places[1]] == bos:
            del places[1]  # the first one may be the tokenizer's own, which is no part of the text
    if end in {tokenizer.eos_token_id, *tokenizer.added_tokens_decoder}:
        while len(places) > 2 and ids[places[-2]] == end and text.endswith(tokenizer.convert_ids_to_tokens(end)):
            del places[-1]
    return [ids[place] for place in places], [offsets[place] for place in places] if offsets is not None else []


def _answer_labels(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], offsets: Sequence[tuple[int, int]], row: WrittenRow
) -> tuple[int, list[bool]]:
    """Where the answer's tokens start, and of every token whether it is trained.

    A token is answer when it ends after the prompt's last character, so one that spans the boundary is; but not a
    special token whose own text lies before it (it may take in the whitespace around it, `rstrip`), nor whitespace in
    which a header and an answer meet.

    Args:
        tokenizer: fast.
        ids: of the whole text.
        offsets: the characters (from, to) of each token; (0, 0) for one that the tokenizer added.
        row: the text.
    """
    start = _first_answer_token(tokenizer, ids, offsets, row, row.start)
    trained = [place >= start for place in range(len(ids))]
    if row.marked is not None:
        # What the tokenizer adds itself has no characters, and stays.
        trained = [is_trained and end == begin for is_trained, (begin, end) in zip(trained, offsets, strict=True)]
        for first, last in row.marked:
            place = max(start, _first_answer_token(tokenizer, ids, offsets, row, first))
            while place < len(ids) and offsets[place][0] < last:
                trained[place] = True
                place += 1
    return start, trained


def _first_answer_token(
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    row: WrittenRow,
    start: int,
) -> int:
    """The place of the first token of the text that starts at a character; the number of tokens where none is."""
    for place, (begin, end) in enumerate(offsets):
        if end <= start:
            continue
        if begin < start:
            text = row.text[begin:end]
            token = tokenizer.added_tokens_decoder.get(ids[place])
            content = "" if token is None else token.content
            own_end = begin + text.find(content) + len(content) if content and content in text else end
            if own_end <= start or (row.header and text.isspace() and place + 1 < len(ids)):
                continue
        return place
    return len(ids)
