"""Exact figures of an evaluation set inside Trainer's loop, and its suites' callbacks."""

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback
from transformers.trainer_pt_utils import nested_detach

from ...evaluation.callback import UnlearningEvalCallback
from ...model.scoring import RowScores


class RowEvaluation:
    """Per-row NLLs of the evaluation set that Trainer's loop is at, from which the set's exact figures come.

    Trainer's own loss of a set is a mean of batch means, which weighs the tokens of a short last batch more.
    """

    def __init__(self) -> None:
        self._rows: list[Tensor] = []  # per batch of all ranks [rows, 2]: NLL in nats, and answer tokens

    def start(self) -> None:
        """A set begins."""
        self._rows = []

    def add(self, accelerator: Accelerator, rows: RowScores) -> Tensor:
        """Add one batch's rows of all ranks, without the repeats that fill a last batch.

        Returns this rank's mean NLL per token.
        """
        nll_and_tokens = torch.stack([rows.nll_sum().double(), rows.lengths.double()], dim=1)
        self._rows.append(accelerator.gather_for_metrics(nll_and_tokens).cpu())
        total = nll_and_tokens.sum(0)
        return total[0] / total[1]

    def metrics(self, metric_key_prefix: str = "eval", **_: Any) -> dict[str, float]:
        """`nll` (and `loss`): mean over all answer tokens; `probability`: mean over rows of exp(-NLL per token).

        Args:
            metric_key_prefix: of the names, as in "eval_nll"; the other arguments of Trainer's loop are not read.
        """
        prefix = metric_key_prefix
        if not self._rows:
            return {}
        nll_sum, tokens = torch.cat(self._rows).unbind(1)
        mean = float(nll_sum.sum() / tokens.sum())
        probability = float((-nll_sum / tokens).exp().mean())
        return {f"{prefix}_loss": mean, f"{prefix}_nll": mean, f"{prefix}_probability": probability}


def kept_outputs(
    outputs: Any, model: nn.Module, ignore_keys: list[str] | None, inputs: Mapping[str, Any]
) -> tuple[Any, Tensor]:
    """What Trainer's loop gathers for metrics: a model's outputs but the loss and the keys to ignore, and the labels.

    Args:
        outputs: of the model, its logits those of every position.
        model: unwrapped; its config names the keys to ignore where none are given.
        ignore_keys: as in `Trainer.evaluate`.
        inputs: the batch.
    """
    if ignore_keys is None:
        ignore_keys = getattr(model.config, "keys_to_ignore_at_inference", ["past_key_values"])
    kept = nested_detach(tuple(value for key, value in outputs.items() if key not in [*ignore_keys, "loss"]))
    return kept[0] if len(kept) == 1 else kept, inputs["labels"]


def lend_trainer(callbacks: list[TrainerCallback], trainer: Trainer) -> None:
    """Let suites that run as callbacks log through a trainer, before early stopping reads their figures.

    The callbacks keep their order, but for a suite behind an EarlyStoppingCallback, which moves in front of it.
    """
    suites = [callback for callback in callbacks if isinstance(callback, UnlearningEvalCallback)]
    for callback in suites:
        callback.trainer = weakref.proxy(trainer)  # a strong reference would outlive `del trainer`
    reader = next((n for n, callback in enumerate(callbacks) if isinstance(callback, EarlyStoppingCallback)), None)
    if reader is not None:
        late = [callback for callback in callbacks[reader:] if callback in suites]
        callbacks[reader:] = late + [callback for callback in callbacks[reader:] if callback not in late]
