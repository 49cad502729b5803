"""A teacher-forced scorer of answers that shares no code with the package, and figures of what it finds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

TokenizedRow = dict[str, list[int]]


def pad(rows: Sequence[TokenizedRow], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Input ids, labels and attention mask, padded on the right, each [rows, longest]."""
    shape = (len(rows), max(len(row["input_ids"]) for row in rows))
    ids, labels, mask = torch.zeros(shape, dtype=torch.long), torch.full(shape, -100), torch.zeros(shape).long()
    for i, row in enumerate(rows):
        length = len(row["input_ids"])
        ids[i, :length] = torch.tensor(row["input_ids"])
        labels[i, :length] = torch.tensor(row["labels"])
        mask[i, :length] = 1
    return ids.to(device), labels.to(device), mask.to(device)


@dataclass(frozen=True)
class Tokens:
    """Of each row the log-probs of its answer tokens, and whether each is the model's first choice."""

    logps: list[np.ndarray]
    right: list[np.ndarray]

    @property
    def nll(self) -> np.ndarray:
        """Per token, of each row."""
        return np.array([-row.mean() for row in self.logps])


@torch.inference_mode()
def scored(model: PreTrainedModel, rows: Sequence[TokenizedRow], batch_size: int) -> Tokens:
    """The answer tokens of every row, teacher-forced."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    logps: list[Any] = [None] * len(rows)
    right: list[Any] = [None] * len(rows)
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        ids, labels, mask = pad([rows[i] for i in indices], model.device)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        targets = labels[:, 1:]
        losses = F.cross_entropy(logits.mT, targets, ignore_index=-100, reduction="none")
        first = logits.argmax(-1) == targets
        for place, i in enumerate(indices):
            answer = targets[place] != -100
            logps[i], right[i] = -losses[place][answer].cpu().numpy(), first[place][answer].cpu().numpy()
    return Tokens(logps, right)


def extraction_strength(right: Sequence[np.ndarray]) -> float:
    """Mean over rows of 1 - k / n, k the first token from which on all are the model's first choice."""
    strengths = []
    for row in right:
        wrong = np.flatnonzero(~row)
        strengths.append(1 - (wrong[-1] + 1 if len(wrong) else 0) / len(row))
    return float(np.mean(strengths))


def auc(members: Sequence[float], others: Sequence[float]) -> float:
    """How often a member scores above another, ties counted half."""
    ranks = rankdata([*members, *others])[: len(members)]
    return float((ranks.sum() - len(members) * (len(members) + 1) / 2) / (len(members) * len(others)))


def lowest(logps: Sequence[np.ndarray], share: float = 0.4) -> list[float]:
    """Mean of the lowest share of each row's log-probs."""
    return [float(np.sort(row)[: max(1, int(share * len(row)))].mean()) for row in logps]
