"""The method of a run: its losses, step wrappers and weighting, resolved once from what the user wrote."""

from dataclasses import dataclass
from typing import Protocol

from ..component import Component
from ..losses import Loss
from ..steps import PerturbsHiddenStates, StepWrapper
from ..steps.weighting import Weighting
from .method_specs import (
    LossSpec,
    WeightingSpec,
    WrapperSpec,
    anchor_losses,
    forget_losses,
    retain_losses,
    step_wrappers,
    weighting_of,
)


class MethodArguments(Protocol):
    """The arguments of a run that name its method, as `UnlearningConfig` has them."""

    forget_loss: LossSpec
    retain_loss: LossSpec
    anchor_loss: LossSpec
    step_wrappers: WrapperSpec
    weighting: WeightingSpec


@dataclass(frozen=True)
class Methods:
    """The components that a run is made of. Made once, when the trainer is built, and passed on.

    Attributes:
        forget: terms of the forget side, at least one.
        retain: terms of the retain side, none of them for `retain_loss="none"`.
        wrappers: step wrappers, in the order given.
        weighting: how the weight of the retain side is set.
        anchor: terms over holdout rows, none of them for `anchor_loss="none"`.
    """

    forget: tuple[Loss, ...]
    retain: tuple[Loss, ...]
    wrappers: tuple[StepWrapper, ...]
    weighting: Weighting
    anchor: tuple[Loss, ...] = ()

    @classmethod
    def resolve(cls, args: MethodArguments, forget_loss: LossSpec = None, retain_loss: LossSpec = None) -> "Methods":
        """The method of a run's arguments.

        Args:
            args: of the run.
            forget_loss: the trainer's own, which comes before that of `args`; None where it has none.
            retain_loss: likewise.

        Raises:
            ValueError: names or arguments that nothing has, losses of the other side, or the same name twice.
        """
        return cls.parse(
            args.forget_loss if forget_loss is None else forget_loss,
            args.retain_loss if retain_loss is None else retain_loss,
            args.step_wrappers,
            args.weighting,
            args.anchor_loss,
        )

    @classmethod
    def parse(
        cls,
        forget_loss: LossSpec,
        retain_loss: LossSpec = None,
        wrappers: WrapperSpec = None,
        weighting: WeightingSpec = None,
        anchor_loss: LossSpec = None,
    ) -> "Methods":
        """The method of specs: names, mappings, JSON texts, objects, or lists of these. Raises as `resolve` does."""
        return cls(
            forget=tuple(forget_losses(forget_loss)),
            retain=tuple(retain_losses(retain_loss)),
            wrappers=tuple(step_wrappers(wrappers)),
            weighting=weighting_of(weighting),
            anchor=tuple(anchor_losses(anchor_loss)),
        )

    @property
    def attacks(self) -> list[PerturbsHiddenStates]:
        """The wrappers that perturb hidden states, as their arguments have it."""
        perturbing = [wrapper for wrapper in self.wrappers if isinstance(wrapper, PerturbsHiddenStates)]
        return [wrapper for wrapper in perturbing if wrapper.attack_layer is not None]

    @property
    def components(self) -> list[Component]:
        """All of it: losses, step wrappers and the weighting."""
        return [*self.forget, *self.retain, *self.anchor, *self.wrappers, self.weighting]
