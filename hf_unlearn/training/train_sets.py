"""The rows of a run: tokenised, checked against each other and paired, in one call before the model is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets

from ..data.length_groups import LengthGroupedDataset, group_size
from ..data.lengths import longest_row
from ..data.pairing import ForgetRetainDataset, ForgetRetainStream
from ..data.prepare import (
    RowOptions,
    TrainSets,
    require_forget_retain,
    require_full_batch,
    tokenize_train_sets,
)
from ..data.roles import ALTERNATE_ROLES, Role
from ..steps import StepWrapper
from .baseline import needs_holdout
from .checks import require_readable_streams, require_rule_rows
from .config import UnlearningConfig
from .objective import Objective
from .step.checks import require_measurable_sets


@dataclass(frozen=True)
class RunSets:
    """All rows of a run.

    Attributes:
        train: the tokenised forget, retain and holdout rows; None without training data.
        paired: the forget rows with what they meet, as the trainer's `train_dataset`; None without training data.
        evaluation: the tokenised evaluation set, or a mapping of them by name; None without one.
        longest: tokens of the longest row that the model will be given, 0 without rows.
    """

    train: TrainSets | None
    paired: ForgetRetainDataset | ForgetRetainStream | None
    evaluation: Any
    longest: int


def build_train_sets(
    train_dataset: Any,
    eval_dataset: Any,
    objective: Objective,
    wrappers: Sequence[StepWrapper],
    args: UnlearningConfig,
    options: RowOptions,
) -> RunSets:
    """Everything that a run reads of the datasets that the trainer was given.

    Args:
        train_dataset: a mapping with `forget`, and `retain` and `holdout` where the objective or a level reads them;
            None for a trainer that only evaluates.
        eval_dataset: a set, or a mapping of them by name, or None.
        objective: says which sets and which alternate answers are read, and how rows meet.
        wrappers: step wrappers; some measure the whole training set.
        args: of the run.
        options: how rows become tokens.

    Raises:
        ValueError: rows that cannot be tokenised, a set that is missing, too small, or a stream where it may not be,
            a row in two sets, or a stop rule that would never see the number that it waits for.
    """
    train = tokenize_for(train_dataset, eval_dataset, objective, wrappers, args, options)
    require_rule_rows(args, train, eval_dataset)
    evaluation = options.tokenize_eval(eval_dataset)
    return RunSets(
        train=train,
        longest=_longest(objective, train, evaluation, args.max_length),
        paired=None if train is None else _paired(objective, train, args),
        evaluation=evaluation,
    )


def tokenize_for(
    train_dataset: Any,
    eval_dataset: Any,
    objective: Objective,
    wrappers: Sequence[StepWrapper],
    args: UnlearningConfig,
    options: RowOptions,
) -> TrainSets | None:
    """The sets that the objective and the run's levels read, tokenised and checked; None without training data.

    The arguments are those of `build_train_sets`.
    """
    if train_dataset is None:
        return None
    require_forget_retain(train_dataset)
    needs = objective.needs
    with args.main_process_first(desc="tokenising"):
        sets = tokenize_train_sets(
            train_dataset,
            options,
            alternates=[name for name, role in ALTERNATE_ROLES.items() if role in needs.roles],
            retain=bool(needs.roles & {Role.RETAIN, Role.MISMATCH}),
            holdout=needs_holdout(args),
        )
    require_readable_streams(args, sets, eval_dataset)
    if Role.RETAIN in needs.roles:
        require_full_batch(sets, args.per_device_train_batch_size, args.retain_ratio)
    require_measurable_sets(wrappers, sets)
    return sets


def _paired(objective: Objective, sets: TrainSets, args: UnlearningConfig) -> ForgetRetainDataset | ForgetRetainStream:
    """The sets paired as the objective wants them."""
    options: dict[str, Any] = dict(
        retain_ratio=args.retain_ratio,
        pair_retain=Role.RETAIN in objective.needs.roles,
        mismatches=objective.mismatches,
        seed=args.seed if args.data_seed is None else args.data_seed,
        shuffle=args.train_sampling_strategy == "random",
        max_length=args.max_length,
    )
    if sets.stream:
        return ForgetRetainStream(sets.forget, sets.retain, **options)
    assert isinstance(sets.forget, datasets.Dataset)
    if args.train_sampling_strategy == "group_by_length":
        step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        size = group_size(len(sets.forget), step)
        return LengthGroupedDataset(sets.forget, sets.retain, group_size=size, **options)
    if args.train_sampling_strategy == "batch_rebalance":
        # Trainer's sampler shuffles and cuts the batches itself, by the lengths of the forget rows.
        size = len(sets.forget)
        return LengthGroupedDataset(sets.forget, sets.retain, group_size=size, in_place=True, **options)
    return ForgetRetainDataset(sets.forget, sets.retain, **options)


def _longest(objective: Objective, sets: TrainSets | None, evaluation: Any, max_length: int | None) -> int:
    """Tokens of the longest row that the model will be given, of all sets; 0 without any."""
    evaluated = evaluation.values() if isinstance(evaluation, Mapping) else [evaluation]
    lengths = [longest_row(rows) for rows in evaluated if rows is not None]
    if sets is not None:
        lengths.append(sets.longest(max_length, mismatches=objective.mismatches > 0))
    return max(lengths, default=0)
