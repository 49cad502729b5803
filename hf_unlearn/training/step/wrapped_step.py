"""Runs the step wrappers and the weighting inside Trainer's loop, on the gradients of whole optimizer steps."""

import contextlib
import json
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import TrainerState

from ...data.batch import Batch, count_answers, select_roles
from ...data.roles import Role
from ...errors import input_error
from ...model.score_rows import evaluation_mode
from ...steps import StepWrapper
from ...steps.base import Gradients, State
from ...steps.weighting import Fixed
from ..method_specs import method_to_dict
from ..methods import Methods
from ..objective import Objective

FORGET_SIDE = (Role.FORGET, Role.ALTERNATE, Role.MISMATCH)
RETAIN_SIDE = (Role.RETAIN, Role.RETAIN_ALTERNATE)

# In a folder of its own: some loaders take every .safetensors file beside a model for its weights.
STATE_FILE = "unlearning/state.safetensors"
_PLAIN = {"step_wrappers": "[]", "weighting": json.dumps(method_to_dict(Fixed()))}

# (model, micro-batch, counts of the step) -> the loss, its gradient added to the weights'
Backward = Callable[[nn.Module, Batch, Tensor], Tensor]


class WrappedStep:
    """What a run's step wrappers and weighting keep from step to step; `retain_weight` is the present w_r."""

    def __init__(self, methods: Methods, retain_weight: float, accelerator: Accelerator) -> None:
        self.wrappers, self.weighting, self.accelerator = methods.wrappers, methods.weighting, accelerator
        self.splits = any(wrapper.splits for wrapper in self.wrappers)  # each side of a step has forwards of its own
        self.recording = True
        self._model: nn.Module | None = None
        self._reached = torch.zeros(())  # how often each weight got a gradient in a step
        self._states: dict[str, State] = {}
        self.retain_weight = retain_weight
        self._clear()

    def restart(self, first_retain_weight: Callable[[], float]) -> None:
        """Forget what belongs to one run of training, the averages and the weight reached."""
        self.retain_weight = first_retain_weight()
        self._clear()
        for wrapper in self.wrappers:
            if wrapper.kept and self._model is not None:
                self._states[wrapper.name] = wrapper.begin(self._weights, self._no_sides)

    def _clear(self) -> None:
        self._retain_parts: list[Tensor] = []
        self._terms = 1
        self._micro_steps: list[tuple[Batch, Tensor]] = []

    def begin(
        self,
        model: nn.Module,
        batches: Callable[[], Iterable[Batch]],
        compute_loss: Callable[..., Tensor],
        context: Callable[[], contextlib.AbstractContextManager[Any]],
    ) -> None:
        """Before the first step of a model: what the wrappers measure on it.

        Args:
            model: unwrapped, as it was before unlearning.
            batches: one pass over the training data, this rank's share of it.
            compute_loss: Trainer's.
            context: Trainer's, around the loss (mixed precision).
        """
        self._model = model

        def backward(model: nn.Module, inputs: Batch, counts: Tensor) -> Tensor:
            with evaluation_mode(model), torch.enable_grad(), context():
                loss = compute_loss(model, inputs, num_items_in_batch=counts)
            # Scaled, because the mean over a whole set leaves each row a gradient that fp16 cannot hold.
            (loss * _MEASURING_SCALE).backward()
            return loss

        def sides() -> tuple[Gradients, Gradients]:
            # Nothing of this belongs to the run: not its random numbers, not its log.
            with torch.random.fork_rng():
                counts = torch.stack([count_answers(batch) for batch in batches()]).sum(0)
                counts = self.accelerator.reduce(counts.to(self.accelerator.device), "sum")
                self.recording = False
                try:
                    found = [
                        self._gradient(model, ((batch, counts) for batch in batches()), roles, backward)[1]
                        for roles in _SIDES
                    ]
                finally:
                    self.recording = True
            forget, retain = ([gradient / _MEASURING_SCALE for gradient in side] for side in found)
            return forget, retain

        self._states = {wrapper.name: wrapper.begin(self._weights, sides) for wrapper in self.wrappers}

    @property
    def _weights(self) -> list[nn.Parameter]:
        assert self._model is not None
        return [weight for weight in self._model.parameters() if weight.requires_grad]

    @staticmethod
    def _no_sides() -> tuple[Gradients, Gradients]:
        raise AssertionError("only what is kept in checkpoints is begun again")

    # The step

    def weighted(self, objective: Objective) -> Objective:
        """The objective with the present w_r."""
        # What is measured before the first step has the run's own first w_r, as a fixed weighting has throughout.
        moves = self.recording and self.weighting.moves
        return objective.with_retain_weight(self.retain_weight) if moves else objective

    def record(self, objective: Objective, components: dict[str, Tensor]) -> None:
        """Add a micro-batch's share of the step's retain loss, which the weighting reads."""
        if self.recording and self.weighting.moves:
            self._terms = len(objective.retain)
            found = [(term.weight, components.get(f"retain/{term.name}")) for term in objective.retain]
            self._retain_parts += [part * part.new_tensor([weight, 1]) for weight, part in found if part is not None]

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
        last = self.accelerator.sync_gradients
        if self.splits:
            self._micro_steps.append((inputs, counts))
            loss = torch.zeros((), device=self.accelerator.device)
            if last:
                loss = self._split_step(backward, model, state.global_step)
        else:
            loss = backward(model, inputs, counts)
        if last:
            for wrapper in self.wrappers:
                wrapper.after_backward(self._states[wrapper.name], self._weights)
            self._update_weighting()
        return loss

    def _split_step(self, backward: Backward, model: nn.Module, step: int) -> Tensor:
        """Both sides' gradients, each from a forward of its own rows, put together and left in the weights."""
        micro_steps, self._micro_steps = self._micro_steps, []
        self._reached = torch.zeros(len(self._weights), device=self.accelerator.device)
        losses: list[Tensor] = []

        def forget_gradient() -> Gradients:
            # A wrapper may ask again at other weights; the loss that is logged is that of its first question.
            self.recording = not losses
            loss, gradient = self._gradient(model, micro_steps, FORGET_SIDE, backward)
            losses.append(loss)
            return gradient

        gradient: Callable[[], Gradients] = forget_gradient
        for wrapper in self.wrappers:
            gradient = _wrapped(wrapper, gradient, self._weights, step)
        try:
            forget = gradient()
        finally:
            self.recording = True
        loss, retain = self._gradient(model, micro_steps, RETAIN_SIDE, backward)
        for wrapper in self.wrappers:
            forget = wrapper.reconciled(forget, retain)
        reached = self.accelerator.reduce(self._reached, "sum").tolist()
        for weight, first, second, times in zip(self._weights, forget, retain, reached, strict=True):
            # What no loss reaches has no gradient, as in a plain step: for a zero, weight decay would move it.
            weight.grad = (first + second).to(weight.dtype) if times else None
        return losses[0] + loss

    def _gradient(
        self,
        model: nn.Module,
        micro_steps: Iterable[tuple[Batch, Tensor]],
        roles: Collection[Role],
        backward: Backward,
    ) -> tuple[Tensor, Gradients]:
        """The loss of one side on this rank, and its gradient over all of the step; the weights keep none."""
        model.zero_grad()
        loss = torch.zeros((), device=self.accelerator.device)
        # Averaged below, once: a side without rows on one rank makes no backward that DDP could average in.
        with self.accelerator.no_sync(model):
            for batch, counts in micro_steps:
                if any(bool((batch["role"] == role).any()) for role in roles):
                    loss = loss + backward(model, select_roles(batch, roles), counts).detach()
        found = torch.tensor([weight.grad is not None for weight in self._weights])
        self._reached = self._reached + found.to(self._reached)
        gradients = []
        for weight in self._weights:
            own = torch.zeros_like(weight) if weight.grad is None else weight.grad
            gradients.append(self.accelerator.reduce(own.detach(), "mean"))
            weight.grad = None
        return loss, gradients

    def _update_weighting(self) -> None:
        if not self.weighting.moves:
            return
        parts, self._retain_parts = self._retain_parts, []
        part = torch.stack(parts).sum(0) if parts else torch.zeros(2, device=self.accelerator.device)
        # One type on all ranks, with and without retain rows.
        loss, share = self.accelerator.reduce(part.float(), "sum").tolist()
        if share > 0:  # a step without retain rows says nothing of their loss
            # Each term's share is 1 in a step; at a stream's odd end two steps' losses come together.
            self.retain_weight = self.weighting.updated(self.retain_weight, loss * self._terms / share)

    def logged(self) -> dict[str, float]:
        """What the log shows of it: the present w_r where it moves."""
        return {"retain_weight": self.retain_weight} if self.weighting.moves else {}

    def after_step(self) -> None:
        """After the optimizer's step."""
        for wrapper in self.wrappers:
            wrapper.after_step(self._states[wrapper.name], self._weights)

    def finish(self) -> None:
        """At the end of the run."""
        for wrapper in self.wrappers:
            wrapper.finish(self._states[wrapper.name], self._weights)

    # Checkpoints

    @property
    def _made_with(self) -> dict[str, str]:
        """What a checkpoint says of the run that wrote it."""
        wrappers = sorted((method_to_dict(wrapper) for wrapper in self.wrappers), key=lambda each: each["name"])
        return {"step_wrappers": json.dumps(wrappers), "weighting": json.dumps(method_to_dict(self.weighting))}

    def save(self, folder: str) -> None:
        """Write what a resumed run could not make again; a plain run has nothing of the kind."""
        if self._made_with == _PLAIN:
            return
        tensors = {"retain_weight": torch.tensor(self.retain_weight, dtype=torch.float64)}
        for wrapper in self.wrappers:
            for name in wrapper.kept:
                parts = self._states[wrapper.name][name]
                tensors |= {f"{wrapper.name}.{name}.{i}": part.contiguous() for i, part in enumerate(parts)}
        path = Path(folder) / STATE_FILE
        path.parent.mkdir(exist_ok=True)
        save_file(tensors, path, metadata=self._made_with)

    def load(self, folder: str) -> None:
        """Take up what `save` wrote.

        Raises:
            ValueError: the checkpoint is of a run with other wrappers or another weighting.
        """
        self._clear()
        path = Path(folder) / STATE_FILE
        if not path.is_file():
            # Trainer's own checkpoints, and those of save_only_model, are of plain runs for all that they tell.
            self._require_made_with(_PLAIN)
            return
        with safe_open(path, framework="pt") as stored:
            self._require_made_with(stored.metadata())
            if self.weighting.moves:
                self.retain_weight = float(stored.get_tensor("retain_weight"))
            for wrapper in self.wrappers:
                for name in wrapper.kept:
                    parts = self._states[wrapper.name][name]
                    parts[:] = [
                        stored.get_tensor(f"{wrapper.name}.{name}.{i}").to(part.device) for i, part in enumerate(parts)
                    ]

    def _require_made_with(self, written: dict[str, str]) -> None:
        for argument, name in self._made_with.items():
            if written[argument] != name:
                raise input_error(
                    expected=f"a checkpoint of a run with {argument}: {name}",
                    got=f"one of a run with {argument}: {written[argument]}",
                    why="the run would go on as another one",
                    fix="resume with the arguments of the run that wrote it, or start anew from its model",
                )


_SIDES = (FORGET_SIDE, RETAIN_SIDE)
_MEASURING_SCALE = 2.0**16


def _wrapped(
    wrapper: StepWrapper, gradient: Callable[[], Gradients], weights: list[nn.Parameter], step: int
) -> Callable[[], Gradients]:
    return lambda: wrapper.forget_gradient(gradient, weights, step)
