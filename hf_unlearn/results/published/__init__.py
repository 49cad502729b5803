"""Figures that other code has published: its logs, read under this package's names, with what they lack said."""

from .published import PublishedRow, read_published

__all__ = ["PublishedRow", "read_published"]
