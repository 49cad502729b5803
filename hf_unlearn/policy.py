"""The forward of the model that unlearns: what it puts out for an objective, and under which perturbation."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from .config import UnlearningConfig
from .data.roles import Role
from .objective import Objective
from .scoring import Batch, Likelihoods, Scores, score
from .steps import StepWrapper
from .taps import Taps, block_number, decoder_blocks, hidden_of


def likelihoods_for(objective: Objective, args: UnlearningConfig) -> Likelihoods:
    """What the log-probs of a training forward are for: losses, else levels that are watched, else nothing."""
    if objective.needs.logps:
        return Likelihoods.TRAINED
    watched = (args.forget_nll_bound, args.stop_forget_nll, args.stop_retain_nll_increase)
    return Likelihoods.NONE if all(level is None for level in watched) else Likelihoods.READ


@dataclass(frozen=True)
class Policy:
    """The forward of one model for one objective.

    Args:
        model: unwrapped.
        objective: says what is read.
        wrappers: those with an `attack_layer` perturb the hidden states of forget rows.
        likelihoods: what the log-probs are for.
    """

    model: Any
    objective: Objective
    wrappers: Sequence[StepWrapper]
    likelihoods: Likelihoods

    def check_layers(self) -> None:
        """Raise for layers that the model does not have, before training."""
        layers = {*self.objective.layers, *(w.attack_layer for w in self.wrappers if w.attack_layer is not None)}
        for layer in layers:
            block_number(layer, len(decoder_blocks(self.model)))

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Scores, Any]:
        """Scores of a batch and the output of one forward through `model`, wrapped as it may be."""
        with contextlib.ExitStack() as attacks:
            for wrapper in self.wrappers:
                if wrapper.attack_layer is not None:
                    attacks.enter_context(self._attacked(wrapper, wrapper.attack_layer, batch))
            layers = self.objective.layers
            return score(
                model,
                self._head,
                batch,
                logits=self.objective.needs.logits,
                taps=Taps(decoder_blocks(self.model), layers) if layers else None,
                likelihoods=self.likelihoods,
            )

    @property
    def _head(self) -> nn.Module:
        return self.model.get_output_embeddings()

    @contextlib.contextmanager
    def _attacked(self, wrapper: StepWrapper, layer: float, batch: Batch) -> Iterator[None]:
        """A forward inside sees the wrapper's perturbation at the layer, on the rows to forget alone."""
        rows = int((batch["role"] == Role.FORGET).sum())
        if not rows:
            yield
            return
        # The forget rows come first; their padding stays, so that positions are those of the batch.
        forget = {key: value[:rows] for key, value in batch.items() if isinstance(value, Tensor)}
        blocks = decoder_blocks(self.model)
        block = blocks[block_number(layer, len(blocks)) - 1]
        seen = forget["attention_mask"].unsqueeze(-1)

        def nll(delta: Tensor) -> Tensor:
            # Not through DDP: its reducer counts every forward, and no weight gets a gradient here.
            with _added(block, delta * seen):
                scores, _ = score(self.model, self._head, forget)
            return -scores.rows(Role.FORGET).logps.mean()

        size = self.model.get_input_embeddings().weight.new_zeros(()).dtype
        start = torch.zeros(
            (*forget["input_ids"].shape, self.model.config.get_text_config().hidden_size),
            dtype=torch.promote_types(size, torch.float32),
            device=forget["input_ids"].device,
        )
        delta = wrapper.attack(nll, start) * seen
        with _added(block, pad(delta, (0, 0, 0, 0, 0, len(batch["role"]) - rows))):
            yield


@contextlib.contextmanager
def _added(block: nn.Module, delta: Tensor) -> Iterator[None]:
    def add(_: nn.Module, __: Any, output: Any) -> Any:
        hidden = hidden_of(output)
        moved = hidden + delta.to(hidden.dtype)
        return moved if isinstance(output, Tensor) else (moved, *output[1:])

    handle = block.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
