"""Lets the disk of a run's folder run full at twelve sizes, makes room and goes on; compares with one that had room.

    sudo python -m benchmarks.faults.full_disk --output benchmarks/results/full_disk_cpu.json

The output folder is a tmpfs of the size, which root may mount; room is made by mounting it again with another size.
"""

import argparse
import json
import random
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common.environment import machine, versions
from benchmarks.faults.kills import uninterrupted
from benchmarks.faults.runs import SETUPS, Setup, go_on, result_of, start, wait
from hf_unlearn.training.checkpoints.mark import checkpoints_in
from hf_unlearn.training.checkpoints.moves import UNFINISHED

# From a disk that has no room for the first checkpoint to one that fails in the last: a run needs some 5 MB.
SIZES_KB = (100, 300, 600, 1000, 1400, 1800, 2200, 2600, 3000, 3400, 3800, 4200)
_MESSAGE = re.compile(r"Expected (.|\n)*Got: (.|\n)*Why it matters: (.|\n)*What to do: ")


def mount(folder: Path, kilobytes: int, *more: str) -> None:
    """A tmpfs of a size at a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ",".join([*more, f"size={kilobytes}k"])
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def filled(setup: Setup, folder: Path, kilobytes: int, expected: dict[str, Any]) -> dict[str, Any]:
    """One run on a disk of a size, and what came of it."""
    out = folder / "out"
    mount(out, kilobytes)
    try:
        statuses = wait(start(setup, folder))
        log = "".join(path.read_text(encoding="utf-8") for path in folder.glob("rank*.log"))
        row: dict[str, Any] = {"kilobytes": kilobytes, "setup": setup.title, "ran full": any(statuses)}
        row["told in four parts"] = _MESSAGE.search(log) is not None
        row["left behind"] = [path.name for path in out.rglob("*") if path.name == UNFINISHED or ".json." in path.name]
        row["checkpoints"] = list(checkpoints_in(out))
        mount(out, 64 * 1024, "remount")
        row["went on"] = go_on(setup, folder) if any(statuses) else "had room"
        row["equal"] = row["went on"] in ("resumed", "begun anew", "had room") and result_of(folder) == expected
        if not row["equal"]:
            print(log[-3000:])
        return row
    finally:
        subprocess.run(["umount", str(out)], check=True)


def main() -> None:
    """Fill the disks and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    choice, rows = random.Random(0), []
    with tempfile.TemporaryDirectory(prefix="full_disk_", ignore_cleanup_errors=True) as name:
        for index, kilobytes in enumerate(SIZES_KB):
            setup = choice.choice([setup for setup in SETUPS if not setup.lora])
            expected = uninterrupted(setup, Path(name, f"whole{index}")).result
            rows.append(filled(setup, Path(name, str(index)), kilobytes, expected))
            print(rows[-1], flush=True)
    content = {
        "command": "python -m benchmarks.faults.full_disk",
        "disks": len(rows),
        "ran full": sum(row["ran full"] for row in rows),
        "not equal": sum(not row["equal"] for row in rows),
        "rows": rows,
        "machine": machine(cuda=False),
        "versions": versions(),
    }
    options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
