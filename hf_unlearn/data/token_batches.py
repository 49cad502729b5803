"""Cuts the rows of a micro-batch into several batches of like length, none with more tokens than a limit."""

from dataclasses import dataclass
from typing import Any

# Rows of an item that may be read in another forward than its forget row.
_APART = ("retain", "anchor")


@dataclass(frozen=True)
class _Unit:
    """Rows that stay in one batch: a forget row with its alternate and mismatches, or one retain or holdout row."""

    item: dict[str, Any]
    rows: tuple[int, ...]  # tokens of each

    @property
    def longest(self) -> int:
        return max(self.rows)


@dataclass(frozen=True)
class TokenLimit:
    """Batches of rows of like length, whose gradients add up to that of the rows in one batch.

    The rows are sorted by length, the longest first, and each batch takes the next ones while its tokens, padding
    included, stay within the limit. A row with more tokens than that has a batch of its own. Losses are divided by the
    counts of the whole optimizer step, so how it is cut changes the sums by rounding alone.

    Args:
        tokens: most tokens of a batch.
        padded: whether a row takes as many tokens as the longest of its batch; False for rows in one line.
    """

    tokens: int
    padded: bool = True

    def cut(self, items: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        """The rows of paired items as items of several batches; retain and holdout rows come as items of their own.

        Args:
            items: paired, of one micro-batch.
        """
        units = sorted((unit for item in items for unit in _units(item)), key=lambda unit: -unit.longest)
        batches: list[list[_Unit]] = []
        for unit in units:
            if batches and self._size([*batches[-1], unit]) <= self.tokens:
                batches[-1].append(unit)
            else:
                batches.append([unit])
        # Forget rows first: the rows that belong to one name it by its place in the batch.
        return [sorted((unit.item for unit in batch), key=lambda item: "input_ids" not in item) for batch in batches]

    def _size(self, units: list[_Unit]) -> int:
        rows = [length for unit in units for length in unit.rows]
        return len(rows) * max(rows) if self.padded else sum(rows)


def _units(item: dict[str, Any]) -> list[_Unit]:
    forget = {name: value for name, value in item.items() if name not in _APART} | {"retain": []}
    beside = [item["alternate"]] if "alternate" in item else []
    units = [_Unit(forget, _lengths([item, *beside, *item.get("mismatch", ())]))]
    for row in item.get("retain", ()):
        units.append(_Unit({"retain": [row]}, _lengths([row, *([row["alternate"]] if "alternate" in row else [])])))
    for row in item.get("anchor", ()):
        units.append(_Unit({"retain": [], "anchor": [row]}, _lengths([row])))
    return units


def _lengths(rows: list[dict[str, Any]]) -> tuple[int, ...]:
    return tuple(len(row["input_ids"]) for row in rows)
