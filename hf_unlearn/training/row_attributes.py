"""`trainer.train_dataset` and `trainer.eval_dataset`, which a user may set again on a trainer that is built."""

from collections.abc import Iterator, Sequence
from typing import Any

import datasets
from torch.utils.data import Dataset

from ..data.row_items import read_rows
from ..errors import input_error


class TrainRows:
    """The paired rows of a trainer; others cannot take their place, as reference and levels were measured on these."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, trainer: Any, owner: type | None = None) -> Any:
        return self if trainer is None else _stored(trainer, self.name)

    def __set__(self, trainer: Any, rows: Any) -> None:
        known = vars(trainer)
        if known.setdefault(self.name, rows) is not rows:
            raise input_error(
                expected="the train_dataset that the trainer was built with",
                got=f"another one (a {type(rows).__name__}), set afterwards",
                why="its rows are not tokenised and paired, and the reference and the levels are of the others",
                fix="build a new trainer: UnlearningTrainer(model=trainer.model, train_dataset={'forget': ...}, ...)",
            )


class EvalRows(TrainRows):
    """The evaluation set of a trainer, or a mapping of them; what is set afterwards is tokenised like the first."""

    def __set__(self, trainer: Any, rows: Any) -> None:
        known = vars(trainer)
        if self.name in known and rows is not known[self.name]:
            args = trainer.args
            if args.stop_forget_nll is not None or args.stop_retain_nll_increase is not None:
                raise input_error(
                    expected="the eval_dataset that the trainer was built with, in a run with stop rules",
                    got="another one, set afterwards",
                    why="the rules watch its sets, and their levels belong to these",
                    fix="build a new trainer, or evaluate other rows with trainer.evaluate(rows)",
                )
            rows = trainer._prepared.options.tokenize_eval(rows)
            known.pop("_eval_dataloaders", None)  # persistent workers would go on with the first rows
        known[self.name] = rows


def _stored(trainer: Any, name: str) -> Any:
    if name not in vars(trainer):
        raise AttributeError(name)
    return vars(trainer)[name]


class TokenRows(Dataset):
    """A tokenised set as a torch dataset.

    For a datasets.Dataset, Trainer hands its collator to the loader as it is; for any other it asks
    `_get_collator_with_removed_columns`, where the collator learns to index its batches.
    """

    def __init__(self, rows: datasets.Dataset) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Several rows in one read; torch's DataLoader calls this when it is there."""
        return read_rows(self.rows, indices)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)
