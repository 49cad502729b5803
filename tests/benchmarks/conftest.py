"""The benchmarks are scripts that import each other by plain names, as Python finds them when one is started."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
