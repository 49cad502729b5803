"""What a call of `compute_loss` is for, which its arguments cannot say: their signature is Trainer's."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StepContext:
    """The place of one forward and backward in its optimizer step.

    Attributes:
        recording: whether its values are those of the run, for the log and the weighting. False for what is measured
            before the first step, and where a wrapper computes a gradient again at other weights.
        last: whether it is the last one of the optimizer step on this rank, between whose forward and backward the
            ranks can ask each other whether all losses were finite.
        retain_weight: w_r where a weighting moves it; None for that of the objective.
        progress: share of the run's steps up to and including the present one, by which losses have ramps; 1 outside
            of a step, where a loss is what it comes to be: what is measured before the first step holds for all.
        idle: whether its rows count elsewhere: another rank has a forward more, and waits for one of this rank.
        every_weight: whether other ranks, which may have rows of other roles, wait for a gradient of every weight.
    """

    recording: bool = True
    last: bool = False
    retain_weight: float | None = None
    progress: float = 1.0
    idle: bool = False
    every_weight: bool = False
