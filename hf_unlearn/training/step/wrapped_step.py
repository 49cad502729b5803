"""Runs the step wrappers and the weighting inside Trainer's loop, on the gradients of whole optimizer steps."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import TrainerState

from ...data.batch import Batch, count_answers, parts_of, select_roles
from ...data.roles import Role
from ...model.score_rows import evaluation_mode
from ...steps import (
    ChangesForgetGradient,
    FollowsStep,
    KeepsState,
    MasksGradient,
    MeasuresTrainingSet,
    ReconcilesGradients,
    SetsFinalWeights,
)
from ...steps.base import Gradients, State
from ..methods import Methods
from ..objective import Objective
from .context import StepContext
from .kept_state import load_state, save_state
from .parts_in_step import before_last_part, is_idle
from .row_levels import RowLevels
from .side_gradient import FORGET_SIDE, RETAIN_SIDE, SideGradient

# The mean over a whole set leaves each row a gradient that fp16 cannot hold, so it is measured so many times as large.
_MEASURING_SCALE = 2.0**16

# (model, micro-batch, counts of the step) -> the loss, its gradient added to the weights'
Backward = Callable[[nn.Module, Batch, Tensor], Tensor]


class WrappedStep:
    """The step wrappers and the weighting of a run, with what they hold from step to step.

    Without a wrapper that reads one side's gradient, a micro-batch is Trainer's own: one forward and backward of all
    its rows. With one, the micro-batches of an optimizer step are collected, and at the last of them each side has
    forwards and backwards of its own rows.

    Args:
        methods: of the run.
        retain_weight: w_r of the first step.
        accelerator: of the trainer.

    Attributes:
        retain_weight: w_r of the present step.
        by_side: whether the rows of each side have forwards of their own.
        levels: what the losses are told of levels and progress, and how far the forget rows are from their levels.
    """

    def __init__(self, methods: Methods, retain_weight: float, accelerator: Accelerator) -> None:
        self.methods, self.accelerator = methods, accelerator
        self.retain_weight, self.levels = retain_weight, RowLevels(accelerator)
        self._progress = 1.0  # of the present step
        self._context: StepContext | None = None  # set and reset in `calling` alone
        self.by_side = any(isinstance(each, ChangesForgetGradient | ReconcilesGradients) for each in methods.wrappers)
        self._model: nn.Module | None = None
        self._states: dict[str, State] = {}
        self._clear()

    def _clear(self) -> None:
        self._retain_parts: list[Tensor] = []  # of the step's retain loss, for the weighting
        self._micro_steps: list[tuple[Batch, Tensor]] = []

    @property
    def _weights(self) -> list[nn.Parameter]:
        assert self._model is not None
        return [weight for weight in self._model.parameters() if weight.requires_grad]

    # Before the first step

    def begin(
        self,
        model: nn.Module,
        batches: Callable[[], Iterable[Batch]],
        compute_loss: Callable[..., Tensor],
        autocast: Callable[[], contextlib.AbstractContextManager[Any]],
    ) -> None:
        """Before the first step of a model: what the wrappers measure on it.

        Args:
            model: unwrapped, as it was before unlearning.
            batches: one pass over the training data, this rank's share of it.
            compute_loss: Trainer's.
            autocast: Trainer's, around the loss.
        """
        self._model = model

        def backward(model: nn.Module, inputs: Batch, counts: Tensor) -> Tensor:
            with evaluation_mode(model), torch.enable_grad(), autocast():
                loss = compute_loss(model, inputs, num_items_in_batch=counts)
            (loss * _MEASURING_SCALE).backward()
            return loss

        def sides() -> tuple[Gradients, Gradients]:
            # Nothing of this belongs to the run: not its random numbers, not its log.
            with torch.random.fork_rng(), self.calling(StepContext(recording=False)):
                counts = torch.stack([count_answers(batch) for batch in batches()]).sum(0)
                counts = self.accelerator.reduce(counts.to(self.accelerator.device), "sum")
                forget, retain = (
                    self._gradient(model, ((batch, counts) for batch in batches()), roles, backward).gradient
                    for roles in (FORGET_SIDE, RETAIN_SIDE)
                )
            return [part / _MEASURING_SCALE for part in forget], [part / _MEASURING_SCALE for part in retain]

        # A wrapper's hooks share one state by its name, whether it was measured, is kept, or both.
        self._states = {wrapper.name: {} for wrapper in self.methods.wrappers}
        for wrapper in self.methods.wrappers:
            if isinstance(wrapper, MeasuresTrainingSet):
                self._states[wrapper.name] |= wrapper.measure(self._weights, sides)
        self._begin_kept()

    def restart(self, first_retain_weight: Callable[[], float]) -> None:
        """At the start of a run of training: forget what belongs to the one before, its averages and its w_r."""
        self.retain_weight = first_retain_weight()
        self._clear()
        self.levels.restart()
        if self._model is not None:
            self._begin_kept()

    def _begin_kept(self) -> None:
        for wrapper in self.methods.wrappers:
            if isinstance(wrapper, KeepsState):
                self._states[wrapper.name] |= wrapper.begin(self._weights)

    # The step

    @property
    def context(self) -> StepContext:
        """What the present call of `compute_loss` is for; outside of a step it is one like any other of the run."""
        return self._context or replace(self._of_the_run(), progress=1.0)

    @contextlib.contextmanager
    def calling(self, context: StepContext) -> Iterator[None]:
        """Trainer's `compute_loss` inside is called for `context`."""
        outside, self._context = self._context, context
        try:
            yield
        finally:
            self._context = outside

    def _of_the_run(self, *, recording: bool = True, last: bool = False, idle: bool = False) -> StepContext:
        """The context of a call in a step, with the present w_r."""
        retain_weight = self.retain_weight if self.methods.weighting.moves else None
        together = self.accelerator.num_processes > 1 and not self.by_side
        return StepContext(recording and not idle, last, retain_weight, self._progress, idle, together)

    def record(self, objective: Objective, components: dict[str, Tensor]) -> None:
        """Add a micro-batch's share of the step's retain loss, which the weighting reads."""
        if not self.methods.weighting.moves or not self.context.recording:
            return
        for term in objective.retain:
            part = components.get(f"retain/{term.name}")
            if part is not None:
                self._retain_parts.append(part * part.new_tensor([term.weight, 1]))

    def training_step(
        self, backward: Backward, model: nn.Module, inputs: Batch, counts: Tensor, state: TrainerState
    ) -> Tensor:
        """One micro-batch of Trainer's loop; the last of an optimizer step leaves the wrapped gradient in the weights.

        Args:
            backward: Trainer's own training step.
            model: wrapped.
            inputs: the micro-batch.
            counts: answer tokens and rows of each role in the whole optimizer step.
            state: of the trainer.
        """
        last, self._progress = self.accelerator.sync_gradients, (state.global_step + 1) / state.max_steps
        loss = torch.zeros((), device=self.accelerator.device)
        if self.by_side:
            # A wrapper needs the gradient of the whole step, so its micro-batches wait for the last of them.
            self._micro_steps.extend((part, counts) for part in parts_of(inputs))
            if last:
                loss = self._step_by_side(backward, model, state.global_step)
        else:
            *earlier, final = parts_of(inputs)
            for part in earlier:
                with before_last_part(self.accelerator, model), self.calling(self._of_the_run(idle=is_idle(part))):
                    loss = loss + backward(model, part, counts)
            with self.calling(self._of_the_run(last=last)):
                loss = loss + backward(model, final, counts)
        if last:  # the weights now hold the gradient of the whole step, the mean over ranks
            for wrapper in self.methods.wrappers:
                if isinstance(wrapper, MasksGradient):
                    wrapper.after_backward(self._states[wrapper.name], self._weights)
        return loss

    def _step_by_side(self, backward: Backward, model: nn.Module, step: int) -> Tensor:
        """Both sides' gradients, each from a forward of its own rows, put together and left in the weights."""
        micro_steps, self._micro_steps = self._micro_steps, []
        losses: list[Tensor] = []
        reached: list[Tensor] = []

        def side(roles: Collection[Role], *, recording: bool) -> SideGradient:
            # None of these calls is the last of the step on every rank: a rank has as many as it has rows of a side.
            with self.calling(self._of_the_run(recording=recording)):
                measured = self._gradient(model, micro_steps, roles, backward)
            losses.append(measured.loss)
            reached.append(measured.reached)
            return measured

        def forget_gradient() -> Gradients:
            # A wrapper may ask again at other weights; the loss that is logged is that of its first question.
            return side(FORGET_SIDE, recording=not losses).gradient

        # g_f, nested: the second wrapper's "gradient at the present weights" is what the first makes of it there.
        gradient: Callable[[], Gradients] = forget_gradient
        for wrapper in self.methods.wrappers:
            if isinstance(wrapper, ChangesForgetGradient):
                gradient = partial(wrapper.forget_gradient, gradient, self._weights, step)
        forget = gradient()
        # g_r at the weights of the step, which every wrapper has restored.
        retain_loss, retain, _ = side(RETAIN_SIDE, recording=True)
        for wrapper in self.methods.wrappers:
            if isinstance(wrapper, ReconcilesGradients):
                forget = wrapper.reconciled(forget, retain)
        times_reached = self.accelerator.reduce(torch.stack(reached).sum(0).float(), "sum").tolist()
        for weight, first, second, times in zip(self._weights, forget, retain, times_reached, strict=True):
            # What no loss reaches has no gradient, as in a plain step: for a zero, weight decay would move it.
            weight.grad = (first + second).to(weight.dtype) if times else None
        return losses[0] + retain_loss

    def _gradient(
        self,
        model: nn.Module,
        micro_steps: Iterable[tuple[Batch, Tensor]],
        roles: Collection[Role],
        backward: Backward,
    ) -> SideGradient:
        """The gradient of one side over all of the step; the weights keep none."""
        model.zero_grad()  # Trainer's own backward adds to what is there
        loss = torch.zeros((), device=self.accelerator.device)
        # Averaged below, once: a side without rows on one rank makes no backward that DDP could average in.
        with self.accelerator.no_sync(model):
            for batch, counts in micro_steps:
                if any(bool((batch["role"] == role).any()) for role in roles):
                    loss = loss + backward(model, select_roles(batch, roles), counts).detach()
        reached = torch.tensor([weight.grad is not None for weight in self._weights], device=loss.device)
        gradient = []
        for weight in self._weights:
            own = torch.zeros_like(weight) if weight.grad is None else weight.grad
            gradient.append(self.accelerator.reduce(own.detach(), "mean"))
            weight.grad = None
        return SideGradient(loss, gradient, reached)

    def _update_weighting(self) -> None:
        if not self.methods.weighting.moves:
            return
        parts, self._retain_parts = self._retain_parts, []
        part = torch.stack(parts).sum(0) if parts else torch.zeros(2, device=self.accelerator.device)
        # One type on all ranks, with and without retain rows.
        loss, share = self.accelerator.reduce(part.float(), "sum").tolist()
        if share > 0:  # a step without retain rows says nothing of their loss
            # Each term's share is 1 in a step; at a stream's odd end two steps' losses come together.
            terms = len(self.methods.retain)
            self.retain_weight = self.methods.weighting.updated(self.retain_weight, loss * terms / share)

    def logged(self) -> dict[str, float]:
        """What the log shows of it: the present w_r where it moves, and the distance of the rows to their levels."""
        moving = {"retain_weight": self.retain_weight} if self.methods.weighting.moves else {}
        return moving | self.levels.logged()

    def after_step(self) -> None:
        """After the optimizer's step; not called for one that was dropped, which leaves no trace in what is held."""
        self._update_weighting()
        self.levels.after_step()
        for wrapper in self.methods.wrappers:
            if isinstance(wrapper, FollowsStep):
                wrapper.after_step(self._states[wrapper.name], self._weights)

    def finish(self) -> None:
        """At the end of the run."""
        for wrapper in self.methods.wrappers:
            if isinstance(wrapper, SetsFinalWeights):
                wrapper.finish(self._states[wrapper.name], self._weights)

    # Checkpoints

    def save(self, folder: str) -> None:
        """Write what a resumed run could not make again into a checkpoint's folder."""
        save_state(folder, self.methods, self.retain_weight, self._states)
        self.levels.save(folder)

    def load(self, folder: str) -> None:
        """Take up what `save` wrote; raises a ValueError for the checkpoint of a run with another method."""
        self._clear()
        self.levels.load(folder)
        retain_weight = load_state(folder, self.methods, self._states)
        if retain_weight is not None and self.methods.weighting.moves:
            self.retain_weight = retain_weight
