"""Measures the levels of a run before its first step: on whole models and on those that are split over ranks."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache as once
from functools import partial
from typing import Any

import datasets
from torch import nn
from trl.models import prepare_deepspeed, prepare_fsdp

from ...data.collator import DataCollatorForUnlearning
from ...data.holdout_split import anchored_places
from ...data.prepare import TrainSets
from ...data.token_arrays import token_arrays
from ...model.output_head import output_head
from ...model.score_rows import RowLogps
from ..config import UnlearningConfig
from ..distributed_setup import DistributedSetup
from ..reference.cache import ReferenceCache
from .estimate import estimate_levels, given_levels, moved_levels
from .levels import Levels
from .model_rows import ProfiledRows
from .ngram import NGram
from .ngram_columns import ORDERS
from .profile import Profile, answer_lengths, load_profile_model, ngram_logps, ngram_profile
from .setting import HOLDOUT, MODEL, NGRAM


def measure_levels(
    model: nn.Module,
    args: UnlearningConfig,
    sets: TrainSets,
    profiled: ProfiledRows | None,
    cache: ReferenceCache,
    distributed: DistributedSetup,
    *,
    tokens: bool,
) -> tuple[Levels | None, RowLogps | None]:
    """The levels that the arguments ask for, and what the model gives to the holdout rows where they were read.

    Every rank calls it. What is computed of a model or counted is kept in `cache` by its content.

    Args:
        model: before unlearning; wrapped where it is split over ranks.
        args: of the run.
        sets: their holdout rows are the calibration half.
        profiled: the rows as the model reads them that `args.levels` names; None where it names none.
        cache: of reference log-probs.
        distributed: how the run is spread over processes.
        tokens: whether a loss reads levels of answer tokens.
    """
    device = cache.scorer.accelerator.device
    if args.levels is None:
        return None, None
    if isinstance(args.levels, Mapping):
        return given_levels(args.levels).to(device), None
    assert sets.holdout is not None, "levels are calibrated on holdout rows"
    unseen = cache.logps(model, sets.holdout, "likelihoods of holdout rows")
    if args.levels == HOLDOUT:
        source, profiles = HOLDOUT, [Profile.flat(answer_lengths(rows)) for rows in (sets.forget, sets.holdout)]
    elif args.levels == NGRAM:
        vocabulary = output_head(cache.scorer.accelerator.unwrap_model(model)).vocabulary
        source, profiles = NGRAM, _by_ngram(sets, vocabulary, cache)
    else:
        assert profiled is not None
        source, profiles = MODEL, _by_model(str(args.levels), args, sets, profiled, cache, distributed)
    forget, calibration = profiles
    levels = estimate_levels(source, forget, calibration, unseen, sets.forget, tokens=tokens).to(device)
    if args.recalibrate_steps is None:
        return levels, unseen
    assert isinstance(sets.holdout, datasets.Dataset)
    places = anchored_places(sets.holdout)[1]
    rows, before = sets.holdout.select(places), unseen.select(places)

    def again(model: nn.Module) -> Levels:
        now = cache.scorer(model, rows, "likelihoods of unseen rows")
        return moved_levels(levels, forget.lengths, before, now).to(device)

    return replace(levels, again=again), unseen


def _by_ngram(sets: TrainSets, vocabulary: int, cache: ReferenceCache) -> list[Profile]:
    """Of forget and calibration rows: the row's mean under the 4-gram, and what n-grams say of each token."""

    counted: Any = sets.counted

    @once
    def longest() -> NGram:  # counted once, and only where the cache lacks something
        return NGram.count([ids for ids, _ in token_arrays(counted)], vocabulary, max(ORDERS))

    def by_order(rows: Any, order: int) -> RowLogps:
        name = f"Witten-Bell {order}-gram of {vocabulary}"
        return cache.counted(name, counted, rows, lambda: ngram_logps(longest().shortened(order), rows))

    return [ngram_profile(partial(by_order, rows), rows) for rows in (sets.forget, sets.holdout)]


def _by_model(
    name: str,
    args: UnlearningConfig,
    sets: TrainSets,
    profiled: ProfiledRows,
    cache: ReferenceCache,
    distributed: DistributedSetup,
) -> list[Profile]:
    both: tuple[tuple[Any, Any], ...] = ((profiled.forget, sets.forget), (profiled.calibration, sets.holdout))
    accelerator = cache.scorer.accelerator
    loaded = load_profile_model(name, args.init_kwargs, [rows for rows, _ in both])
    # Loaded in parts where the run's own model is: put together by the same machinery.
    if distributed.zero_stage == 3:
        scored = prepare_deepspeed(loaded, accelerator)
    else:
        scored = prepare_fsdp(loaded, accelerator) if distributed.fsdp else loaded.to(accelerator.device)
    own = replace(cache.scorer, collator=DataCollatorForUnlearning(profiled.tokenizer.pad_token_id))
    cache, profiles = replace(cache, scorer=own, tokenizer=profiled.tokenizer), []
    for rows, in_own_tokens in both:
        logps = cache.logps(scored, rows, "likelihoods under the model that profiles the rows")
        plain = profiled.own_tokens
        profiles.append(Profile.of_tokens(logps) if plain else Profile.of_text(logps, answer_lengths(in_own_tokens)))
    return profiles
