"""The training data that an objective asks for: which sets are tokenised, checked and paired. No model here."""

from collections.abc import Mapping
from typing import Any

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
from ..data.roles import Role
from .baseline import needs_holdout
from .checks import require_readable_streams
from .config import UnlearningConfig
from .objective import Objective

# set -> the role of its rows' alternate answers
_ALTERNATES = {"forget": Role.ALTERNATE, "retain": Role.RETAIN_ALTERNATE}


def tokenize_for(
    objective: Objective, train_dataset: Any, eval_dataset: Any, rows: RowOptions, args: UnlearningConfig
) -> TrainSets | None:
    """The sets that the losses and the run's levels read, tokenised and checked; None without training data."""
    if train_dataset is None:
        return None
    require_forget_retain(train_dataset)
    needs = objective.needs
    with args.main_process_first(desc="tokenising"):
        sets = tokenize_train_sets(
            train_dataset,
            rows,
            alternates=[name for name, role in _ALTERNATES.items() if role in needs.roles],
            retain=bool(needs.roles & {Role.RETAIN, Role.MISMATCH}),
            holdout=needs_holdout(args),
        )
    require_readable_streams(args, sets, eval_dataset)
    if Role.RETAIN in needs.roles:
        require_full_batch(sets, args.per_device_train_batch_size, args.retain_ratio)
    return sets


def pair_for(
    objective: Objective, sets: TrainSets | None, args: UnlearningConfig
) -> ForgetRetainDataset | ForgetRetainStream | None:
    """The sets paired as the objective wants them; None without training data."""
    if sets is None:
        return None
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
    if args.train_sampling_strategy == "group_by_length":
        step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        size = group_size(len(sets.forget), step)
        return LengthGroupedDataset(sets.forget, sets.retain, group_size=size, **options)
    if args.train_sampling_strategy == "batch_rebalance":
        # Trainer's sampler shuffles and cuts the batches itself, by the lengths of the forget rows.
        size = len(sets.forget)
        return LengthGroupedDataset(sets.forget, sets.retain, group_size=size, in_place=True, **options)
    return ForgetRetainDataset(sets.forget, sets.retain, **options)


def longest_of(objective: Objective, sets: TrainSets | None, eval_sets: Any, max_length: int | None) -> int:
    """Tokens of the longest row that the model will be given."""
    members = eval_sets.values() if isinstance(eval_sets, Mapping) else [eval_sets] if eval_sets is not None else []
    lengths = [longest_row(rows, max_length) for rows in members]
    if sets is not None:
        lengths.append(sets.longest(max_length, mismatches=objective.mismatches > 0))
    return max(lengths, default=0)
