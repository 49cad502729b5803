"""From what the user passes as a dataset to tokenised sets by name, checked against each other."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase

from ..errors import input_error, nearest
from .answer_ends import rendered_ends
from .digests import shared_rows
from .lengths import longest_mismatch, longest_row
from .pairing import is_stream
from .roles import TRAIN_SETS
from .row_cache import RowCache
from .tokenization import RowSet, TokenizedSet, tokenize_rows
from .turns import AnswerEnds, ends_of_tokens


@dataclass(frozen=True)
class RowOptions:
    """How rows become tokens, the same for every set of a run.

    Attributes:
        tokenizer: None where all rows are tokenised already.
        max_length: longest row in tokens, the rest cut from the right; None for no limit.
        template: text around the strings of prompt/completion rows.
        num_proc: processes that tokenise a datasets.Dataset.
        cache: where the tokens of sets on disk are kept; None keeps them in memory.
        chat_template_kwargs: variables for the chat template; a row's own come before them.
        labels_from: collator that makes the labels of token rows that come without any, as in a Trainer script.
    """

    tokenizer: PreTrainedTokenizerBase | None
    max_length: int | None
    template: str | None
    num_proc: int | None
    cache: RowCache | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None
    labels_from: Callable[..., Any] | None = None

    def tokenize(self, rows: RowSet, set_name: str, *, alternates: bool = False) -> TokenizedSet:
        """A set of rows in any accepted format as token ids and labels; token rows are only checked."""
        return tokenize_rows(
            rows,
            self.tokenizer,
            set_name=set_name,
            max_length=self.max_length,
            template=self.template,
            chat_template_kwargs=self.chat_template_kwargs,
            alternates=alternates,
            num_proc=self.num_proc,
            cache=self.cache,
            labels_from=self.labels_from,
        )

    def answer_ends(self, rows: Any, tokenized: TokenizedSet | Sequence[Any]) -> AnswerEnds:
        """What ends the answers of a set, by the rendering of its first row and by the tokens of all.

        Args:
            rows: the set in any accepted format.
            tokenized: the same, tokenised.
        """
        if self.tokenizer is None:
            return AnswerEnds()
        ends = ends_of_tokens(tokenized, self.tokenizer)
        first = next(iter(rows))
        return ends | rendered_ends(first, self.tokenizer, self.template, self.chat_template_kwargs)

    def tokenize_eval(self, eval_dataset: Any) -> Any:
        """An evaluation set, or a mapping of them, tokenised; None stays None."""
        if isinstance(eval_dataset, Mapping):
            return {name: self.tokenize(rows, "eval") for name, rows in eval_dataset.items()}
        return None if eval_dataset is None else self.tokenize(eval_dataset, "eval")


@dataclass(frozen=True)
class TrainSets:
    """Tokenised training sets by name.

    Attributes:
        forget: rows to forget, with their alternates where a loss needs these.
        retain: rows to keep; None where no loss reads them.
        holdout: rows that the model has never seen; None where neither a level nor an anchor reads them.
        counted: retain rows that an n-gram is counted on, whether a loss reads them or not; None without one.
        anchors: the holdout rows that an anchor holds, all or some of them; None without one.
    """

    forget: TokenizedSet
    retain: TokenizedSet | None = None
    holdout: TokenizedSet | None = None
    counted: TokenizedSet | None = None
    anchors: TokenizedSet | None = None

    @property
    def alternates(self) -> datasets.Dataset:
        """The alternate answers of the forget rows, as rows of their own."""
        assert isinstance(self.forget, datasets.Dataset), "a stream has no rows to select"
        kept = self.forget.select_columns(["alternate_input_ids", "alternate_labels"])
        return kept.rename_columns({"alternate_input_ids": "input_ids", "alternate_labels": "labels"})

    @property
    def stream(self) -> bool:
        """Whether a set that is trained on has no length."""
        return any(is_stream(rows) for rows in (self.forget, self.retain, self.holdout))

    def longest(self, max_length: int | None, *, mismatches: bool) -> int:
        """Tokens of the longest row that a batch can hold, with `mismatches` also of those composed for it.

        Of streams nothing is known before their rows are read.
        """
        sets = [rows for rows in (self.forget, self.retain, self.holdout) if rows is not None]
        longest = max(longest_row(rows) for rows in sets)
        if not mismatches or is_stream(self.forget) or is_stream(self.retain):
            return longest
        composed = longest_mismatch(self.forget, self.retain)
        return max(longest, composed if max_length is None else min(composed, max_length))


def require_forget_retain(train_dataset: Any) -> None:
    """Raise unless the training data is a mapping with forget rows (and retain, holdout)."""
    if not isinstance(train_dataset, Mapping):
        raise input_error(
            expected="train_dataset={'forget': ..., 'retain': ...}",
            got=f"a {type(train_dataset).__name__}",
            why="a single set does not say what is to be forgotten and what is to be kept",
            fix="put what the model must forget under 'forget' and what it must keep under 'retain'",
        )
    unknown = [name for name in train_dataset if name not in TRAIN_SETS]
    if unknown:
        raise input_error(
            expected=f"sets named {', '.join(TRAIN_SETS)}",
            got=f"{unknown[0]!r}",
            why="a set of another name would not be used",
            fix=nearest(str(unknown[0]), TRAIN_SETS),
        )
    if train_dataset.get("forget") is None:
        raise input_error(
            expected="train_dataset['forget']",
            got=f"only {', '.join(train_dataset) or 'an empty mapping'}",
            why="there is nothing to forget",
            fix="pass the rows to forget under 'forget'",
        )


def tokenize_train_sets(
    train_dataset: Mapping[str, Any],
    options: RowOptions,
    *,
    alternates: Collection[str],
    retain: bool,
    holdout: bool,
    anchored: bool = False,
    counted: bool = False,
) -> TrainSets:
    """The sets that a run uses, tokenised and checked: a retain set where the losses want one, no row in two sets.

    Args:
        train_dataset: a mapping with `forget`, and `retain` and `holdout` where wanted.
        options: how rows become tokens.
        alternates: names of the sets ("forget", "retain") whose alternate answers a loss needs.
        retain: a loss needs retain rows.
        holdout: a level is calibrated on holdout rows.
        anchored: a loss needs holdout rows.
        counted: an n-gram is counted on the retain rows.
    """
    if counted and train_dataset.get("retain") is None:
        raise input_error(
            expected="train_dataset['retain'], for levels='ngram'",
            got=f"only {', '.join(train_dataset)}",
            why="the n-gram is counted on retain rows",
            fix="pass retain rows, or levels='holdout' or the name of a model that never saw the forget rows",
        )
    if retain and train_dataset.get("retain") is None:
        raise input_error(
            expected="train_dataset['retain']",
            got=f"only {', '.join(train_dataset)}",
            why="the losses of this run read retain rows: what the model must keep",
            fix="pass retain rows, or retain_loss='none' (and no random_mismatch) to train on forget rows alone",
        )
    if anchored and train_dataset.get("holdout") is None:
        raise input_error(
            expected="train_dataset['holdout']",
            got=f"only {', '.join(train_dataset)}",
            why="anchor_loss holds rows that the model has never seen where they are",
            fix="pass rows of the forget set's kind that the model was never trained on, or anchor_loss='none'",
        )
    forget = options.tokenize(train_dataset["forget"], "forget", alternates="forget" in alternates)
    kept = None
    if retain or counted:
        kept = options.tokenize(train_dataset["retain"], "retain", alternates="retain" in alternates)
    unseen_rows = train_dataset.get("holdout") if holdout or anchored else None
    unseen = None if unseen_rows is None else options.tokenize(unseen_rows, "holdout")
    _require_disjoint("forget", forget, "retain", kept, "the same answer would be pushed down and up at once")
    why = "the level of unseen data would be measured on rows that the model was trained on"
    for set_name, rows in (("forget", forget), ("retain", kept)):
        _require_disjoint(set_name, rows, "holdout", unseen, why)
    anchors = unseen if anchored else None
    return TrainSets(forget, kept if retain else None, unseen, kept if counted else None, anchors)


def _require_disjoint(first_name: str, first: Any, second_name: str, second: Any, why: str) -> None:
    """Raise when a row is in both sets; a set that is missing or a stream is not looked through."""
    if any(rows is None or is_stream(rows) for rows in (first, second)):
        return
    shared = shared_rows(first, second)
    if shared:
        raise input_error(
            expected=f"no row both in the {first_name} and in the {second_name} set",
            got=f"{len(shared)} {second_name} rows that are {first_name} rows, the first at index {shared[0]}",
            why=why,
            fix=f"remove those rows from the {second_name} set",
        )


def require_full_batch(rows: TokenizedSet | None, set_name: str, batch_size: int, ratio: tuple[str, float]) -> None:
    """Raise when one batch would need more rows of a set than there are.

    Args:
        rows: of the set.
        set_name: "retain" or "holdout".
        batch_size: forget rows of a micro-batch.
        ratio: rows of the set for each of them, by the argument's name.
    """
    if not isinstance(rows, datasets.Dataset):  # none, or a stream, of which nobody knows the length
        return
    name, value = ratio
    wanted = int(batch_size * value)
    if len(rows) < wanted:
        raise input_error(
            expected=f"at least {wanted} {set_name} rows, one batch (per_device_train_batch_size x {name})",
            got=f"{len(rows)}",
            why=f"a batch would hold the same {set_name} row twice and weigh it double",
            fix=f"pass more {set_name} rows, or lower per_device_train_batch_size or {name}",
        )
