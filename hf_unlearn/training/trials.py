"""Arguments that change between two runs of one trainer: by the trials of a hyperparameter search, or by the user."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from transformers import TrainingArguments
from transformers.hyperparameter_search import default_hp_search_backend
from transformers.trainer_utils import HPSearchBackend, default_compute_objective

from ..errors import input_error, nearest, require_range
from ..steps import MeasuresTrainingSet
from .argument_ranges import require_anchor
from .config import UnlearningConfig
from .method_specs import spec_to_data
from .methods import Methods
from .objective import Objective, build_objective

TUNABLE = ("forget_loss", "retain_loss", "forget_weight", "retain_weight", "anchor_loss", "anchor_weight")
# Of Trainer's own arguments, those by which the rows were paired.
_ORDER = ("train_sampling_strategy", "length_column_name")


def checkpoint_asked_for(given: str | bool | None, args: UnlearningConfig, trial: Any) -> str | bool | None:
    """Where a run goes on from: what `train` is given, else `args.resume_from_checkpoint`, which Trainer ignores.

    Args:
        given: to `train`; False starts anew whatever `args` say.
        args: with a folder, or "true" (the last checkpoint) or "false" as a command line has them.
        trial: of a search, which starts anew.
    """
    asked = args.resume_from_checkpoint if given is None and trial is None else given
    return {"true": True, "false": False}.get(str(asked).lower(), asked)


def arguments_at_start(args: UnlearningConfig) -> dict[str, Any]:
    """The arguments as they are when a trainer is built, the tunable ones as the user wrote them."""
    return args.to_dict() | {name: getattr(args, name) for name in TUNABLE}


@contextlib.contextmanager
def trial_arguments(args: UnlearningConfig, at_start: Mapping[str, Any], trial: Any) -> Iterator[None]:
    """What a trial proposes comes into `args` as it is, and what it does not propose is as at the start.

    Trainer casts a proposal to the type of the value before it: a mapping for `forget_loss="npo"` to text, 0.3 for
    `forget_weight=1` to 0. It does not where there was None. What the trial before proposed would stay, too.

    Args:
        args: of the trainer.
        at_start: `arguments_at_start`.
        trial: None where Trainer sets nothing.
    """
    if trial is None:
        yield
        return
    for name in TUNABLE:
        setattr(args, name, None)
    try:
        yield
    finally:
        for name in TUNABLE:
            if getattr(args, name) is None:
                setattr(args, name, at_start[name])


def retuned(
    objective: Objective, methods: Methods, args: UnlearningConfig, at_start: Mapping[str, Any], given: set[str]
) -> Objective:
    """The objective with the loss arguments and weights that are now on `args`.

    Args:
        objective: of the run before.
        methods: of `args` as they are now.
        args: with what a trial or the user has set.
        at_start: `arguments_at_start`.
        given: tunable arguments that the trainer was given beside `args`, over which those of `args` have no say.

    Raises:
        ValueError: another set of losses, or an argument that can no longer have an effect.
    """
    now, then = args.to_dict(), {**at_start, **{name: spec_to_data(at_start[name]) for name in TUNABLE}}
    ours = {field.name for field in fields(UnlearningConfig)} - {field.name for field in fields(TrainingArguments)}
    changed = {name for name in ours.union(_ORDER) if now[name] != then[name]}
    fixed = sorted(changed.difference(TUNABLE) | changed.intersection(given))
    for name in ("forget_weight", "retain_weight", "anchor_weight"):
        require_range(name, getattr(args, name), at_least=0)
    require_anchor(args)
    new = build_objective(methods, args)
    if not fixed and _as_data(new) == _as_data(objective):
        return objective
    prepared_for = [(o.component_names, o.mismatches, o.layers, o.needs.token_levels) for o in (new, objective)]
    measured = [wrapper.name for wrapper in methods.wrappers if isinstance(wrapper, MeasuresTrainingSet)]
    if fixed or measured or prepared_for[0] != prepared_for[1]:
        raise input_error(
            expected=f"a run with other TrainingArguments, or loss weights and arguments ({', '.join(TUNABLE)})",
            got=[*fixed, *(f"{name}, which is measured before" for name in measured), "other losses or layers"][0],
            why="rows, losses and reference were prepared for what the trainer was built with",
            fix="build one trainer per value; a loss that is searched over belongs into args, not into forget_loss=",
        )
    return new


def without_pruning(backend: Any, options: dict[str, Any], processes: int) -> dict[str, Any]:
    """The options of a search in which no trial is pruned where that would end it on the first process alone.

    optuna's decision never reaches the other processes: they would wait for the first one's gradients for ever. Its
    own default prunes from the sixth trial on.

    Args:
        backend: as in `hyperparameter_search`.
        options: of the backend.
        processes: that train together.

    Raises:
        ValueError: the user wants pruning.
    """
    if processes == 1 or HPSearchBackend(backend or default_hp_search_backend()) != HPSearchBackend.OPTUNA:
        return options
    import optuna  # the user's: no dependency of ours

    if not isinstance(options.get("pruner"), optuna.pruners.NopPruner | None):
        raise input_error(
            expected="a search without a pruner, in several processes",
            got=type(options["pruner"]).__name__,
            why="a pruned trial ends on the first process alone, for which the others then wait for ever",
            fix="leave pruner out, or search in one process",
        )
    return options | {"pruner": optuna.pruners.NopPruner()}


def known_arguments(hp_space: Callable[[Any], Mapping[str, Any]] | None, args: UnlearningConfig) -> Any:
    """A search space whose proposals are arguments of the run: of others Trainer says so in its log and goes on.

    Args:
        hp_space: the user's, or None for the backend's own.
        args: of the trainer.
    """
    if hp_space is None:
        return None

    def space(trial: Any) -> Mapping[str, Any]:
        proposed = hp_space(trial)
        unknown = [] if trial is None else [name for name in proposed if not hasattr(args, name)]
        if unknown:
            raise input_error(
                expected="hp_space to propose arguments of UnlearningConfig",
                got=f"{unknown[0]!r}",
                why="it would be set nowhere, and its trials would differ by chance alone",
                fix=nearest(unknown[0], list(args.to_dict())),
            )
        return proposed

    return space


def _as_data(objective: Objective) -> list[Any]:
    terms = [spec_to_data(list(side)) for side in (objective.forget, objective.retain, objective.anchor)]
    return [*terms, objective.forget_weight, objective.retain_weight, objective.anchor_weight]


def prepare_search(
    trainer: Any, hp_space: Any = None, compute_objective: Any = None, *others: Any, **options: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of `Trainer.hyperparameter_search`, checked before its first trial.

    Args:
        trainer: built with `model_init`.
        hp_space: the user's, or None.
        compute_objective: the user's, or None.
        others: n_trials, direction, backend and hp_name, as far as they have no name.
        options: the other arguments.

    Returns:
        the arguments without and with a name, as Trainer is to have them.
    """
    judged = judge(compute_objective, trainer.eval_dataset, trainer.compute_metrics)
    backend = others[2] if len(others) > 2 else options.get("backend")
    options = without_pruning(backend, options, trainer.args.world_size)
    return (known_arguments(hp_space, trainer.args), judged, *others), options


