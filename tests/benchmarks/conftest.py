"""The benchmarks are modules of a folder at the repository's root, started with `python -m benchmarks...`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
