"""A task vector of the forget rows, subtracted."""

from dataclasses import dataclass, replace

from transformers import PreTrainedModel
from transformers.utils import logging

from ..model.fine_tuning import whole_text
from ..results.edit_report import Tried
from .base import Edit, EditData
from .checkpoint import load_checkpoint
from .moved import copied_weights
from .scale_search import scale_to_level
from .vectors import add_vectors, fine_tuned_vector

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class TaskVector(Edit):
    """Subtracts what a fine-tuning on the forget rows adds.

    theta <- theta - alpha (theta_f - theta_0), theta_f fine-tuned on the forget rows from theta_0: a checkpoint from
    before they were learnt where one is given, else the model itself (theta_0 = theta). The sum is computed in fp64
    and rounded once. With a `rank` the vector is alpha scaling B A of a LoRA adapter, on linear layers alone.

    A model that knows the rows by heart has little to learn from them, and its vector is small and says little of
    them: more epochs and a higher rate help, prompts that are trained too (`whole_text`), and most a checkpoint. How
    large the vector is (||theta_f - theta_0|| / ||theta_0||) stands among what was tried.

    Args:
        alpha: scale; None for that at which the mean NLL of the forget rows is the level, by bisection.
        max_alpha: where the bisection's bracket ends, which is doubled from 1 on.
        epochs: passes over the forget rows.
        rate: learning rate, constant.
        batch: rows of a step.
        whole_text: train every token of a row, its prompt too.
        rank: of the adapter; None to train all weights.

    Paper: Ilharco et al. 2023, https://arxiv.org/abs/2212.04089.
    """

    alpha: float | None = None
    max_alpha: float = 16.0
    epochs: float = 5.0
    rate: float = 1e-4
    batch: int = 16
    whole_text: bool = True
    rank: int | None = None

    name = "task_vector"
    formula = "theta - alpha (theta_f - theta_0), theta_f fine-tuned on the forget rows"
    paper = "Ilharco et al. 2023, arXiv:2212.04089"
    cost = "epochs of fine-tuning on the forget rows, and about ten forwards of them for the bisection"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("max_alpha", "epochs", "rate", "batch")
        if self.rank is not None:
            self.require_positive("rank")

    def run(self, model: PreTrainedModel, data: EditData) -> list[Tried]:
        level = data.require_level(self) if self.alpha is None else None
        start, tried = model, []
        if data.checkpoint is not None:
            start, known = load_checkpoint(model, data)
            tried = [known]
        rows = whole_text(data.forget) if self.whole_text else data.forget
        training = {"epochs": self.epochs, "rate": self.rate, "batch": self.batch}
        vector, tuned = fine_tuned_vector(start, rows, data, rank=self.rank, **training)
        size = vector.relative_size(copied_weights(start))
        fitted = data.tried(tuned, {"fine_tuned_epochs": self.epochs, "vector_size": size}, retain=False)
        del tuned
        if data.checkpoint is None:
            _warn_of_known_rows(data, model, fitted)
        origin = copied_weights(model)

        def put(alpha: float) -> None:
            add_vectors(model, origin, [(-alpha, vector)])

        if level is not None:
            return [*tried, fitted, *scale_to_level(model, data, level, put, most=self.max_alpha)]
        assert self.alpha is not None
        put(self.alpha)
        return [*tried, fitted, replace(data.tried(model, {"alpha": self.alpha}, retain=False), chosen=True)]


def _warn_of_known_rows(data: EditData, model: PreTrainedModel, fitted: Tried) -> None:
    """Say so where the fine-tuning had next to nothing to learn."""
    before = data.tried(model, {}, retain=False).forget_nll
    if before - fitted.forget_nll < 0.1:
        logger.warning(
            f"The model knew the forget rows before they were trained again ({before:.2f} nats per token, "
            f"{fitted.forget_nll:.2f} afterwards): the task vector says little of them. A checkpoint from before they "
            "were learnt gives a better one."
        )
