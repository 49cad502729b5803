"""Describes the machine and the library versions of a benchmark, for its JSON."""

import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

LIBRARIES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets")


def processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of Python and the libraries that a step runs through; what is not installed is left out."""
    versions_by_name = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions_by_name[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions_by_name


def machine(cuda: bool) -> dict[str, Any]:
    """Hardware. Asking for the card starts CUDA in this process, so `cuda` says whether to."""
    description: dict[str, Any] = {"processor": processor(), "cores": os.cpu_count(), "gpu": None}
    if cuda:
        properties = torch.cuda.get_device_properties(0)
        description |= {"gpu": properties.name, "gpu_gib": round(properties.total_memory / 2**30, 1)}
        description["cuda"] = torch.version.cuda
    return description


def write_results(file: Path, module: str, results: Any) -> None:
    """Write what a benchmark on one CPU thread has measured, with the command that was given and what it ran on."""
    record = {
        "command": " ".join(["python", "-m", module, *sys.argv[1:]]),
        "machine": machine(False) | {"threads": 1},
        "versions": versions(),
        "results": results,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
