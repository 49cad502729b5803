"""What the log of a training says of the rows of a ledger's requests, told in the ledger's own digests."""

import os

from ..unlearnable import read_log
from .evidence import Evidence
from .ledger import Ledger
from .rows_store import RowsStore


def log_evidence(ledger: Ledger, log_folder: str | os.PathLike[str], checkpoint: str | None = None) -> Evidence:
    """Read a log for all requests of a ledger; each has its own salt, so the rows themselves are asked for.

    Args:
        ledger: whose requests are asked about.
        log_folder: of the log, as `UnlearnableCallback` or `train_cohorts` wrote it.
        checkpoint: a model from before the rows, where one is known.

    Raises:
        ValueError: rows or log cannot be read, were changed, or have another form than the log's.
    """
    log, store = read_log(log_folder), RowsStore(ledger)
    steps = log.first_steps
    cohort_of = {digest: name for name, cohort in log.cohorts.items() for digest in cohort.rows}
    first_steps, cohorts = {}, {}
    for request in ledger.state().requests.values():
        # The store gives the rows in the order of the request's digests.
        for own, logged in zip(request.digests, log.digests(list(store.rows(request.id))), strict=True):
            if logged in steps:
                first_steps[own] = steps[logged]
            if logged in cohort_of:
                cohorts[own] = cohort_of[logged]
    return Evidence(
        log_sha256=log.sha256,
        rows_logged=log.rows_logged,
        first_steps=first_steps,
        total_steps=log.total_steps,
        checkpoint_steps=log.checkpoint_steps,
        cohorts=cohorts,
        cohort_rows={name: len(cohort.rows) for name, cohort in log.cohorts.items()},
        weights=log.weights,
        checkpoint=checkpoint,
    )
