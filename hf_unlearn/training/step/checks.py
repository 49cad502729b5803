"""What a run's step wrappers and weighting cannot be combined with, refused before the first step."""

from collections.abc import Sequence

from ...data.prepare import TrainSets
from ...errors import input_error
from ...steps import MeasuresTrainingSet, ReconcilesGradients, SetsFinalWeights, StepWrapper
from ..config import UnlearningConfig
from ..methods import Methods


def require_retain_side(methods: Methods) -> None:
    """Raise for a weighting or a step wrapper that reads the retain side of a run without one."""
    if methods.retain:
        return
    if methods.weighting.moves:
        raise input_error(
            expected=f"a retain loss, for weighting={methods.weighting.name!r}, which follows it",
            got="retain_loss='none'",
            why="there is no retain loss to set a weight by",
            fix="pass a retain_loss, or weighting='fixed'",
        )
    for wrapper in methods.wrappers:
        # An anchor has a gradient of what is kept, too.
        if isinstance(wrapper, ReconcilesGradients) and not methods.anchor:
            raise input_error(
                expected=f"a retain loss, for {wrapper.name}",
                got="retain_loss='none'",
                why="without a retain gradient it changes nothing",
                fix="pass a retain_loss, or leave it out",
            )


def require_wrapped_optimizer(args: UnlearningConfig, wrappers: Sequence[StepWrapper]) -> None:
    """Raise for an optimizer that steps before wrappers see the gradient, and for two owners of the final weights."""
    optimizer = str(getattr(args.optim, "value", args.optim))
    if wrappers and (optimizer in ("lomo", "adalomo") or optimizer.endswith("_layerwise")):
        raise input_error(
            expected=f"an optimizer that steps after backward, for {wrappers[0].name}",
            got=f"optim={optimizer!r}",
            why="it changes each weight as soon as its gradient is there, before any wrapper sees it",
            fix="use optim='adamw_torch', or leave step_wrappers out",
        )
    final = [wrapper.name for wrapper in wrappers if isinstance(wrapper, SetsFinalWeights)]
    if args.load_best_model_at_end and final:
        raise input_error(
            expected=f"{final[0]} without load_best_model_at_end",
            got="both",
            why=f"the run would end with the weights of {final[0]} and with the best checkpoint, which are two models",
            fix="drop one of them",
        )


def require_measurable_sets(wrappers: Sequence[StepWrapper], sets: TrainSets | None) -> None:
    """Raise when a step wrapper measures the whole training set, and the set is a stream."""
    for wrapper in wrappers:
        if isinstance(wrapper, MeasuresTrainingSet) and sets is not None and sets.stream:
            raise input_error(
                expected=f"sets with a length, for {wrapper.name}",
                got="a stream",
                why="it is measured on the whole training set before the first step",
                fix="pass the sets as datasets.Dataset",
            )
