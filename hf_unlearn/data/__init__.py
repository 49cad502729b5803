"""Stage 1, rows: from any accepted format to padded batches of forget, retain, alternate and mismatch rows."""

from .collator import DataCollatorForUnlearning
from .pairing import ForgetRetainDataset, ForgetRetainStream
from .roles import Role

__all__ = ["DataCollatorForUnlearning", "ForgetRetainDataset", "ForgetRetainStream", "Role"]
