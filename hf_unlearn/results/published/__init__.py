"""Figures from the logs of OpenUnlearning, TOFU and MUSE, under the names that this package's suites give them."""

from .read import read_published
from .row import PublishedRow

__all__ = ["PublishedRow", "read_published"]
