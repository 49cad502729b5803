"""What the log of a training says of the rows of requests, under the digests of the ledger."""

from collections.abc import Iterable, Mapping
from typing import Any

from ..data.text_digests import text_digests
from ..unlearnable import TrainingLog
from .evidence import Evidence


def evidence_of_log(
    log: TrainingLog, rows: Iterable[Mapping[str, Any]], salt: bytes, checkpoint: str | None = None
) -> Evidence:
    """Evidence for a plan.

    Args:
        log: as `hf_unlearn.unlearnable.read_log` reads it; it has a salt of its own.
        rows: of all requests that the plan weighs, earlier ones among them. Of other rows nothing is said.
        salt: of the ledger.
        checkpoint: a model from before the rows, where one is given beside the log.

    Raises:
        ValueError: rows of a form of which there is none in the log: it cannot say that they were not trained.
    """
    known = list(rows)
    by_own = dict(zip(text_digests(known, salt), log.digests(known), strict=True))
    first_steps = log.first_steps
    cohorts = {digest: name for name, cohort in log.cohorts.items() for digest in cohort.rows}
    return Evidence(
        log_sha256=log.sha256,
        rows_logged=log.rows_logged or sum(len(cohort.rows) for cohort in log.cohorts.values()),
        first_steps={digest: first_steps[own] for digest, own in by_own.items() if own in first_steps},
        total_steps=log.total_steps,
        checkpoint_steps=tuple(log.checkpoint_steps),
        cohorts={digest: cohorts[own] for digest, own in by_own.items() if own in cohorts},
        cohort_rows={name: len(cohort.rows) for name, cohort in log.cohorts.items()},
        weights=log.weights,
        checkpoint=checkpoint,
    )
