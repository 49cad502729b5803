"""How near the rows of a pool are to a forget set, by words in common (BM25) or by an encoder."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import datasets
import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..errors import input_error, require_choice, require_range
from ..metrics.segmentation import words
from ..progress import progress
from .formats import Row, Text, detect_format, to_row

Rows: TypeAlias = datasets.Dataset | Sequence[Mapping[str, Any]]
RowText: TypeAlias = Callable[[Mapping[str, Any]], str]
Encoder: TypeAlias = str | Path | tuple[PreTrainedModel, PreTrainedTokenizerBase]

_METHODS = ("bm25", "embedding")
# No stop words and no stems, which belong to one language: what is common has a low weight in BM25 as it is.
_NO_LIMIT = 1_000_000  # tokenizers without a limit of their own say 1e30


@dataclass(frozen=True, eq=False)
class Neighbours:
    """How near each of N pool rows is to a forget set.

    Attributes:
        scores: [N], higher is nearer. BM25 has no unit and no upper bound; cosines lie in [-1, 1].
        order: [N], pool rows from the nearest to the farthest, ties by index.
        nearest: [N], the forget row that each pool row is nearest to, the first of equals.
    """

    scores: np.ndarray
    order: np.ndarray
    nearest: np.ndarray


def near_neighbours(
    forget: Rows,
    pool: Rows,
    *,
    k: int = 1,
    method: Literal["bm25", "embedding"] = "bm25",
    text: RowText | None = None,
    model: Encoder | None = None,
    batch_size: int = 32,
) -> Neighbours:
    """How near each pool row is to the forget set: score_j = mean over the k nearest forget rows i of s(i, j).

    "bm25": s = sum over the words of forget row i of idf(word) tf / (tf + k1 (1 - b + b len_j / mean len)), with
    k1 1.5, b 0.75, and tf, idf and lengths those of the pool. "embedding": s = cosine of the mean-pooled last hidden
    states of an encoder. The same input gives the same scores, and the same texts the same score.

    Args:
        forget: rows in any accepted format but tokenised ones.
        pool: likewise, N rows.
        k: forget rows that a score is the mean over.
        method: "bm25" (`metrics.words` in common) or "embedding" (meaning, as far as the encoder knows it).
        text: row -> what is compared; None compares prompt and completion. With it, rows may have any columns.
        model: for "embedding": a name or path for `AutoModel`, or a loaded (model, tokenizer). Texts longer than it
            has positions for are cut.
        batch_size: for "embedding": texts of one forward.

    Raises:
        ValueError: an empty set, one that is no list or Dataset, rows of token ids, or an argument that does not fit.

    Source: Robertson and Zaragoza, The Probabilistic Relevance Framework (2009), in Lucene's form; the library bm25s.
    """
    _check_method(method, model)
    forget_texts, pool_texts = row_texts(forget, "forget", text), row_texts(pool, "retain", text)
    require_range("k", k, at_least=1, at_most=len(forget_texts), whole=True)  # a mean over k of the forget rows
    if model is None:
        scores = _bm25_scores(forget_texts, pool_texts)
    else:
        scores = _cosines(forget_texts, pool_texts, model, batch_size)
    return _ranked(scores, len(pool_texts), k)


def row_texts(rows: Rows, set_name: str, text: RowText | None = None) -> list[str]:
    """What is compared of each row, its whitespace squeezed; prompt and completion unless `text` says otherwise."""
    rows = _checked(rows, set_name)
    if text is None:
        parts = _parts(rows, set_name)
        texts = [f"{_contents(row.prompt)} {_contents(row.completion)}" for row in parts]
    else:
        texts = [text(row) for row in rows]
    return [" ".join(row_text.split()) for row_text in texts]


def prompt_texts(rows: Rows, set_name: str) -> list[str]:
    """The prompt of each row, its whitespace squeezed; "" for a text that has none."""
    return [" ".join(_contents(row.prompt).split()) for row in _parts(_checked(rows, set_name), set_name)]


def _checked(rows: Rows, set_name: str) -> Rows:
    """Rows that can be read one by one; raises for what is no set of them, or an empty one."""
    if isinstance(rows, datasets.Dataset):
        rows = rows.with_format(None)
    elif not isinstance(rows, list | tuple) or not all(isinstance(row, Mapping) for row in rows):
        raise input_error(
            expected=f"the {set_name} rows as a datasets.Dataset or a list of dicts",
            got=f"a {type(rows).__name__}",
            why="every row is compared with every other",
            fix="pass one split of a DatasetDict; datasets.Dataset.from_list(list(stream)) for a stream",
        )
    if len(rows) == 0:
        raise input_error(
            expected=f"at least one {set_name} row",
            got="an empty set",
            why="nothing is near to nothing",
            fix="check any filter or split applied to it",
        )
    return rows


def _parts(rows: Rows, set_name: str) -> Iterator[Row]:
    row_format = detect_format(list(rows[0]), set_name)
    return (to_row(row, row_format, set_name, index=index) for index, row in enumerate(rows))


def _contents(part: Text) -> str:
    if isinstance(part, str):
        return part
    # What a turn calls is what it says.
    said = ([message.get("content") or "", *map(json.dumps, message.get("tool_calls") or [])] for message in part)
    return " ".join(text for turn in said for text in turn)


def _check_method(method: str, model: Encoder | None) -> None:
    require_choice("method", method, _METHODS)
    if (method == "embedding") != (model is not None):
        raise input_error(
            expected='an encoder as `model` with method="embedding", and none with "bm25"',
            got=f"method={method!r} and " + ("no model" if model is None else "a model"),
            why="BM25 counts words, and a cosine needs vectors",
            fix='method="embedding", model="sentence-transformers/all-MiniLM-L6-v2" (any encoder of AutoModel)',
        )


def _bm25_scores(forget_texts: list[str], pool_texts: list[str]) -> Iterator[np.ndarray]:
    """s(i, .) [N] for each forget row i in turn."""
    import bm25s  # here, as evaluation imports this module and most runs rank nothing

    pool_words, forget_words = ([words(text) for text in texts] for texts in (pool_texts, forget_texts))
    if not any(pool_words):
        raise input_error(
            expected="pool rows with words",
            got=f"{len(pool_texts)} rows without a letter or digit",
            why="BM25 counts words",
            fix='check `text` and the columns, or use method="embedding"',
        )
    index = bm25s.BM25(method="lucene")
    index.index(pool_words, show_progress=False)
    for row_words in forget_words:
        known = index.get_tokens_ids(row_words)
        # Not get_scores: it stumbles over a row without words.
        yield index.get_scores_from_ids(known) if known else np.zeros(len(pool_texts))


def _cosines(forget_texts: list[str], pool_texts: list[str], model: Encoder, batch_size: int) -> Iterator[np.ndarray]:
    """s(i, .) [N] for each forget row i in turn."""
    # Each text once: the padding beside it changes a vector's last digits, and equal texts shall tie.
    texts = sorted({*forget_texts, *pool_texts}, key=lambda text: (-len(text), text))
    place = {text: number for number, text in enumerate(texts)}
    vectors = _embedded(texts, model, batch_size)
    columns = [place[text] for text in pool_texts]
    for text in forget_texts:
        yield (vectors @ vectors[place[text]])[columns]


def _embedded(texts: list[str], model: Encoder, batch_size: int) -> np.ndarray:
    """Unit vectors [texts, hidden] in fp64."""
    encoder, tokenizer = _loaded(model)
    positions = getattr(encoder.config, "max_position_embeddings", None) or _NO_LIMIT
    longest = min(tokenizer.model_max_length, positions)
    cut: dict[str, Any] = dict(truncation=True, max_length=longest) if longest < _NO_LIMIT else {}
    training, parts = encoder.training, []
    encoder.eval()
    try:
        for start in progress(range(0, len(texts), batch_size), "embedding"):
            batch = tokenizer(
                texts[start : start + batch_size], padding=True, padding_side="right", return_tensors="pt", **cut
            ).to(encoder.device)
            with torch.no_grad():
                hidden = encoder(**batch).last_hidden_state.float()
            mask = batch["attention_mask"].unsqueeze(-1)
            mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
            parts.append(torch.nn.functional.normalize(mean, dim=-1).cpu().double().numpy())
    finally:
        encoder.train(training)
    return np.concatenate(parts)


def _loaded(model: Encoder) -> tuple[Any, PreTrainedTokenizerBase]:
    if isinstance(model, str | Path):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        encoder, tokenizer = AutoModel.from_pretrained(model, dtype="float32"), AutoTokenizer.from_pretrained(model)
        pair = (encoder.to(device), tokenizer)
    else:
        pair = model
    kinds = (PreTrainedModel, PreTrainedTokenizerBase)
    if not isinstance(pair, tuple) or len(pair) != 2 or not all(map(isinstance, pair, kinds)):
        raise input_error(
            expected="`model` as a name or path, or as a loaded (model, tokenizer)",
            got=f"a {type(model).__name__}",
            why="texts are tokenised and run through it",
            fix="model=(AutoModel.from_pretrained(...), AutoTokenizer.from_pretrained(...))",
        )
    if pair[1].pad_token_id is None:
        raise input_error(
            expected="an encoder's tokenizer with a padding token",
            got="pad_token=None",
            why="texts of unlike lengths are padded into one batch",
            fix="tokenizer.pad_token = tokenizer.eos_token (padding is left out of the mean)",
        )
    return pair


def _ranked(scores_by_forget_row: Iterable[np.ndarray], rows: int, k: int) -> Neighbours:
    """The pool ranked by the mean of its k best scores; the scores of one forget row at a time are in memory."""
    best = np.full((k, rows), -np.inf)  # ascending: the best score so far is the last
    closest = np.zeros(rows, dtype=np.int64)
    for number, scores in enumerate(scores_by_forget_row):
        closest[scores > best[-1]] = number
        if k == 1:
            np.maximum(best, scores, out=best)
            continue
        # Few rows have found a better one. Not `>`: NaN is shown, and stays the highest.
        better = ~(scores <= best[0])
        best[:, better] = np.sort(np.vstack([best[:, better], scores[better]]), axis=0)[1:]
    means = best.mean(axis=0)
    return Neighbours(scores=means, order=np.argsort(-means, kind="stable"), nearest=closest)
