"""Naive versions of the formulas, to measure the package against. Not fast, and never used by the package."""
