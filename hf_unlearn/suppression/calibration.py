"""How strong a suppression of logits is to be: the strength at which the forget rows have the level of unseen rows."""

import dataclasses
from typing import Any, TypeVar

from transformers import PreTrainedModel

from ..edits import EditData
from ..errors import input_error
from .base import Suppressor

Fitted = TypeVar("Fitted", bound=Suppressor)

_FARTHEST, _HALVINGS, _NEAR = 8, 8, 0.02  # times the first alpha; times; nats per token


def at_level(suppressor: Fitted, model: PreTrainedModel, data: EditData) -> Fitted:
    """The suppressor with the `alpha` at which the mean NLL of the forget rows is `data.level`, by bisection.

    The NLL rises with alpha. Where it does not get there at eight times the alpha that it begins with, that is taken.

    Args:
        suppressor: with an `alpha`, which the search begins with.
        model: that is suppressed; it has no suppressor now.
        data: forget rows, and the level.

    Raises:
        ValueError: no level is known.
    """
    if data.level is None:
        raise input_error(
            expected=f"holdout rows, or level=NATS, for to_level of {suppressor.name}",
            got="neither",
            why="alpha is chosen so that the forget rows have the NLL that rows never seen have",
            fix="pass rows like the forget rows that the model was never trained on as `holdout`, or a number",
        )
    low, high = 0.0, suppressor.alpha  # type: ignore[attr-defined]
    most = _FARTHEST * high
    while _forget_nll(with_alpha(suppressor, high), model, data) < data.level:
        if high >= most:
            return with_alpha(suppressor, high)
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        nll = _forget_nll(with_alpha(suppressor, middle), model, data)
        low, high = (middle, high) if nll < data.level else (low, middle)
        if abs(nll - data.level) < _NEAR:
            return with_alpha(suppressor, middle)
    return with_alpha(suppressor, (low + high) / 2)


def with_alpha(suppressor: Fitted, alpha: float) -> Fitted:
    """The same of another strength."""
    changed: dict[str, Any] = {"alpha": alpha}
    return dataclasses.replace(suppressor, **changed)


def _forget_nll(suppressor: Suppressor, model: PreTrainedModel, data: EditData) -> float:
    handle = suppressor.install(model)
    try:
        return float(data.questioner.nll(model, data.forget).mean())
    finally:
        handle.remove()
