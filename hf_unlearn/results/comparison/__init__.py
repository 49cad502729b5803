"""Methods compared: their runs over seeds, tests between them, the front of Pareto, ranks, as tables and a page."""

from .comparison import ComparedMethod, ComparedRun, ComparedSetting, Comparison, compare
from .formats import comparison_csv, comparison_latex, comparison_markdown, comparison_text
from .page import comparison_page
from .write import comparison_data, write_comparison

__all__ = [
    "ComparedMethod",
    "ComparedRun",
    "ComparedSetting",
    "Comparison",
    "compare",
    "comparison_csv",
    "comparison_data",
    "comparison_latex",
    "comparison_markdown",
    "comparison_page",
    "comparison_text",
    "write_comparison",
]
