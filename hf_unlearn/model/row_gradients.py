"""Gradients of single rows, for influence and membership, under a model that is left as it was."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.token_columns import given_rows
from ..data.tokenized_row import EncodedRow, target_count
from ..errors import input_error
from ..progress import progress
from .gradients import norm
from .probe_checks import require_causal_lm


def row_gradient_norms(model: Any, rows: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """The L2 norm of the gradient of each row's nll: || d nll_i / d theta ||, [N].

    theta: the trainable parameters, or all where none is trainable. nll_i is the mean over the row's answer tokens, in
    nats, without dropout. A row that the model has learnt by heart has a small gradient. The model is left as it was;
    one row at a time, so memory is that of one gradient. NaN is shown, not filtered.

    Args:
        model: a causal language model, not wrapped for distributed training.
        rows: tokenised rows (`tokenize_rows`): `input_ids` and `labels`.

    Raises:
        ValueError: another kind of model, or a row without ids, labels, an answer token, or a place in the model.
    """
    tokens = token_rows(model, rows, "the set")
    with eval_mode_with_grad(model):
        trainable = [p for p in model.parameters() if p.requires_grad]
        if not trainable:
            # `eval_mode_with_grad` takes this back.
            trainable = [p.requires_grad_() for p in model.parameters() if p.is_floating_point()]
        gradients = row_gradients(model, tokens, trainable, "gradient norms")
        return np.array([float(length) for length in map(norm, gradients)])


@contextlib.contextmanager
def eval_mode_with_grad(model: nn.Module) -> Iterator[None]:
    """Gradients on and dropout off inside; mode of every module and `requires_grad` of every weight restored after."""
    modes = {module: module.training for module in model.modules()}
    trainable = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.eval()
    try:
        with torch.enable_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, requires_grad in trainable.items():
            parameter.requires_grad_(requires_grad)


def row_gradients(
    model: Any, rows: Sequence[EncodedRow], parameters: Sequence[nn.Parameter], description: str
) -> Iterator[list[Tensor]]:
    """The gradient of each row's nll with respect to `parameters`, in turn, without touching any `.grad`.

    Go over them with `map`: the variable of a loop would hold one gradient while the next is computed.
    """
    for row in progress(rows, description):
        inputs = torch.tensor([row.input_ids], device=model.device)
        output = model(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            labels=torch.tensor([row.labels], device=model.device),
            use_cache=False,
        )
        yield list(torch.autograd.grad(output.loss, parameters, materialize_grads=True))


def token_rows(model: Any, rows: Iterable[Mapping[str, Any]], name: str) -> list[EncodedRow]:
    """Ids and labels of tokenised rows, checked against the model.

    Raises:
        ValueError: not a causal language model, no rows, or a row that it cannot be scored on.
    """
    require_causal_lm(model)
    config = model.config.get_text_config()
    listed = list(rows)
    columns = {column: [row.get(column) for row in listed] for column in ("input_ids", "labels", "attention_mask")}
    places = [f"row {i} of {name}" for i in range(len(listed))]
    tokens = given_rows(columns, "", config.vocab_size, places).rows() if listed else []
    positions = getattr(config, "max_position_embeddings", None)
    problems = {i: _problem(row, positions) for i, row in enumerate(tokens)}
    first = next((i for i, problem in problems.items() if problem), None)
    if not tokens or first is not None:
        raise input_error(
            expected=f"rows with an answer token and of at most {positions} tokens, the model's positions",
            got=f"no row in {name}" if first is None else f"row {first} of {name}, {problems[first]}",
            why="a gradient is that of the mean over a row's answer tokens",
            fix="drop such rows, or set max_length where they are tokenised",
        )
    return tokens


def _problem(row: EncodedRow, positions: int | None) -> str | None:
    if target_count(row.labels) == 0:
        return "which has no answer token"
    too_long = positions is not None and len(row.input_ids) > positions
    return f"of {len(row.input_ids)} tokens" if too_long else None
