"""Stage 4b, what wraps a gradient step: one file each, composing with any loss. None sees a model or the data."""

from ..plugins import PluginTable, components
from .base import StepWrapper
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
    "GradientSurgery",
    "LatentAdversarial",
    "RandomSmoothing",
    "SaliencyMask",
    "StepWrapper",
    "WeightAveraging",
]
