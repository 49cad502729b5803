"""What is counted over a whole optimizer step before its first forward, so that however it is split it is one step."""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ...data.batch import AnswerIndex, Batch, answer_index, count_answers, parts_of
from ...model.head_query import HeadQuery
from ...model.output_head import output_head
from ...model.probe import ModelProbe
from ...model.router_loss import RouterLoss
from ...model.score_rows import evaluation_mode, preserve_rng_state
from ...model.scoring import model_inputs
from ..config import UnlearningConfig
from ..distributed_setup import DistributedSetup
from .parts_in_step import agree_on_parts, is_idle
from .ranks import sum_over_ranks

ROUTER_LOSS = "router_loss"  # the component's name in logs


class StepCounts:
    """Answer tokens and rows of each role in a step, and the choices of its experts, for the router loss.

    The router loss of a step is that of all its tokens, each once: of forget, retain and all other rows, no padding.
    Its shares F_e are those of the whole step, or the loss would change with the size of micro-batches: they are
    counted in one forward more of each micro-batch, without a graph, where a step has several.

    Args:
        accelerator: of the trainer.
        args: of the run.
        distributed: how it is spread over processes.
        by_side: whether forget and retain rows have forwards of their own.
    """

    def __init__(
        self, accelerator: Accelerator, args: UnlearningConfig, distributed: DistributedSetup, *, by_side: bool
    ) -> None:
        self._accelerator, self._micro_batches = accelerator, args.gradient_accumulation_steps
        cut = args.max_tokens_per_batch is not None
        self._agreed = cut and (distributed.deepspeed or distributed.fsdp)
        # Said by what all ranks know: where one counts its experts before the step, all others have to.
        self._several = cut or by_side or self._micro_batches > 1
        self.router_loss: RouterLoss | None = None
        self._in_step = False
        self._experts: Tensor | None = None  # None: counted in the step's one forward

    def begin_run(self, probe: ModelProbe) -> None:
        """Before the first step of a model: which router loss it has, if any."""
        self.router_loss = probe.router_loss
        self._in_step = False

    def begin_step(self, model: nn.Module, batches: Sequence[Batch], device: torch.device) -> Tensor:
        """Answer tokens and rows of each role over all micro-batches of all ranks, [roles, 2].

        Args:
            model: wrapped.
            batches: this rank's micro-batches of the step.
            device: of the model.
        """
        self._in_step, self._experts = True, None
        if self._agreed:
            agree_on_parts(batches, self._accelerator, self._micro_batches)
        parts = [part for batch in batches for part in parts_of(batch)]
        if self.router_loss is not None and self._several:
            with preserve_rng_state(), evaluation_mode(model), self._accelerator.autocast():
                choices = [self._choices(model, part, device) * (not is_idle(part)) for part in parts]
            self._experts = self._accelerator.reduce(torch.stack(choices).sum(0), "sum")
        first, *others = (count_answers(part) for part in parts if not is_idle(part))
        return sum_over_ranks(self._accelerator, sum(others, first).to(device))

    def with_router_loss(self, loss: Tensor, components: dict[str, Tensor], output: Any, batch: Batch) -> Tensor:
        """The loss of a micro-batch with its part of the step's router loss, which becomes one of the components.

        Args:
            loss: of the micro-batch.
            components: of it; outside of a step, and without a router loss, nothing is added.
            output: of its forward.
            batch: the micro-batch, or the rows of one side of it.
        """
        if self.router_loss is None or not self._in_step:
            return loss
        logits, mask = output.router_logits, batch.get("attention_mask")
        own = self.router_loss.counts(logits, mask)
        counts = self._accelerator.reduce(own, "sum") if self._experts is None else self._experts
        part = self.router_loss.part(logits, mask, counts)
        components[ROUTER_LOSS] = torch.stack([part.detach(), own[-1] / counts[-1]])
        return loss + self.router_loss.coefficient * part.to(loss.device)

    def _choices(self, model: nn.Module, batch: Batch, device: torch.device) -> Tensor:
        """How often a micro-batch chooses each expert; its logits are not computed."""
        assert self.router_loss is not None
        tensors = (Tensor, AnswerIndex)
        moved: Batch = {name: value.to(device) for name, value in batch.items() if isinstance(value, tensors)}
        index = answer_index(moved)
        query = HeadQuery(index.positions[:0], index.targets[:0], compute_logps=False)
        head = output_head(self._accelerator.unwrap_model(model))
        _, output = head.read(model, model_inputs(moved, index), query)
        return self.router_loss.counts(output.router_logits, moved.get("attention_mask"))
