"""The report of runs: one HTML page, and plots as files, made from their folders."""

from ..verdict import Verdict, verdict
from .page import write_report
from .plots import write_plots
from .read import SHOWABLE_FILE, Run, read_run

__all__ = ["SHOWABLE_FILE", "Run", "Verdict", "read_run", "verdict", "write_plots", "write_report"]
