"""Memory of the output head at answer positions, found by running it on fake tensors."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ..data.roles import Role
from ..model.chunk_sizes import ChunkSizes
from ..model.chunked_logits import read_positions
from ..model.head_backward import LMHead
from ..model.head_query import HeadQuery, ReferenceLogits
from ..model.logit_transform import LogitTransform
from ..model.reference_logits import HeadLogits, TopKLogits
from ..model.scoring import RowScores
from ..training.objective import Objective
from .activations import Compute
from .live_bytes import LiveBytes


@dataclass(frozen=True)
class HeadShape:
    """An output head: hidden size, vocabulary, whether its weight is trained, and how it goes in chunks."""

    hidden: int
    vocabulary: int
    trained: bool
    sizes: ChunkSizes


@dataclass(frozen=True)
class HeadCost:
    """Bytes alive beside weights, hidden states of the batch and kept hidden states of the reference.

    Attributes:
        forward: the peak of the forward pass.
        end: at its end, inside autocast.
        kept: after it, until the backward pass.
        backward: the peak of the backward pass, the gradient of the head's weight with it.
    """

    forward: int
    end: int
    kept: int
    backward: int


def measure_head(
    shape: HeadShape,
    compute: Compute,
    objective: Objective,
    tokens: Mapping[Role, int],
    *,
    differentiated: bool,
    top_k: int | None = None,
) -> HeadCost:
    """The head's share of a step.

    Args:
        shape: of the head.
        compute: precision.
        objective: what it reads of the distributions.
        tokens: answer tokens of each role.
        differentiated: whether a loss reads log-probs or distributions.
        top_k: tokens of each distribution of the reference that are cached; None where it comes from hidden states.
    """
    total = sum(tokens.values())
    with FakeTensorMode():
        linear = nn.Linear(shape.hidden, shape.vocabulary, bias=False, dtype=compute.dtype)
        linear.requires_grad_(shape.trained)
        hidden = torch.empty(total, shape.hidden, dtype=compute.dtype, requires_grad=differentiated)
        targets = torch.empty(total, dtype=torch.long)
        autocast = torch.autocast(
            "cpu", dtype=compute.autocast or torch.bfloat16, enabled=compute.autocast is not None
        )
        with autocast:
            provider = LMHead(linear, linear.forward, LogitTransform())
        references = _references(objective, tokens, provider, shape.hidden, compute.dtype, top_k)
        weights = [linear.weight] if shape.trained and differentiated else []
        live = LiveBytes()
        live.ignore([linear.weight, hidden, targets, *references[1]])
        with live:
            with autocast:
                picked = hidden.index_select(0, targets)
                query = _query(objective, references[0], tokens, targets)
                values = read_positions(picked, query, provider, weights, shape.vocabulary, shape.sizes)
                del picked
                forward, end = live.peak, live.now
            kept = live.now
            live.restart_peak()
            if differentiated:
                values.backward(torch.empty_like(values))
        return HeadCost(forward, end, kept, live.peak)


def _references(
    objective: Objective,
    tokens: Mapping[Role, int],
    provider: LMHead,
    hidden: int,
    dtype: torch.dtype,
    top_k: int | None,
) -> tuple[dict[Role, RowScores], list[torch.Tensor]]:
    """Scores under the reference of the roles whose distributions are read, and the tensors that they are made of."""
    none, rows = torch.empty(0), {}
    tensors: list[torch.Tensor] = []
    for role in objective.needs.reference_logits:
        logits: ReferenceLogits
        if top_k is None:
            states = torch.empty(tokens[role], hidden, dtype=dtype)
            tensors, logits = [*tensors, states], HeadLogits(provider, states)
        else:
            ids = torch.empty(tokens[role], top_k, dtype=torch.long)
            logps = torch.empty(tokens[role], top_k)
            tensors, logits = [*tensors, ids, logps], TopKLogits(ids, logps)
        rows[role] = RowScores(none, none, none, none, none, logits=logits)
    return rows, tensors


def _query(
    objective: Objective, references: Mapping[Role, RowScores], tokens: Mapping[Role, int], targets: torch.Tensor
) -> HeadQuery:
    """What the objective asks of the head, the tokens of the roles one after another as in a batch."""
    places: dict[Role | None, slice] = {}
    start = 0
    for role in Role:
        places[role] = slice(start, start + tokens.get(role, 0))
        start = places[role].stop
    return HeadQuery(targets, targets, places, objective.readouts(references))
