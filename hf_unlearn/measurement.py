"""Log-probs of whole sets of rows under a model as it is, for references, bounds and baselines. Not an evaluation."""

import contextlib
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from tqdm.auto import tqdm

from .data.collator import DataCollatorForUnlearning
from .data.pairing import read_rows
from .data.roles import Role
from .scoring import Batch, RowScores, score


@dataclass(frozen=True)
class RowLogps:
    """Log-probs of the answer tokens of N rows, row after row.

    Attributes:
        logps: [T], nats, fp32.
        lengths: answer tokens of each row, [N].
    """

    logps: Tensor
    lengths: Tensor

    def nll_per_token(self) -> Tensor:
        """nll of each row, [N], nats per token."""
        return -torch.segment_reduce(self.logps, "sum", lengths=self.lengths) / self.lengths

    def mean_nll(self) -> float:
        """NLL per token over all tokens of the set, the number that training logs for a role."""
        return float(-self.logps.mean())

    def to(self, device: torch.device) -> "RowLogps":
        """The same on another device."""
        return RowLogps(self.logps.to(device), self.lengths.to(device))


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """No gradients and no dropout inside; every module's own training mode is restored afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:  # not model.train(): part of a model may have been in evaluation mode all along
            module.training = True


@contextlib.contextmanager
def kept_random_state() -> Iterator[None]:
    """Random generators of Python, NumPy and torch, those of devices too, go on afterwards as if nothing had been."""
    python, legacy = random.getstate(), np.random.get_state()
    device = torch.accelerator.current_accelerator()
    kind = "cpu" if device is None else device.type
    try:
        with torch.random.fork_rng(range(torch.accelerator.device_count()), device_type=kind):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


@dataclass(frozen=True)
class RowScorer:
    """How rows are scored outside the training loop, the work shared by all processes."""

    collator: DataCollatorForUnlearning
    accelerator: Accelerator
    batch_size: int

    def __call__(self, model: nn.Module, rows: Any, description: str) -> RowLogps:
        """Log-probs of every row, in the order of `rows`; each rank scores its share and all get the whole."""
        found: list[tuple[int, Tensor]] = []
        for indices, scores in self.batches(model, rows, range(len(rows)), description):
            found += zip(indices, scores.logps.cpu().split(scores.lengths.tolist()), strict=True)
        return _in_order(gather_object(found))

    def batches(
        self, model: nn.Module, rows: Any, wanted: Iterable[int], description: str, *, logits: bool = False
    ) -> Iterator[tuple[list[int], RowScores]]:
        """This rank's share of the wanted rows, batch by batch: their indices and their scores, one forward a batch.

        Args:
            model: wrapped or not.
            rows: tokenised.
            wanted: indices of the rows to score, the same on all ranks.
            description: of the progress bar.
            logits: keep the logits of answer positions in the scores.
        """
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        # Longest first: rows of one batch are alike in length, and a batch that does not fit fails at once.
        order = sorted(wanted, key=lambda i: -len(rows[i]["input_ids"]))
        mine = order[self.accelerator.process_index :: self.accelerator.num_processes]
        starts = range(0, len(mine), self.batch_size)
        bar = tqdm(starts, desc=description, disable=not self.accelerator.is_local_main_process or None, leave=False)
        kept = (Role.FORGET,) if logits else ()
        for start in bar:
            indices = mine[start : start + self.batch_size]
            batch = self._to_device(self.collator(read_rows(rows, indices)))
            with evaluation_mode(model), self.accelerator.autocast():
                scores, _ = score(model, head, batch, logits=kept)
            yield indices, scores.rows(Role.FORGET)  # rows without a pairing are collated as forget rows

    def _to_device(self, batch: Batch) -> Batch:
        return {key: value.to(self.accelerator.device) for key, value in batch.items()}


def _in_order(found: list[tuple[int, Tensor]]) -> RowLogps:
    parts = [part for _, part in sorted(found, key=lambda pair: pair[0])]
    return RowLogps(torch.cat(parts), torch.tensor([len(part) for part in parts]))
