"""What kind of model a run has, asked before its first step; what cannot be trained with it is refused."""

import math
from typing import Any

from accelerate import Accelerator
from torch import nn

from ..data.roles import Role
from ..errors import input_error
from ..evaluation.main_process import refused_together
from ..model.forward_patching import hidden_of, output_hooks
from ..model.hidden_states import decoder_blocks
from ..model.probe import ModelProbe, Trial, probe_model
from ..model.probe_checks import require_left_padding, require_rows_apart, require_scorable
from ..model.score_rows import evaluation_mode
from .config import UnlearningConfig
from .objective import Objective


def probe_for_training(
    model: nn.Module, accelerator: Accelerator, args: UnlearningConfig, left_padding: str | None, reads_blocks: bool
) -> ModelProbe:
    """What kind of model it is.

    Args:
        model: wrapped where it is split over ranks; every rank calls it.
        accelerator: of the trainer.
        args: of the run.
        left_padding: name of the collator, where it pads on the left.
        reads_blocks: whether a loss or a step wrapper reads or changes what decoder blocks put out.

    Raises:
        ValueError: it could not be trained with these arguments, or on other numbers than it seems.
    """
    unwrapped, apart = accelerator.unwrap_model(model), args.padding_free or args.auto_padding_free
    with refused_together(accelerator, model):
        probe = probe_model(model, unwrapped, rows_apart=apart, autocast=accelerator.autocast)
        require_scorable(probe, unwrapped)
        _require_known_loss(probe, unwrapped, args)
        if args.padding_free:
            require_rows_apart(probe, unwrapped)
        elif left_padding is not None:
            require_left_padding(probe, unwrapped, left_padding)
        if reads_blocks:
            with evaluation_mode(model), accelerator.autocast():
                _require_block_outputs(model, unwrapped)
    return probe


def longest_line(objective: Objective, args: UnlearningConfig, longest: int) -> int:
    """Tokens that the rows of a batch can have in one line.

    Args:
        objective: says which rows a pair has.
        args: of the run.
        longest: tokens of the longest row.
    """
    retained = math.ceil(args.retain_ratio)
    rows = {Role.RETAIN: retained, Role.MISMATCH: objective.mismatches, Role.RETAIN_ALTERNATE: retained}
    rows[Role.HOLDOUT] = math.ceil(args.anchor_ratio)
    pair = sum(rows.get(role, 1) for role in {Role.FORGET, *objective.needs.roles})
    return args.per_device_train_batch_size * pair * longest


def _require_known_loss(probe: ModelProbe, model: Any, args: UnlearningConfig) -> None:
    """Raise where the model's own loss has a part that this run would leave out, or could not differentiate."""
    if probe.other_loss:
        raise input_error(
            expected="a model whose own loss is the NLL, or that and a load-balancing loss of its routers",
            got=f"{type(model).__name__}, whose own loss has another part ({probe.other_loss:.3g} on ten tokens)",
            why="plain Trainer would train it, and this run would not",
            fix="set its coefficient in the model's config to 0 (output_router_logits=False for routers)",
        )
    reentrant = args.activation_checkpointing and (args.activation_checkpointing_kwargs or {}).get("use_reentrant")
    if probe.router_loss is not None and reentrant:
        raise input_error(
            expected="activation checkpointing without use_reentrant, for a model with a router loss",
            got="use_reentrant=True",
            why="router logits come out of the checkpointed blocks without a graph, and the loss would move nothing",
            fix="drop use_reentrant, or set model.config.output_router_logits=False",
        )


def _require_block_outputs(model: nn.Module, unwrapped: Any) -> None:
    """Raise for decoder blocks that put out something else than hidden states [B, L, H]."""
    shapes: list[tuple[int, ...]] = []
    with output_hooks([(decoder_blocks(unwrapped)[0], lambda _, __, output: shapes.append(hidden_of(output).shape))]):
        trial = Trial.of(model, unwrapped)
    expected = (2, len(trial.row), unwrapped.config.get_text_config().hidden_size)
    if shapes != [expected]:
        raise input_error(
            expected="decoder blocks that put out hidden states [B, L, H], for losses and step wrappers with a layer",
            got=f"{type(unwrapped).__name__}, whose blocks put out shape {tuple(shapes[0]) if shapes else 'none'}",
            why="the hidden states of answer tokens are read and changed there",
            fix="use a loss of log-probs, and step wrappers without a layer",
        )
