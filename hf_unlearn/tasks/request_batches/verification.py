"""What came of a verification."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Verified:
    """The verification of a request.

    Attributes:
        request: its id.
        holds: by its policy.
        why: what stands against it.
        notes: what the figures leave open.
        figures: by name, with intervals.
        file: with all figures, in the ledger's runs.
        earlier: whether these weights were verified before, and the figures are of then.
    """

    request: str
    holds: bool
    why: list[str]
    notes: list[str]
    figures: dict[str, Any]
    file: str
    earlier: bool = False


@dataclass(frozen=True)
class Verification:
    """Of a ledger: what is wrong with it, and its requests.

    Attributes:
        problems: changed lines, weight files or records, missing ones, a sentence each.
        requests: in order.
        open_again: ids of those that came back earlier and were not carried out since; they are not measured.
        erased: ids of those whose rows were erased, which can no longer be measured.
    """

    problems: list[str]
    requests: list[Verified] = field(default_factory=list)
    open_again: list[str] = field(default_factory=list)
    erased: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong and every request that can be measured holds."""
        return not self.problems and not self.open_again and all(one.holds for one in self.requests)
