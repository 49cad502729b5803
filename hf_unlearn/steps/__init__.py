"""Stage 4b, what wraps a gradient step: one file each, composing with any loss. None sees a model or the data."""

from .base import StepWrapper
from .latent_adversarial import LatentAdversarial
from .random_smoothing import RandomSmoothing
from .saliency import SaliencyMask
from .sam import SAM
from .surgery import GradientSurgery
from .weight_averaging import WeightAveraging

STEP_WRAPPERS: dict[str, type[StepWrapper]] = {
    wrapper.name: wrapper
    for wrapper in (SAM, RandomSmoothing, WeightAveraging, LatentAdversarial, SaliencyMask, GradientSurgery)
}

__all__ = [
    "SAM",
    "STEP_WRAPPERS",
    "GradientSurgery",
    "LatentAdversarial",
    "RandomSmoothing",
    "SaliencyMask",
    "StepWrapper",
    "WeightAveraging",
]
