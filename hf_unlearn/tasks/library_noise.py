"""What libraries tell that a user of a command can do nothing about. Importing this file loads no library.

A line here for each, as narrow as it can be; what is our own doing is mended where it is done, and what a user can act
on is left alone.
"""

import logging
import os
import sys
import warnings
from pathlib import Path

# Of peft and TRL, which ask models of transformers by a name that is going away: category, message, module.
_WARNINGS = ((FutureWarning, "`is_gradient_checkpointing` is deprecated", r"transformers\.modeling_utils"),)
# DeepSpeed's, at its import, on a machine without an accelerator; other libraries import it where it is installed.
_NO_ACCELERATOR = "Setting accelerator to CPU."
_NVIDIA_DRIVER = Path("/proc/driver/nvidia")


def quiet_libraries() -> None:
    """Leave out warnings that nobody can act on; where standard error is no terminal, also the bars of libraries.

    For programs of this package, not for its import: what a script of somebody else is told is that script's.
    Libraries look at the environment when they are imported, so it comes before. A variable that is set stays so.
    """
    for category, message, module in _WARNINGS:
        warnings.filterwarnings("ignore", message, category, module)
    logging.getLogger("DeepSpeed").addFilter(_worth_telling)
    if not sys.stderr.isatty():
        for library in ("HUB", "DATASETS"):  # transformers follows the first one
            # A bar writes a line for each update into a log.
            os.environ.setdefault(f"HF_{library}_DISABLE_PROGRESS_BARS", "1")


def _worth_telling(record: logging.LogRecord) -> bool:
    """False of DeepSpeed's guess on a machine without a GPU; with a driver, the GPU that it did not find is news."""
    return not record.getMessage().startswith(_NO_ACCELERATOR) or _NVIDIA_DRIVER.exists()
