"""The checkpoint that an edit starts from: loaded, compared with the model, and asked what it knows."""

from transformers import PreTrainedModel
from transformers.utils import logging

from ..errors import input_error
from ..results.edit_report import Tried
from .base import EditData

logger = logging.get_logger(__name__)


def load_checkpoint(model: PreTrainedModel, data: EditData) -> tuple[PreTrainedModel, Tried]:
    """The checkpoint, and what it gives the forget rows; a warning where it seems to have learnt them.

    Args:
        model: that is edited.
        data: of the edit, with a checkpoint.

    Raises:
        ValueError: a checkpoint of other weights.
    """
    assert data.checkpoint is not None
    start = data.checkpoint()
    require_same_weights(model, start, "a checkpoint")
    tried = data.tried(start, {"model": "checkpoint"}, retain=False)
    if data.level is not None and tried.forget_nll < 0.5 * data.level:
        logger.warning(
            f"The checkpoint gives the forget rows {tried.forget_nll:.2f} nats per token, and rows never seen have "
            f"{data.level:.2f}: it seems to be from after they were learnt, and what is taken from it knows them."
        )
    return start, tried


def require_same_weights(model: PreTrainedModel, other: PreTrainedModel, what: str) -> None:
    """Raise unless two models have the same weights by name and shape.

    Args:
        model: that is edited.
        other: that its weights are compared with.
        what: the other model is, in words.
    """
    own, others = ({name: weight.shape for name, weight in one.named_parameters()} for one in (model, other))
    differing = [name for name in {**own, **others} if own.get(name) != others.get(name)]
    if differing:
        name = differing[0]
        shapes = [f"{tuple(known[name])}" if name in known else "none" for known in (own, others)]
        raise input_error(
            expected=f"{what} with the weights of the model, name by name",
            got=f"{len(differing)} that differ, the first {name}: {shapes[1]}, and {shapes[0]} in the model",
            why="weights are added to weights",
            fix="take one of the same architecture; where the vocabulary was resized, pass it as a model with "
            "resize_token_embeddings done",
        )
