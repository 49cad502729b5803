"""Changes of a gradient step, one file each: step wrappers, which compose with any loss, and weightings of both sides.

They see gradients and weights, never a model or the data.
"""

from ..plugins import PluginTable, components
from .base import (
    ChangesForgetGradient,
    FollowsStep,
    KeepsState,
    MasksGradient,
    MeasuresTrainingSet,
    PerturbsHiddenStates,
    ReconcilesGradients,
    SetsFinalWeights,
    StepWrapper,
)
from .latent_adversarial import LatentAdversarial
from .random_smoothing import RandomSmoothing
from .saliency import SaliencyMask
from .sam import SAM
from .surgery import GradientSurgery
from .weight_averaging import WeightAveraging

STEP_WRAPPERS = PluginTable[type[StepWrapper]](
    "step wrapper",
    {
        wrapper.name: wrapper
        for wrapper in (SAM, RandomSmoothing, WeightAveraging, LatentAdversarial, SaliencyMask, GradientSurgery)
    },
    lambda plugin: components(plugin.step_wrappers, StepWrapper),
)

__all__ = [
    "SAM",
    "STEP_WRAPPERS",
    "ChangesForgetGradient",
    "FollowsStep",
    "GradientSurgery",
    "KeepsState",
    "LatentAdversarial",
    "MasksGradient",
    "MeasuresTrainingSet",
    "PerturbsHiddenStates",
    "RandomSmoothing",
    "ReconcilesGradients",
    "SaliencyMask",
    "SetsFinalWeights",
    "StepWrapper",
    "WeightAveraging",
]
