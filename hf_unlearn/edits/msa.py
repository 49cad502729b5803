"""Arithmetic with the vectors of two fine-tunings that begin at a checkpoint from before the forget rows."""

from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from ..model.fine_tuning import whole_text
from ..results.edit_report import Tried
from .base import Edit, EditData
from .checkpoint import load_checkpoint
from .moved import copied_weights
from .scale_search import scale_to_level
from .vectors import Vector, add_vectors, fine_tuned_vector


@dataclass(frozen=True)
class MSA(Edit):
    """Model state arithmetic: takes the forget rows' vector out of the model, and puts the retain rows' into it.

    theta <- theta - alpha (theta_f - theta_0) + beta (theta_r - theta_0), theta_0 the checkpoint, theta_f and theta_r
    fine-tuned from it on the forget and on the retain rows. The nearer to the learning of the forget rows theta_0 is,
    the better the vectors fit; it may be the public model that was fine-tuned. The sum is computed in fp64 and rounded
    once, and with beta 0 nothing is trained on retain rows. Exact where fine-tunings add up: alpha 1 and beta 0 for
    rows that share no feature with what was learnt beside them, alpha 1 and beta 1 where the model is theta_f.

    Args:
        alpha: scale of the forget vector, 1 to 2 in the paper; None for that at which the mean NLL of the forget rows
            is the level, by bisection.
        beta: scale of the retain vector.
        max_alpha: where the bisection's bracket ends, which is doubled from 1 on.
        epochs: passes over the forget rows.
        retain_epochs: passes over the retain rows.
        rate: learning rate of both, constant.
        batch: rows of a step.
        whole_text: train every token of a row, its prompt too.
        rank: of LoRA adapters that are trained in place of all weights; None for all weights.

    Paper: Rezaei et al. 2025, https://arxiv.org/abs/2506.20941.
    """

    alpha: float | None = None
    beta: float = 1.0
    max_alpha: float = 8.0
    epochs: float = 10.0
    retain_epochs: float = 1.0
    rate: float = 1e-4
    batch: int = 16
    whole_text: bool = True
    rank: int | None = None

    name = "msa"
    formula = "theta - alpha (theta_f - theta_0) + beta (theta_r - theta_0), from a checkpoint theta_0"
    paper = "Rezaei et al. 2025, arXiv:2506.20941"
    needs_checkpoint = True
    cost = "epochs of fine-tuning on forget and on retain rows, and about ten forwards of the forget rows"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("max_alpha", "epochs", "retain_epochs", "rate", "batch")
        if self.rank is not None:
            self.require_positive("rank")

    def unfit(self, model: PreTrainedModel, data: EditData) -> str | None:
        return "there are no retain rows, and beta is not 0" if self.beta and not len(data.retain) else None

    def run(self, model: PreTrainedModel, data: EditData) -> list[Tried]:
        level = data.require_level(self) if self.alpha is None else None
        start, known = load_checkpoint(model, data)
        tried, vectors = [known], {}
        sets = {"forget": (data.forget, self.epochs), "retain": (data.retain, self.retain_epochs)}
        for name, (rows, epochs) in sets.items():
            if name == "retain" and self.beta == 0:
                continue
            rows = whole_text(rows) if self.whole_text else rows
            training = {"epochs": epochs, "rate": self.rate, "batch": self.batch}
            vectors[name], tuned = fine_tuned_vector(start, rows, data, rank=self.rank, **training)
            size = vectors[name].relative_size(copied_weights(start))
            tried.append(data.tried(tuned, {"model": f"{name} fine-tune", "vector_size": size}, retain=False))
        origin, nothing = copied_weights(model), Vector({})

        def put(alpha: float) -> None:
            add_vectors(model, origin, [(-alpha, vectors["forget"]), (self.beta, vectors.get("retain", nothing))])

        if level is not None:
            return [*tried, *scale_to_level(model, data, level, put, most=self.max_alpha)]
        assert self.alpha is not None
        put(self.alpha)
        return [*tried, replace(data.tried(model, {"alpha": self.alpha}, retain=False), chosen=True)]
