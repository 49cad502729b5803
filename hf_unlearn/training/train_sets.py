"""The rows of a run: tokenised, checked against each other and paired, in one call before the model is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets

from ..data.holdout_split import anchored_places, calibration_rows
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
from .checks import require_best_metric, require_readable_streams, require_rule_rows
from .config import UnlearningConfig
from .levels.checks import require_both_parts, require_levels
from .levels.model_rows import ProfiledRows, profiled_rows
from .levels.setting import NGRAM, splits_holdout
from .objective import Objective
from .sampling import given_lengths, pair_rows
from .step.checks import require_measurable_sets


@dataclass(frozen=True)
class RunSets:
    """All rows of a run.

    Attributes:
        train: the tokenised forget, retain and holdout rows; None without training data.
        paired: the forget rows with what they meet, as the trainer's `train_dataset`; None without training data.
        evaluation: the tokenised evaluation set, or a mapping of them by name; None without one.
        longest: tokens of the longest row that the model will be given, 0 without rows.
        profiled: rows as the model reads them that the levels are profiled by; None where none is named.
    """

    train: TrainSets | None
    paired: ForgetRetainDataset | ForgetRetainStream | None
    evaluation: Any
    longest: int
    profiled: ProfiledRows | None = None


def build_train_sets(
    train_dataset: Any,
    eval_dataset: Any,
    objective: Objective,
    wrappers: Sequence[StepWrapper],
    args: UnlearningConfig,
    options: RowOptions,
    model: str | None = None,
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
        model: name of the run's model, None for one in memory.

    Raises:
        ValueError: rows that cannot be tokenised, a set that is missing, too small, or a stream where it may not be,
            a row in two sets, or a stop rule that would never see the number that it waits for.
    """
    train_dataset = calibrated(train_dataset, args)
    train = tokenize_for(train_dataset, eval_dataset, objective, wrappers, args, options)
    require_rule_rows(args, train, eval_dataset)
    require_best_metric(args, eval_dataset)
    evaluation = options.tokenize_eval(eval_dataset)
    return RunSets(
        train=train,
        longest=_longest(objective, train, evaluation, args.max_length),
        paired=None if train is None else pair_rows(objective, train, args, given_lengths(train_dataset, args)),
        evaluation=evaluation,
        profiled=None if train is None else profiled_rows(train_dataset, train, args, options, model),
    )


def calibrated(train_dataset: Any, args: UnlearningConfig) -> Any:
    """The sets, of the holdout rows only the half that a run may be fitted to, where it is fitted to any."""
    if not isinstance(train_dataset, Mapping) or not splits_holdout(args):
        return train_dataset
    unseen = train_dataset.get("holdout")
    if unseen is None:  # refused where the other sets are looked at
        return train_dataset
    return {**train_dataset, "holdout": calibration_rows(unseen)}


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
            anchored=Role.HOLDOUT in needs.roles,
            counted=args.levels == NGRAM,
        )
    require_readable_streams(args, sets, eval_dataset)
    require_levels(args, sets, needs)
    if args.recalibrate_steps is not None:
        assert isinstance(sets.holdout, datasets.Dataset)  # levels of streams are refused
        held, followed = anchored_places(sets.holdout)
        require_both_parts(len(held), len(followed))
        sets = replace(sets, anchors=sets.holdout.select(held))
    require_full_batches(sets, objective, args)
    require_measurable_sets(wrappers, sets)
    return sets


def require_full_batches(sets: TrainSets, objective: Objective, args: UnlearningConfig) -> None:
    """Raise when one batch would hold a retain or a holdout row twice."""
    for role, rows, ratio in (
        (Role.RETAIN, sets.retain, ("retain_ratio", args.retain_ratio)),
        (Role.HOLDOUT, sets.anchors, ("anchor_ratio", args.anchor_ratio)),
    ):
        if role in objective.needs.roles:
            require_full_batch(rows, role.name.lower(), args.per_device_train_batch_size, ratio)


def _longest(objective: Objective, sets: TrainSets | None, evaluation: Any, max_length: int | None) -> int:
    """Tokens of the longest row that the model will be given, of all sets; 0 without any."""
    evaluated = evaluation.values() if isinstance(evaluation, Mapping) else [evaluation]
    lengths = [longest_row(rows) for rows in evaluated if rows is not None]
    if sets is not None:
        lengths.append(sets.longest(max_length, mismatches=objective.mismatches > 0))
    return max(lengths, default=0)
