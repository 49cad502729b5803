"""The sampler that trains the rows of a `ForgetRetainDataset` in the order of their epoch."""

from collections.abc import Iterator

from torch.utils.data import Sampler

from .pairing import ForgetRetainDataset


class EpochOrder(Sampler):
    """The forget rows of a `ForgetRetainDataset` in the order of its current epoch, the same on every rank.

    The epoch is the dataset's. (No `set_epoch` here: accelerate would call that instead of the dataset's.)
    """

    def __init__(self, rows: ForgetRetainDataset) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[int]:
        yield from self.rows.order().tolist()
