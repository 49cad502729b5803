"""Whether the optimizer of a run holds the weights that it is to train."""

from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import LayerWiseDummyOptimizer
from transformers.utils import logging

from ..errors import input_error

logger = logging.get_logger(__name__)


def require_trained(optimizer: Any, model: nn.Module) -> None:
    """Raise for an optimizer that holds none of a model's trained weights; say how many are missing of some.

    Args:
        optimizer: of torch, wrapped or not; None is Trainer's to make.
        model: not split over ranks: there the optimizer holds views of its weights.
    """
    optimizer = getattr(optimizer, "optimizer", optimizer)
    if optimizer is None or isinstance(optimizer, LayerWiseDummyOptimizer):  # the latter steps in backward
        return
    held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    missing = [name for name, weight in trained.items() if id(weight) not in held]
    if len(missing) == len(trained):
        raise input_error(
            expected="an optimizer that holds the weights to train",
            got=f"{type(optimizer).__name__} with {len(held)} tensors, none of the {len(trained)} that are to train",
            why="all steps would run and nothing would change",
            fix="make it from the parameters of get_peft_model(model, config), and pass that model instead of "
            "peft_config; or leave it out and set optim and learning_rate",
        )
    if missing:
        logger.warning(
            f"The optimizer holds {len(trained) - len(missing)} of the {len(trained)} tensors that require a "
            f"gradient; the others stay as they are ({missing[0]}, for one)."
        )


class OptimizerCheckCallback(TrainerCallback):
    """Looks at the optimizer before the first step, whoever made it: an argument, a subclass or Trainer.

    Args:
        split: whether weights are split over ranks, or an engine steps them.
    """

    def __init__(self, split: bool) -> None:
        self._split = split

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: Any = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """The optimizer has been made."""
        if not self._split:
            require_trained(optimizer, model)
