"""Trainer's evaluation over sets of rows: exact NLLs of answers, no mean of batch means. It trains nothing."""

import weakref
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from ...data.batch import Batch
from ...data.prepare import RowOptions
from ...evaluation.callback import UnlearningEvalCallback
from ...model.output_head import output_head
from ...model.scoring import RowScores, score_answers
from ...model.sharding import reshard


class EvalRows:
    """Per-row NLLs of an evaluation set, from which the set's exact figures come."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []

    def add(self, accelerator: Accelerator, rows: RowScores) -> Tensor:
        """Add one batch's rows of all ranks, without the repeats that fill a last batch.

        Returns this rank's mean NLL per token.
        """
        nll_and_tokens = torch.stack([rows.nll_sum().double(), rows.lengths.double()], dim=1)
        self._rows.append(accelerator.gather_for_metrics(nll_and_tokens).cpu())
        total = nll_and_tokens.sum(0)
        return total[0] / total[1]

    def metrics(self) -> dict[str, float]:
        """`nll` (and `loss`): mean over all answer tokens; `probability`: mean over rows of exp(-NLL per token)."""
        if not self._rows:
            return {}
        nll_sum, tokens = torch.cat(self._rows).unbind(1)
        mean = float(nll_sum.sum() / tokens.sum())
        return {"loss": mean, "nll": mean, "probability": float((-nll_sum / tokens).exp().mean())}


class EvaluationLoop(Trainer):
    """The evaluation hooks of `transformers.Trainer`, for rows in any of the accepted formats."""

    _rows: RowOptions

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Trainer's, with its suites' callbacks able to log."""
        self._lend_to_callbacks()
        return super().train(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Trainer's, with its suites' callbacks able to log."""
        self._lend_to_callbacks()
        return super().evaluate(*args, **kwargs)

    def _lend_to_callbacks(self) -> None:
        # First of all: early stopping reads the figures that they add.
        self.callback_handler.callbacks.sort(key=lambda each: not isinstance(each, UnlearningEvalCallback))
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, UnlearningEvalCallback):
                callback.trainer = weakref.proxy(self)  # a strong reference would outlive `del trainer`

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Trainer's, for rows in any of the accepted formats."""
        prepared = eval_dataset is None or isinstance(eval_dataset, str)
        # With persistent workers Trainer keeps one loader for all sets without a name: the first rows would stay.
        vars(self).get("_eval_dataloaders", {}).pop("eval", None)
        return super().get_eval_dataloader(eval_dataset if prepared else self._rows.tokenize(eval_dataset, "eval"))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Trainer's, for rows in any of the accepted formats."""
        return super().get_test_dataloader(self._rows.tokenize(test_dataset, "eval"))

    def evaluation_loop(self, dataloader: DataLoader, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Trainer's loop, with the set's exact NLL per token and answer probability."""
        self._eval_rows = EvalRows()
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        reshard(self.model)  # the best checkpoint may be loaded next
        prefix = kwargs.get("metric_key_prefix", "eval")
        output.metrics.update({f"{prefix}_{name}": value for name, value in self._eval_rows.metrics().items()})
        return output

    def prediction_step(
        self, model: nn.Module, inputs: Batch, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """NLLs of a batch's rows; logits at every position only where metrics are computed from them."""
        inputs = self._prepare_inputs(inputs)
        head = output_head(self.model)
        with torch.no_grad(), self.compute_loss_context_manager():
            scores, outputs = score_answers(model, head, inputs, full_logits=not prediction_loss_only)
        loss = self._eval_rows.add(self.accelerator, scores)
        if prediction_loss_only:
            return loss, None, None
        return loss, outputs.logits, inputs["labels"]