def judge(
    compute_objective: Callable[[dict[str, float]], Any] | None, eval_dataset: Any, compute_metrics: Any
) -> Callable[[dict[str, float]], Any]:
    """What the trials of a search are compared by, from the metrics of an evaluation.

    Args:
        compute_objective: the user's, or None for Trainer's: the loss of the evaluation set, or the sum of the metrics
            that `compute_metrics` adds to it.
        eval_dataset: of the trainer.
        compute_metrics: of the trainer.

    Raises:
        ValueError: nothing is evaluated, or Trainer's default would add up figures that are to rise and to fall.
    """
    if eval_dataset is None:
        raise input_error(
            expected="an eval_dataset for hyperparameter_search",
            got="none",
            why="its trials are compared by an evaluation",
            fix="pass eval_dataset={'forget': ..., 'retain': ...}",
        )
    if compute_objective is not None:
        return compute_objective
    if isinstance(eval_dataset, Mapping):
        raise input_error(
            expected="compute_objective for a search with several evaluation sets",
            got="none",
            why="Trainer's own adds up all metrics: the NLL that is to rise with the one that is to stay",
            fix="pass e.g. compute_objective=lambda metrics: metrics['eval_retain_nll'] - metrics['eval_forget_nll']",
        )
    if compute_metrics is None:
        return lambda metrics: metrics["eval_loss"]
    own = ("eval_nll", "eval_probability")
    return lambda metrics: default_compute_objective({k: v for k, v in metrics.items() if k not in own})
