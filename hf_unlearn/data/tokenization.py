"""Tokenises a set of rows in any accepted format: a datasets.Dataset, a list, a torch dataset or a stream."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import datasets
import numpy as np
import pyarrow as pa
import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..errors import input_error
from .chat_template import check_template_kwargs
from .checks import (
    COUNTS,
    FULL_LENGTH,
    check_max_length,
    check_targets,
    check_template,
    check_tokenizer,
    empty_set,
    missing_alternates,
    report_cut,
)
from .encoding import RowEncoder
from .formats import RowFormat, detect_format, format_columns, read_columns, to_row
from .roles import check_set_name
from .row_cache import RowCache, file_errors_told, warn_of_leftovers

logger = logging.get_logger(__name__)

RowSet: TypeAlias = (
    datasets.Dataset
    | datasets.IterableDataset
    | torch.utils.data.Dataset
    | torch.utils.data.IterableDataset
    | Sequence[Mapping[str, Any]]
)
TokenizedSet: TypeAlias = datasets.Dataset | datasets.IterableDataset | torch.utils.data.IterableDataset

_BATCH_ROWS = 1000
_STREAM_BATCH_ROWS = 100  # a stream reads a whole batch ahead, so a smaller one


def tokenize_rows(
    dataset: RowSet,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    set_name: str,
    max_length: int | None,
    template: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    alternates: bool = False,
    num_proc: int | None = None,
    cache: RowCache | None = None,
    labels_from: Callable[..., Any] | None = None,
) -> TokenizedSet:
    """Tokenise one set, its prompts masked (-100) and its answers trained.

    Text of a row: message lists go through the tokenizer's chat template. Strings go through `template` if given, else
    become a user's and an assistant's message if the tokenizer has a chat template, else are joined. `text` rows stay
    as they are. Chat text gets no further token, since its template writes its own (eos, said once, where it writes no
    end of a turn); other text gets the tokenizer's own (bos, ...) and a trained eos. `turns.py` says what is answer.

    Args:
        dataset: rows with a length (datasets.Dataset, torch Dataset, list of dicts) or a stream (datasets', torch's).
        tokenizer: with a pad and an eos token; may be None for rows that are tokenised already.
        set_name: "forget", "retain", "holdout", or "eval" for any other.
        max_length: longest row in tokens, the rest cut from the right; None for no limit.
        template: for prompt/completion strings, e.g. "### Question: {prompt}\\n ### Answer: {completion}".
        chat_template_kwargs: variables for the chat template; a row's own, in a column of this name, come first.
        alternates: encode each row's alternate answer too; False ignores an `alternate` column.
        num_proc: processes, for a datasets.Dataset only; other sets are read once, in this process.
        cache: where the tokens of a datasets.Dataset on disk are kept, never beside its rows; None: in memory.
        labels_from: collator that makes the labels of token rows without any, such as
            `DataCollatorForLanguageModeling(tokenizer, mlm=False)`; None refuses such rows.

    Returns:
        Columns `input_ids`, `labels` and `answer_start` (the place of the first answer token), with `alternates` also
        `alternate_input_ids` and `alternate_labels`; rows of unlike lengths. A datasets.Dataset, or a stream.

    Raises:
        ValueError: no rows, rows of no format or without a target left, a tokenizer or template that does not serve.
    """
    check_set_name(set_name)
    if tokenizer is not None:
        check_tokenizer(tokenizer)
    check_max_length(max_length)
    check_template(template)
    check_template_kwargs(chat_template_kwargs)
    options = dict(tokenizer=tokenizer, set_name=set_name, max_length=max_length, alternates=alternates)
    options |= dict(template=template, chat_template_kwargs=chat_template_kwargs, labels_from=labels_from)
    if isinstance(dataset, datasets.IterableDataset):
        return _tokenize_stream(dataset.with_format(None), options)
    if isinstance(dataset, torch.utils.data.IterableDataset):
        return TokenizedStream(dataset, options)
    if isinstance(dataset, datasets.Dataset):
        tokenized = _tokenize_dataset(dataset.with_format(None), options, num_proc, cache)
    else:
        tokenized = _tokenize_in_memory(_listed(dataset, set_name), options)
    return _checked(tokenized, set_name, max_length, alternates)


def _checked(tokenized: datasets.Dataset, set_name: str, max_length: int | None, alternates: bool) -> datasets.Dataset:
    """The columns of a tokenised set that are trained, once each of its rows has a target within `max_length`."""
    numbers = tokenized.with_format("numpy")
    for prefix in ("", "alternate_") if alternates else ("",):
        counts = {name: numbers[f"{prefix}{name}"][:] for name in COUNTS}
        check_targets(counts, range(len(tokenized)), set_name, max_length, prefix)
        report_cut(counts, set_name, max_length, prefix)
    return tokenized.select_columns(list(_token_features(alternates)))


class TokenizedStream(torch.utils.data.IterableDataset):
    """The rows of a torch stream, each tokenised when it is read. `set_epoch` and `len` are the source's own."""

    def __init__(self, source: torch.utils.data.IterableDataset, options: dict[str, Any]) -> None:
        self.source = source
        self._options = options

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on to a source that wants it; one that does not has no order to change."""
        if isinstance(self.source, _HasEpoch):
            self.source.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.source)  # type: ignore[arg-type]  # TypeError for a source without a length, as torch expects

    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        encode = None
        for index, example in enumerate(self.source):
            if encode is None:
                encode = _StreamEncoder(row_encoder(example, self._options))
                names = read_columns(encode.encoder.row_format, example)
            columns = encode({name: [_plain(example.get(name))] for name in names}, [index])
            yield {name: values[0] for name, values in columns.items()}
        # A data-loader worker may rightly find its share empty.
        if encode is None and torch.utils.data.get_worker_info() is None:
            raise empty_set(self._options["set_name"])


@runtime_checkable
class _HasEpoch(Protocol):
    def set_epoch(self, epoch: int) -> None: ...


@dataclass(frozen=True, eq=False)
class _StreamEncoder:
    """Encodes rows of a stream, whose end may never come: what a set is checked for at its end is checked at once."""

    encoder: RowEncoder

    def __call__(self, batch: Mapping[str, Sequence[Any]], indices: Sequence[int]) -> dict[str, list[Any]]:
        encoder = self.encoder
        columns = encoder(batch, indices)
        for prefix in encoder.prefixes:
            counts = {name: columns[f"{prefix}{name}"].to_numpy() for name in COUNTS}
            check_targets(counts, indices, encoder.set_name, encoder.max_length, prefix)
            if encoder.max_length is not None and (counts[FULL_LENGTH] > encoder.max_length).any():
                logger.warning_once(
                    f"The {encoder.set_name} stream has rows longer than max_length={encoder.max_length}; their ends "
                    "are cut off. A stream has no end at which to count them, so this is said once."
                )
        return columns.select(list(_token_features(encoder.alternates))).to_pydict()


def _tokenize_stream(dataset: datasets.IterableDataset, options: dict[str, Any]) -> datasets.IterableDataset:
    first = next(iter(dataset), None)
    if first is None:
        raise empty_set(options["set_name"])
    encoder = row_encoder(first, options)
    return dataset.map(
        _StreamEncoder(encoder),
        batched=True,
        batch_size=_STREAM_BATCH_ROWS,
        with_indices=True,
        remove_columns=list(first),
        features=_token_features(encoder.alternates),
    )


def _tokenize_dataset(
    dataset: datasets.Dataset, options: dict[str, Any], num_proc: int | None, cache: RowCache | None
) -> datasets.Dataset:
    if len(dataset) == 0:
        raise empty_set(options["set_name"])
    encoder = row_encoder(dataset[0], options)
    # Only what is read: other columns (images, say) would be decoded for nothing.
    dataset = dataset.select_columns(format_columns(encoder.row_format, dataset.column_names))
    if encoder.set_name == "forget":
        warn_of_leftovers(dataset)
    on_disk = None if cache is None or not dataset.cache_files else cache
    file = None if on_disk is None else on_disk.file_for(dataset, encoder)
    # Rows of token ids go from Arrow to Arrow; text and a collator want Python's strings and lists.
    as_arrow = encoder.row_format is RowFormat.TOKENIZED and encoder.labels_from is None
    with file_errors_told(f"the token ids of the {encoder.set_name} set", file and Path(file).parent):
        tokenized = dataset.with_format("arrow" if as_arrow else None).map(
            encoder,
            batched=True,
            batch_size=_BATCH_ROWS,
            with_indices=True,
            keep_in_memory=file is None,
            cache_file_name=file,
            remove_columns=dataset.column_names,
            features=_counted_features(encoder),
            num_proc=num_proc,
            desc=f"Tokenizing the {encoder.set_name} set",
        )
    return tokenized.with_format(None)


def _tokenize_in_memory(examples: list[Mapping[str, Any]], options: dict[str, Any]) -> datasets.Dataset:
    # Encoded before Arrow sees it, which cannot say which row of an ill-typed column is at fault without quoting it.
    if not examples:
        raise empty_set(options["set_name"])
    encoder = row_encoder(examples[0], options)
    names = read_columns(encoder.row_format, examples[0])
    tables = []
    for start in range(0, len(examples), _BATCH_ROWS):
        part = examples[start : start + _BATCH_ROWS]
        batch = {name: [_plain(example.get(name)) for example in part] for name in names}
        tables.append(encoder(batch, range(start, start + len(part))))
    features = _counted_features(encoder)
    return datasets.Dataset(pa.concat_tables(tables).select(list(features)).cast(features.arrow_schema))


def _listed(dataset: Any, set_name: str) -> list[Mapping[str, Any]]:
    if isinstance(dataset, torch.utils.data.Dataset):
        dataset = [dataset[index] for index in range(len(dataset))]  # type: ignore[arg-type]
    if not isinstance(dataset, list | tuple) or not all(isinstance(example, Mapping) for example in dataset):
        raise input_error(
            expected=f"the {set_name} set as a datasets.Dataset or IterableDataset, a torch dataset or a list "
            "of dicts",
            got=f"a {type(dataset).__name__}" + (" of other things" if isinstance(dataset, list | tuple) else ""),
            why="rows are read by the names of their columns",
            fix="pass one split of a DatasetDict (dataset['train']); yield dicts from a dataset of your own",
        )
    return list(dataset)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, torch.Tensor | np.ndarray) else value


def row_encoder(first: Mapping[str, Any], options: dict[str, Any]) -> RowEncoder:
    """The encoder of a set, whose format and kind of row are those of its first row."""
    set_name, tokenizer = options["set_name"], options["tokenizer"]
    unlabelled = options["labels_from"] is not None and "input_ids" in first and "labels" not in first
    row_format = RowFormat.TOKENIZED if unlabelled else detect_format(list(first), set_name)
    options = options | {"labels_from": options["labels_from"] if unlabelled else None}
    if options["alternates"]:
        wanted = {"alternate", "alternate_input_ids", "chosen"}.intersection(format_columns(row_format, list(first)))
        if not wanted:
            raise missing_alternates(f"columns {list(first)}", set_name)
    if row_format is RowFormat.TOKENIZED:
        return RowEncoder(row_format=row_format, conversational=False, **options)
    if tokenizer is None:
        raise input_error(
            expected=f"a tokenizer, for the {set_name} set's rows of text",
            got="processing_class=None",
            why="text has to become token ids",
            fix="pass processing_class=AutoTokenizer.from_pretrained(...), or rows with `input_ids` and `labels`",
        )
    # An alternate that nobody asked for is not looked at.
    shown = {name: first[name] for name in first if options["alternates"] or name != "alternate"}
    row = to_row(shown, row_format, set_name, index=0)
    conversational = row.is_conversational
    if conversational and tokenizer.chat_template is None:
        raise input_error(
            expected="a tokenizer with a chat template, for message lists",
            got="chat_template=None",
            why="how turns are written is the model's own convention and cannot be guessed",
            fix="set tokenizer.chat_template, or pass `prompt` and `completion` as strings",
        )
    encoder = RowEncoder(row_format=row_format, conversational=conversational, **options)
    encoder.report(row)
    return encoder


def _token_features(alternates: bool) -> datasets.Features:
    token_ids = datasets.List(datasets.Value("int32"))
    features: dict[str, Any] = {"input_ids": token_ids, "labels": token_ids, "answer_start": datasets.Value("int32")}
    if alternates:
        features |= {"alternate_input_ids": token_ids, "alternate_labels": token_ids}
    return datasets.Features(features)


def _counted_features(encoder: RowEncoder) -> datasets.Features:
    features = _token_features(encoder.alternates)
    for prefix in encoder.prefixes:
        features |= {f"{prefix}{n}": datasets.Value("int32") for n in COUNTS}
    return datasets.Features(features)
