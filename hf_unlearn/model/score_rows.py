"""Scores of whole sets of rows under a model as it is: for references, bounds, baselines and evaluations."""

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from ..data.batch import Batch, indexed
from ..data.collator import DataCollatorForUnlearning
from ..data.lengths import row_lengths
from ..data.row_items import read_rows
from ..data.tokenized_row import TokenizedRow
from ..errors import input_error
from ..progress import progress
from .head_query import LogitCache, TokenReadout
from .output_head import output_head
from .reference_logits import HeadLogits
from .scoring import RowScores, score_answers, sum_rows
from .sharding import is_sharded, reshard


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
        """NLL per token of each row, [N], nats."""
        return -sum_rows(self.logps, self.lengths) / self.lengths

    def mean_nll(self) -> float:
        """NLL per token over all tokens of the set, the number that training logs for a role."""
        return float(-self.logps.mean())

    def select(self, places: Sequence[int]) -> "RowLogps":
        """Those of some of the rows, by their places."""
        chosen = torch.tensor(places, dtype=torch.long)
        return RowLogps(_of_rows(self.logps, self.lengths, chosen), self.lengths[chosen])

    def to(self, device: torch.device) -> "RowLogps":
        """The same on another device."""
        return RowLogps(self.logps.to(device), self.lengths.to(device))


@dataclass(frozen=True)
class RowTopK:
    """The k likeliest tokens at every answer token of N rows, row after row.

    Attributes:
        ids: [T, k], int32.
        logps: [T, k], nats, fp32.
        lengths: answer tokens of each row, [N].
    """

    ids: Tensor
    logps: Tensor
    lengths: Tensor

    def tail_mass(self) -> float:
        """The share of the mass that lies on other tokens, mean over positions."""
        return float(1 - self.logps.double().exp().sum(-1).mean())


