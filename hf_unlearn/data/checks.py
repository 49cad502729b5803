"""Checks that a set can be tokenised and trained on, and their errors."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..errors import input_error, nearest, require_range, value_error

logger = logging.get_logger(__name__)

# How long a row was and how many targets it had and kept, under these names beside its ids until the set is checked.
FULL_LENGTH, TARGETS, KEPT_TARGETS = COUNTS = ("full_length", "targets", "kept_targets")


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise a ValueError unless the tokenizer has the two special tokens that every run needs."""
    if tokenizer.eos_token_id is None:
        raise input_error(
            expected="a tokenizer with an end-of-text token",
            got="eos_token=None",
            why="an answer that never ends is neither learnt nor forgotten as a whole",
            fix='tokenizer.eos_token = "</s>", or whichever token of its vocabulary ends a text',
        )
    if tokenizer.pad_token_id is None:
        raise input_error(
            expected="a tokenizer with a padding token",
            got="pad_token=None",
            why="rows of unlike lengths are padded into one batch",
            fix="tokenizer.pad_token = tokenizer.eos_token (safe here: real end tokens stay trained)",
        )


def check_max_length(max_length: int | None) -> None:
    """Raise a ValueError unless `max_length` is None or an integer of at least 2."""
    if max_length is not None:  # a row's first token is never predicted, so a row of one would train nothing
        require_range("max_length", max_length, at_least=2, whole=True)


def check_limit(limit: int | None, *, at_least: int = 1, hint: str = "") -> None:
    """Raise a ValueError unless `limit`, a number of rows, is None or an int of at least `at_least`; `hint`: why."""
    if limit is not None:
        require_range("limit", limit, at_least=at_least, whole=True, hint=hint)


def require_columns(
    needed: Collection[str], available: Collection[str], *, why: str, set_name: str | None = None
) -> None:
    """Raise a ValueError for the first needed column that is not there; `why` is the error's third part."""
    for name in needed:
        if name not in available:
            raise input_error(
                expected=f"a column {name!r}" + ("" if set_name is None else f" in {set_name!r}"),
                got=f"columns {list(available)}",
                why=why,
                fix=nearest(name, available),
            )


def check_template(template: str | None) -> None:
    """Raise a ValueError unless `template` is None or has `{prompt}` and `{completion}` once each, in this order."""
    fields = ("{prompt}", "{completion}")
    if template is None:
        return
    if [template.count(field) for field in fields] != [1, 1] or template.index(fields[0]) > template.index(fields[1]):
        raise value_error("template", "a text with {prompt} and {completion}, once each and in this order", template)


def check_targets(
    counts: Mapping[str, np.ndarray], indices: Sequence[int], set_name: str, max_length: int | None, prefix: str = ""
) -> None:
    """Raise a ValueError if a row has no target, or none within `max_length`.

    Args:
        counts: the `COUNTS` of the rows, each [rows].
        indices: the rows' places in their set.
        set_name: of the set.
        max_length: the cut, in tokens.
        prefix: "alternate_" where the rows are alternates.
    """
    labels = f"`{prefix}labels`"
    untrained = np.flatnonzero(counts[TARGETS] == 0)
    if len(untrained):
        raise input_error(
            expected=f"at least one answer token in every row of the {set_name} set",
            got=f"{len(untrained)} rows, the first of them row {indices[untrained[0]]}, whose {labels} are all -100 "
            "(the first position aside, which is never a target)",
            why="such rows train nothing, and a mean over their answers does not exist",
            fix="drop these rows or correct their labels",
        )
    cut = np.flatnonzero(counts[KEPT_TARGETS] == 0)
    if len(cut):
        raise input_error(
            expected=f"every row of the {set_name} set to keep some of its answer within max_length={max_length}",
            got=f"{len(cut)} rows, the first of them row {indices[cut[0]]}, all of whose {labels} lie beyond it",
            why="rows are cut from the right, so nothing of their answers is left to train",
            fix=f"raise max_length (the longest row has {int(counts[FULL_LENGTH].max())} tokens), or drop these rows",
        )


def report_cut(counts: Mapping[str, np.ndarray], set_name: str, max_length: int | None, prefix: str = "") -> None:
    """Log, once a set, how many rows and answer tokens the cut to `max_length` has cost."""
    longer = 0 if max_length is None else int((counts[FULL_LENGTH] > max_length).sum())
    if longer:
        logger.warning(
            "%d of %d %s%s rows were longer than max_length=%d; %d answer tokens were cut off",
            longer,
            len(counts[FULL_LENGTH]),
            set_name,
            " alternate" if prefix else "",
            max_length,
            int((counts[TARGETS] - counts[KEPT_TARGETS]).sum()),
        )


def empty_set(set_name: str) -> ValueError:
    """The error of a set without rows."""
    return input_error(
        expected=f"at least one row in the {set_name} set",
        got="an empty set",
        why="there is nothing to tokenise",
        fix=f"pass rows for {set_name!r}, and check any filter or split applied to them",
    )


def missing_alternates(got: str, set_name: str) -> ValueError:
    """The error of rows without the alternate answers that the chosen loss needs."""
    return input_error(
        expected=f"an alternate answer in every row of the {set_name} set",
        got=got,
        why="the chosen loss compares with that answer",
        fix="add an `alternate` column (a refusal, say: dataset.add_column('alternate', [...])), or "
        "`alternate_input_ids` and `alternate_labels` to tokenised rows"
        + ("; or pass TRL's preference rows, whose `chosen` is the alternate" if set_name == "forget" else ""),
    )
