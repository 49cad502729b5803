"""Rows that begin alike as one line of tokens, in which each common beginning stands once. It calls no model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data.tokenized_row import IGNORED_LABEL, TokenizedRow


@dataclass(frozen=True)
class PrefixTree:
    """Rows as a tree of tokens: a token sees those on its way back to the first, and no other row's.

    Attributes:
        ids: of its S tokens, each after the one that it follows, [S].
        depths: the place of each token in the rows that it belongs to, [S].
        runs: stretches of the line that follow one token: (first, past the last, the token before the first or -1).
        positions: where each of its distinct answer tokens is predicted, [P].
        targets: those answer tokens, [P].
        answers: of each row, which of the P its answer tokens are, in their order.
    """

    ids: list[int]
    depths: list[int]
    runs: list[tuple[int, int, int]]
    positions: list[int]
    targets: list[int]
    answers: list[list[int]]

    @classmethod
    def of(cls, rows: Sequence[TokenizedRow]) -> "PrefixTree":
        """The tree of some rows."""
        children: dict[tuple[int, int], int] = {}  # (a token's place in the line, the id that follows it) -> its place
        predicted: dict[tuple[int, int], int] = {}
        tree = cls([], [], [], [], [], [])
        for row in rows:
            place, first, before = -1, len(tree.ids), -1
            answer: list[int] = []
            for depth, (token, label) in enumerate(zip(row["input_ids"], row["labels"], strict=True)):
                if depth and label != IGNORED_LABEL:
                    answer.append(predicted.setdefault((place, label), len(predicted)))
                known = children.get((place, token))
                if known is None:
                    before = place if len(tree.ids) == first else before
                    known = children[place, token] = len(tree.ids)
                    tree.ids.append(token)
                    tree.depths.append(depth)
                place = known
            if len(tree.ids) > first:
                tree.runs.append((first, len(tree.ids), before))
            tree.answers.append(answer)
        tree.positions.extend(place for place, _ in predicted)
        tree.targets.extend(label for _, label in predicted)
        return tree

    def __len__(self) -> int:
        return len(self.ids)

    def sees(self) -> np.ndarray:
        """Which tokens each one sees, itself among them: [S, S], bool."""
        seen = np.zeros((len(self), len(self)), dtype=bool)
        for first, end, before in self.runs:
            if before >= 0:
                seen[first:end, :first] = seen[before, :first]
            seen[first:end, first:end] = np.tri(end - first, dtype=bool)
        return seen


def trees_of(
    rows: Sequence[TokenizedRow], groups: Iterable[Sequence[int]], longest: int, least_shared: float
) -> list[list[int]]:
    """Groups of rows, split into those of one tree each, by places of the rows.

    Args:
        rows: tokenised.
        groups: places of rows that begin alike.
        longest: tokens of a tree; a single row may have more.
        least_shared: the share of a row's tokens that it must have in common with another of its tree.
    """
    parts: list[list[int]] = []
    for group in groups:
        size: int = 0
        before: Sequence[int] = ()
        # In the order of their tokens, rows that share most stand next to each other.
        for place in sorted(group, key=lambda i: rows[i]["input_ids"]):
            ids = rows[place]["input_ids"]
            shared = _common_start(before, ids)
            more = len(ids) - shared
            if not size or size + more > longest or shared < least_shared * len(ids):
                parts.append([])
                size, more = 0, len(ids)
            parts[-1].append(place)
            size, before = size + more, ids
    return parts


def _common_start(one: Sequence[int], other: Sequence[int]) -> int:
    shorter = min(len(one), len(other))
    return next((i for i in range(shorter) if one[i] != other[i]), shorter)


def padded_trees(trees: Sequence[PrefixTree], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids and depths [B, S] of several trees, and which tokens see which, [B, 1, S, S].

    Args:
        trees: each a line of the batch.
        pad: id of the padding, which sees itself alone: a softmax over nothing would be no number.
    """
    longest = max(map(len, trees))
    ids, depths = torch.full((len(trees), longest), pad), torch.zeros((len(trees), longest), dtype=torch.long)
    seen = torch.eye(longest, dtype=torch.bool).repeat(len(trees), 1, 1)
    for line, tree in enumerate(trees):
        size = len(tree)
        ids[line, :size], depths[line, :size] = torch.tensor(tree.ids), torch.tensor(tree.depths)
        seen[line, :size, :size] = torch.from_numpy(tree.sees())
    return ids, depths, seen[:, None]
