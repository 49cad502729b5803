"""The rows of a run in the tokens of another model, by which its levels are profiled."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase

from ...data.formats import RowFormat, detect_format
from ...data.prepare import RowOptions, TrainSets
from ...data.tokenization import TokenizedSet
from ...errors import input_error
from ...model.loading import load_tokenizer
from ..config import UnlearningConfig
from .profile import same_tokens
from .setting import profile_model


@dataclass(frozen=True)
class ProfiledRows:
    """Forget and calibration rows as the model that profiles them reads them.

    Attributes:
        forget: tokenised.
        calibration: tokenised.
        tokenizer: of that model; the run's own where both have the same tokens.
        own_tokens: whether they are in the run's own tokens.
    """

    forget: TokenizedSet
    calibration: TokenizedSet
    tokenizer: PreTrainedTokenizerBase
    own_tokens: bool


def profiled_rows(
    train_dataset: Mapping[str, Any], sets: TrainSets, args: UnlearningConfig, options: RowOptions, model: str | None
) -> ProfiledRows | None:
    """The rows that the model named by `levels` scores; None where none is named.

    Args:
        train_dataset: forget rows, and under "holdout" the calibration half.
        sets: the same, tokenised.
        args: of the run.
        options: how rows became tokens.
        model: name of the run's own model, None for one in memory.

    Raises:
        ValueError: the run's own model, or one of another tokenizer for rows that are token ids alone.
    """
    name = profile_model(args.levels)
    if name is None or sets.holdout is None:
        return None
    if model is not None and _same_place(name, model):
        raise input_error(
            expected="levels to name a model that never saw the forget rows",
            got="the model that is to forget them",
            why="it knows these rows, and its NLL of them is no level of unseen ones",
            fix="name the model before it was fine-tuned on them, or pass levels='ngram'",
        )
    theirs = load_tokenizer(name, init_kwargs=args.init_kwargs)
    assert options.tokenizer is not None
    if same_tokens(options.tokenizer, theirs):
        return ProfiledRows(sets.forget, sets.holdout, options.tokenizer, own_tokens=True)
    theirs.pad_token = theirs.pad_token or theirs.eos_token
    # Without a limit: the same text has another length there. What lies on disk stays in the run's own tokens.
    other = replace(options, tokenizer=theirs, max_length=None, cache=None, labels_from=None)
    forget, calibration = (_retokenized(other, train_dataset[part], part) for part in ("forget", "holdout"))
    return ProfiledRows(forget, calibration, theirs, own_tokens=False)


def _retokenized(options: RowOptions, rows: Any, name: str) -> TokenizedSet:
    columns = rows.column_names if isinstance(rows, datasets.Dataset) else list(next(iter(rows)))
    if detect_format(columns, name) is RowFormat.TOKENIZED:
        raise input_error(
            expected=f"{name} rows with their text, for levels by a model of another tokenizer",
            got="token ids alone",
            why="its log-probs are of the text in its own tokens",
            fix="pass rows as prompt and completion, or name a model of the same tokenizer",
        )
    return options.tokenize(rows, name)


def _same_place(one: str, other: str) -> bool:
    paths = [Path(name) for name in (one, other)]
    return one == other or (all(path.is_dir() for path in paths) and paths[0].samefile(paths[1]))
