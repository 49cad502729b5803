"""Stage 6b, evaluation: what a model answers and how likely its answers are. It changes no model."""

from .comparison import Comparison, Judge, compare_on, comparison_table
from .generation import generate_answers

__all__ = ["Comparison", "Judge", "compare_on", "comparison_table", "generate_answers"]
