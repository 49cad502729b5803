"""Rows on their way: from any accepted format to tokens, pairs and padded batches with a role per row."""

from .collator import DataCollatorForUnlearning
from .holdout_split import calibration_rows, measurement_rows
from .pairing import ForgetRetainDataset, ForgetRetainStream
from .roles import Role

__all__ = [
    "DataCollatorForUnlearning",
    "ForgetRetainDataset",
    "ForgetRetainStream",
    "Role",
    "calibration_rows",
    "measurement_rows",
]