@dataclass(frozen=True)
class RowHiddenStates:
    """What the output head reads at every answer token of N rows, row after row.

    Attributes:
        states: [T, H], in the model's precision.
        lengths: answer tokens of each row, [N].
    """

    states: Tensor
    lengths: Tensor


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
def preserve_rng_state() -> Iterator[None]:
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
    """How rows are scored outside the training loop, the work shared by all processes.

    Attributes:
        collator: pads them.
        accelerator: of the processes.
        batch_size: rows of a batch; twice as many of up to half the longest row's tokens, and so on. 1 stays 1.
    """

    collator: DataCollatorForUnlearning
    accelerator: Accelerator
    batch_size: int

    def __call__(self, model: nn.Module, rows: Any, description: str) -> RowLogps:
        """Log-probs of every row, in the order of `rows`; each rank scores its share and all get the whole."""
        return RowLogps(*self._in_order(model, rows, description, lambda scores: scores.logps))

    def top_k(self, model: nn.Module, rows: Any, k: int, description: str) -> RowTopK:
        """The k likeliest tokens at every answer token, in the order of `rows`; shared as log-probs are."""
        readout = TokenReadout("top_k", None, partial(_likeliest, k), width=2 * k)
        values, lengths = self._in_order(model, rows, description, lambda scores: scores.readouts["top_k"], [readout])
        logps, ids = values.split(k, dim=1)
        return RowTopK(ids.int(), logps.float().contiguous(), lengths)

    def _in_order(
        self,
        model: nn.Module,
        rows: Any,
        description: str,
        values_of: Callable[[RowScores], Tensor],
        readouts: Sequence[TokenReadout] = (),
        keep: LogitCache = LogitCache.NOTHING,
    ) -> tuple[Tensor, Tensor]:
        """Values of the answer tokens of every row, in the order of `rows`, [T, ...], and how many each has, [N]."""
        # Numpy's own copies, one a batch: tensors that stay between those of the forwards would keep the allocator
        # from giving memory back, hundreds of times what they hold themselves. As bytes, since it knows no bfloat16.
        batches = []
        for places, scores in self.batches(model, rows, range(len(rows)), description, readouts, keep):
            values = values_of(scores).cpu().contiguous()
            kind = (values.dtype, tuple(values.shape[1:]))
            as_bytes = values.reshape(len(values), -1).view(torch.uint8).numpy().copy()
            batches.append((kind, np.array(places), as_bytes, scores.lengths.cpu().numpy().copy()))
        kinds, *columns = zip(*gather_list(batches, self.accelerator), strict=True)
        indices, octets, lengths = (torch.from_numpy(np.concatenate(column)) for column in columns)
        order, (dtype, shape) = indices.argsort(), kinds[0]
        return _of_rows(octets, lengths, order).view(dtype).reshape(-1, *shape), lengths[order]

    def hidden_states(self, model: nn.Module, rows: Any, description: str) -> RowHiddenStates:
        """What the output head reads at every answer token, in the order of `rows`; shared as log-probs are.

        Raises:
            ValueError: a model whose logits are more than its head makes of them.
        """

        def hidden(scores: RowScores) -> Tensor:
            if isinstance(scores.logits, HeadLogits):
                return scores.logits.hidden
            raise input_error(
                expected="for reference='cached' a model whose logits are its output head's, scaled or capped at most",
                got=f"{type(self.accelerator.unwrap_model(model)).__name__}, which changes them in another way",
                why="its distributions cannot be had again from hidden states",
                fix="set reference='copy', or 'adapter' with a PEFT model",
            )

        return RowHiddenStates(*self._in_order(model, rows, description, hidden, keep=LogitCache.HIDDEN))

    def batches(
        self,
        model: nn.Module,
        rows: Any,
        wanted: Iterable[int],
        description: str,
        readouts: Sequence[TokenReadout] = (),
        keep: LogitCache = LogitCache.NOTHING,
    ) -> Iterator[tuple[list[int], RowScores]]:
        """This rank's share of the wanted rows, batch by batch: their indices and their scores, one forward a batch.

        Args:
            model: wrapped or not.
            rows: tokenised.
            wanted: indices of the rows to score, the same on all ranks.
            description: of the progress bar.
            readouts: what is read of the distributions at answer tokens.
            keep: how their logits are to be had again, in place of log-probs and readouts.
        """
        # Longest first: rows of one batch are alike in length, and a batch that does not fit fails at once.
        lengths, places = row_lengths(rows, alternates=False).clip(1), np.fromiter(wanted, np.int64)
        order = places[np.argsort(-lengths[places], kind="stable")].tolist()
        shares = [self._share(order, lengths, rank) for rank in range(self.accelerator.num_processes)]
        mine = shares[self.accelerator.process_index]
        # A forward of a model that is split over ranks waits for theirs: a rank that has none left makes one for them.
        fillers = max(map(len, shares)) - len(mine) if is_sharded(model) else 0
        calls = [*mine, *([order[-1:]] * fillers)]
        shown = self.accelerator.is_local_main_process
        for number, indices in enumerate(progress(calls, description, shown=shown)):
            scores = self.score(model, read_rows(rows, indices), readouts, keep)
            if number < len(mine):
                yield indices, scores
        reshard(model)

    def score(
        self,
        model: nn.Module,
        rows: list[TokenizedRow],
        readouts: Sequence[TokenReadout] = (),
        keep: LogitCache = LogitCache.NOTHING,
    ) -> RowScores:
        """The scores of rows in one batch: one forward, of this rank alone."""
        head = output_head(self.accelerator.unwrap_model(model))
        batch = self._to_device(indexed(self.collator.collate_rows(rows)))
        with evaluation_mode(model), self.accelerator.autocast():
            scores, _ = score_answers(model, head, batch, readouts=readouts, keep=keep)
        return scores

    def _share(self, order: list[int], lengths: np.ndarray, rank: int) -> list[list[int]]:
        """A rank's share of the rows, the longest first, batch by batch: more of short rows than of long ones."""
        own = order[rank :: self.accelerator.num_processes]
        batches, start = [], 0
        while start < len(own):
            size = rows_together(self.batch_size, lengths[order[0]], lengths[own[start]])
            batches.append(own[start : start + size])
            start += len(batches[-1])
        return batches

    def _to_device(self, batch: Batch) -> Batch:
        return {key: value.to(self.accelerator.device) for key, value in batch.items()}


def rows_together(batch_size: int, longest: int, length: int) -> int:
    """Rows of a batch: twice as many of half the longest's tokens, and so on. They take no more memory than those do.

    Args:
        batch_size: rows of a batch of the longest. 1 stays 1: who asks for one row at a time wants no padding.
        longest: tokens of the longest row of all.
        length: of the longest row of this batch.
    """
    return batch_size * (longest // length) if batch_size > 1 else 1


def gather_list(own: list[Any], accelerator: Accelerator) -> list[Any]:
    """The lists of all ranks one after another; a process that works alone has its own."""
    return own if accelerator.num_processes == 1 else gather_object(own)


def _likeliest(k: int, logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
    """Log-probs and ids of the k likeliest tokens: [t, V] -> [t, 2 k]. Ids below 2^24 are whole numbers in fp32."""
    logps, ids = logits.log_softmax(-1).topk(k)
    return torch.cat([logps, ids.to(logps.dtype)], dim=1)


def _of_rows(values: Tensor, lengths: Tensor, places: Tensor) -> Tensor:
    """The values of some rows, row after row: [T, ...], [N], [R] -> [t, ...]."""
    chosen, starts = lengths[places], lengths.cumsum(0) - lengths
    shift = starts[places] - (chosen.cumsum(0) - chosen)
    return values[torch.arange(int(chosen.sum())) + torch.repeat_interleave(shift, chosen)]
