"""The forward of the model that unlearns: scores for an objective, under the perturbations of step wrappers."""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.parallel import DistributedDataParallel

from ...data.batch import Batch, answer_index
from ...data.roles import Role
from ...errors import input_error
from ...model.forward_patching import hidden_states_in_output, shifted_output
from ...model.hidden_states import HiddenStateCapture, block_number, decoder_blocks
from ...model.output_head import OutputHead, output_head
from ...model.router_loss import RouterLoss
from ...model.scoring import Likelihoods, RowScores, Scores, score
from ...steps import PerturbsHiddenStates
from ..config import UnlearningConfig
from ..objective import Objective


def likelihoods_for(objective: Objective, args: UnlearningConfig, router_loss: RouterLoss | None) -> Likelihoods:
    """What the log-probs of a training forward are for: losses, else levels that are watched, else nothing.

    A router loss is one of all layers: with it no forward ends early, or goes on without a graph.
    """
    if objective.needs.logps or router_loss is not None:
        return Likelihoods.TRAINED
    watched = (args.forget_nll_bound, args.stop_forget_nll, args.stop_at_level, args.stop_retain_nll_increase)
    return Likelihoods.NONE if all(level is None for level in watched) else Likelihoods.READ


@dataclass(frozen=True)
class UnlearningForward:
    """The forward of one model for one objective.

    Args:
        model: unwrapped.
        objective: says what is read.
        attacks: perturb the hidden states of forget rows.
        likelihoods: what the log-probs are for.
    """

    model: Any
    objective: Objective
    attacks: Sequence[PerturbsHiddenStates]
    likelihoods: Likelihoods

    def check_layers(self) -> None:
        """Raise for layers that the model does not have, or below which nothing is trained, before training."""
        attacked = [(attack.name, attack.attack_layer) for attack in self.attacks if attack.attack_layer is not None]
        layers = {*self.objective.layers, *(layer for _, layer in attacked)}
        if not layers:
            return
        blocks = decoder_blocks(self.model)
        numbers = {layer: block_number(layer, len(blocks)) for layer in layers}
        if self.objective.needs.logps:
            return
        deepest = max(numbers[layer] for layer in self.objective.layers)
        for name, layer in attacked:
            if numbers[layer] > deepest:
                raise input_error(
                    expected=f"{name} at or below layer {deepest}, the deepest that a loss reads",
                    got=f"layer {layer:g}",
                    why="no loss would see the perturbation",
                    fix=f"set its layer to {deepest} or lower",
                )
        above = {id(weight) for module in (*blocks[deepest:], self._head.module) for weight in module.parameters()}
        above -= {id(weight) for weight in self.model.get_input_embeddings().parameters()}  # the head's own, when tied
        if all(id(weight) in above for weight in self.model.parameters() if weight.requires_grad):
            raise input_error(
                expected=f"trainable weights below layer {deepest}, from whose hidden states the losses are computed",
                got="trainable weights above it alone",
                why="no weight would get a gradient",
                fix="raise `layer`, or put adapters on lower blocks (layers_to_transform of LoraConfig)",
            )

    def __call__(self, model: nn.Module, batch: Batch, references: Mapping[Role, RowScores]) -> tuple[Scores, Any]:
        """Scores of a batch, each role with its reference, and the output of one forward.

        Args:
            model: wrapped as it may be.
            batch: as the collator made it.
            references: the same rows under the reference.
        """
        head = self._head
        self._require_room(answer_index(batch).longest, head)
        with contextlib.ExitStack() as stack:
            for attack in self.attacks:
                if attack.attack_layer is not None:
                    stack.enter_context(self._attacked(attack, attack.attack_layer, batch))
            layers = self.objective.layers
            # No loss reads log-probs: DDP must see in the output that hidden states get gradients.
            if (
                isinstance(getattr(model, "_orig_mod", model), DistributedDataParallel)
                and self.likelihoods is not Likelihoods.TRAINED
            ):
                stack.enter_context(hidden_states_in_output(self.model, self._blocks_at(layers)))
            scores, output = score(
                model,
                head,
                batch,
                readouts=self.objective.readouts(references),
                capture=HiddenStateCapture(decoder_blocks(self.model), layers) if layers else None,
                likelihoods=self.likelihoods,
            )
        return scores.with_reference(references), output

    def _require_room(self, longest: int, head: OutputHead) -> None:
        """Raise for a row that the model has no positions for: those of streams are known only when they are read."""
        if longest <= (head.positions or 0):
            return
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if positions is not None and longest > positions:
            raise input_error(
                expected=f"rows of at most {positions} tokens, the model's max_position_embeddings",
                got=f"a row of {longest} tokens in a batch",
                why="the model has no positions for the rest",
                fix=f"set max_length={positions} or lower, and go on from the last checkpoint",
            )

    @property
    def _head(self) -> OutputHead:
        return output_head(self.model)

    def _blocks_at(self, layers: Collection[float]) -> list[nn.Module]:
        """The decoder blocks whose output the layers are, each once."""
        blocks = decoder_blocks(self.model)
        return [blocks[number - 1] for number in {block_number(layer, len(blocks)) for layer in layers}]

    @contextlib.contextmanager
    def _attacked(self, attack: PerturbsHiddenStates, layer: float, batch: Batch) -> Iterator[None]:
        """A forward inside sees the perturbation of an attack at the layer, on the rows to forget alone."""
        rows = answer_index(batch).rows[Role.FORGET]
        if not rows:
            yield
            return
        self._head.examine(self.model, batch)  # a forward of two tokens, to which no perturbation fits
        # The forget rows come first; their padding stays, so that positions are those of the batch.
        forget = {key: value[:rows] for key, value in batch.items() if isinstance(value, Tensor)}
        (block,) = self._blocks_at([layer])
        seen = forget["attention_mask"].unsqueeze(-1)  # padding stays as it is

        def nll_sum(delta: Tensor) -> Tensor:
            # Not through DDP: its reducer counts every forward, and no weight gets a gradient here.
            with shifted_output(block, delta * seen):
                scores, _ = score(self.model, self._head, forget)
            # The sum: a mean over many tokens leaves gradients that fp16 cannot hold, and their length is not read.
            return -scores.rows(Role.FORGET).logps.sum()

        dtype = self.model.get_input_embeddings().weight.dtype
        start = torch.zeros(
            (*forget["input_ids"].shape, self.model.config.get_text_config().hidden_size),
            dtype=torch.promote_types(dtype, torch.float32),
            device=forget["input_ids"].device,
        )
        delta = attack.attack(nll_sum, start) * seen
        with shifted_output(block, pad(delta, (0, 0, 0, 0, 0, len(batch["role"]) - rows))):
            yield
