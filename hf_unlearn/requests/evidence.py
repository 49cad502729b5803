"""What is known of the training that the rows of requests were in: plain values, taken from its log."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Evidence:
    """What a training's log says, or nothing where there was none.

    Attributes:
        log_sha256: of the log; None where there is none, and then all that follows but `checkpoint` says nothing.
        rows_logged: how many rows the log names.
        first_steps: digest of a row, salted as the ledger's are -> the first step, from 1, that trained the weights
            which all cohorts share on it.
        total_steps: of the training.
        checkpoint_steps: steps after which the training's whole state was kept; 0 is the state before the first one.
        cohorts: digest of a row -> the cohort whose adapter was trained on it.
        cohort_rows: rows of each cohort; counted in `cohorts` where it is not given.
        weights: hashes of the weight files that the training ended with, by which the log is known to be that of the
            ledger's model; None where the log does not say.
        checkpoint: place of a model from before the rows; it stays out of every entry.
    """

    log_sha256: str | None = None
    rows_logged: int = 0
    first_steps: Mapping[str, int] = field(default_factory=dict)
    total_steps: int = 0
    checkpoint_steps: Sequence[int] = ()
    cohorts: Mapping[str, str] = field(default_factory=dict)
    cohort_rows: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, str] | None = None
    checkpoint: str | None = None

    def trained(self, digests: Sequence[str]) -> list[str]:
        """Those of the rows that the log names, in order."""
        return [digest for digest in digests if digest in self.first_steps or digest in self.cohorts]

    def rows_of(self, cohort: str) -> int:
        """How many rows its adapter was trained on."""
        return self.cohort_rows.get(cohort, Counter(self.cohorts.values())[cohort])
