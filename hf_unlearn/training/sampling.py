"""How rows are paired and in which order they are trained, as `train_sampling_strategy` says."""

from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import BatchRebalanceSampler

from ..data.epoch_order import EpochOrder
from ..data.length_groups import LengthGroupedDataset, group_size
from ..data.pairing import ForgetRetainDataset, ForgetRetainStream
from ..data.prepare import TrainSets
from ..data.roles import Role
from ..errors import input_error
from .config import UnlearningConfig
from .objective import Objective

_BY_LENGTH = ("group_by_length", "batch_rebalance")
Lengths = tuple[np.ndarray | None, np.ndarray | None]


def order_seed(args: UnlearningConfig) -> int:
    """The seed of the order of rows and of what is drawn for them."""
    return args.seed if args.data_seed is None else args.data_seed


def pair_rows(
    objective: Objective, sets: TrainSets, args: UnlearningConfig, lengths: Lengths = (None, None)
) -> ForgetRetainDataset | ForgetRetainStream:
    """The sets paired as the objective wants them.

    Args:
        objective: says which roles are read.
        sets: tokenised.
        args: of the run.
        lengths: of the forget and of the retain rows, where the user has given them.
    """
    options: dict[str, Any] = dict(
        holdout=sets.anchors if Role.HOLDOUT in objective.needs.roles else None,
        retain_ratio=args.retain_ratio,
        anchor_ratio=args.anchor_ratio,
        pair_retain=Role.RETAIN in objective.needs.roles,
        mismatches=objective.mismatches,
        seed=order_seed(args),
        shuffle=args.train_sampling_strategy != "sequential",
        max_length=args.max_length,
    )
    if sets.stream:
        return ForgetRetainStream(sets.forget, sets.retain, **options)
    assert isinstance(sets.forget, datasets.Dataset)
    if args.train_sampling_strategy not in _BY_LENGTH:
        return ForgetRetainDataset(sets.forget, sets.retain, **options)
    size = len(sets.forget)  # Trainer's sampler for batch_rebalance cuts the batches itself
    if args.train_sampling_strategy == "group_by_length":
        size = group_size(size, args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size)
    return LengthGroupedDataset(sets.forget, sets.retain, group_size=size, lengths=lengths, **options)


def given_lengths(train_dataset: Mapping[str, Any] | None, args: UnlearningConfig) -> Lengths:
    """The column `length_column_name` of the forget and the retain set, where they have it and are sorted by length.

    Raises:
        ValueError: a name other than Trainer's default that no set has, or a column without numbers.
    """
    if train_dataset is None or args.train_sampling_strategy not in _BY_LENGTH:
        return None, None
    name, default = args.length_column_name, UnlearningConfig.length_column_name
    forget, retain = (_column(train_dataset.get(role), name) for role in ("forget", "retain"))
    if forget is None and retain is None and name != default:
        raise input_error(
            expected=f"a column {name!r} in the forget or the retain set, a datasets.Dataset (length_column_name)",
            got="none",
            why="the rows would be sorted by other lengths than those that were meant",
            fix="name the column that holds the lengths, or leave length_column_name out: tokens are then counted",
        )
    return forget, retain


def _column(rows: Any, name: str) -> np.ndarray | None:
    if not isinstance(rows, datasets.Dataset) or name not in rows.column_names:
        return None
    values = np.asarray(rows.with_format(None)[name][:])
    if values.dtype.kind not in "iuf":
        raise input_error(
            expected=f"numbers in the column {name!r} (length_column_name)",
            got=f"values of type {values.dtype}",
            why="rows of like length are put together by it",
            fix="rename the column, or set length_column_name to the one that holds the lengths",
        )
    return values


def train_sampler(rows: Any, args: UnlearningConfig, batch_size: int) -> Sampler | None:
    """The sampler of the forget rows: the epoch's own order, or Trainer's batches of balanced length.

    Args:
        rows: paired; for a stream, or a set of another kind, there is none.
        args: of the run.
        batch_size: forget rows of a micro-batch.
    """
    if not isinstance(rows, ForgetRetainDataset):
        return None
    if args.train_sampling_strategy != "batch_rebalance":
        return EpochOrder(rows)
    assert isinstance(rows, LengthGroupedDataset)
    return BatchRebalanceSampler(
        lengths=rows.forget_lengths.tolist(),
        effective_batch_size=batch_size * args.gradient_accumulation_steps * args.world_size,
        dp_size=args.world_size,
        grad_accum=args.gradient_accumulation_steps,
        rank=args.process_index,
        seed=rows.seed,  # Trainer's own is 42 for every run
        drop_last=args.dataloader_drop_last,
    )
