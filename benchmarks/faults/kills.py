"""Kills runs at random moments and inside of their saves, goes on with each, compares with one that was not killed.

    python -m benchmarks.faults.kills --output benchmarks/results/kills_cpu.json

SIGKILL, as the out-of-memory killer and preemption send it. A run is killed at a random moment between its first save
and its end (before that there is nothing to go on from); or in a save, at a random file operation of it or at a random
moment after its begin. In two ranks one of them is killed, and the other as torchrun would. Each then goes on with
`resume_from_checkpoint=True` (from its start where nothing was saved yet), and must end with the weights and the log
of the run that was not killed, bit for bit.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.environment import machine, versions
from benchmarks.faults.runs import SETUPS, Setup, go_on, result_of, start, wait
from hf_unlearn import UnlearningTrainer
from hf_unlearn.results.record import RECORD_FILE

# Python's file operations in the first rank in each save of a run, at least; in other ranks there are one or two.
OPERATIONS = (63, 63, 85, 85, 85, 50)
_FIRST_SAVE = "first_save"
_FILE_OPERATIONS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "os.unlink")


@dataclass
class InSave:
    """Ends a process inside of a save.

    Args:
        save: which one of the run, from 0; the last is the final model's.
        rank: of the process.
        operation: the file operation before which it ends, counted from the save's begin; or
        seconds: after the save's begin.
    """

    save: int
    rank: int = 0
    operation: int | None = None
    seconds: float | None = None

    def __call__(self, trainer: UnlearningTrainer) -> None:
        """Set it up in the run's process."""
        if int(os.environ.get("RANK", "0")) != self.rank:
            return
        folder, saves = trainer.run_folder, itertools.count()
        writing, counted = folder._writing, itertools.count()
        armed = False

        def watched(place: Path) -> Any:
            nonlocal armed
            if next(saves) == self.save:
                armed = True
                if self.seconds is not None:
                    _end_in(self.seconds)
            return writing(place)

        def hook(event: str, _arguments: Any) -> None:
            if armed and event in _FILE_OPERATIONS and next(counted) == self.operation:
                os.kill(os.getpid(), signal.SIGKILL)

        folder._writing = watched  # type: ignore[method-assign]
        if self.operation is not None:
            sys.addaudithook(hook)


def _end_in(seconds: float) -> None:
    """SIGKILL this process after a while, from another one, so that no line of Python here is waited for."""
    victim = os.getpid()
    if os.fork() == 0:
        time.sleep(seconds)
        os.kill(victim, signal.SIGKILL)
        os._exit(0)


def uninterrupted(setup: Setup, folder: Path) -> tuple[dict[str, Any], float]:
    """The result of a run that nobody kills, and the seconds from its first save to its end."""
    statuses = wait(start(setup, folder, arm=_stamp_first_save))
    if any(statuses):
        raise RuntimeError(f"{setup.title} ends with {statuses}\n{(folder / 'rank0.log').read_text(encoding='utf-8')}")
    begun, ended = folder / _FIRST_SAVE, folder / "out" / RECORD_FILE
    return result_of(folder), ended.stat().st_mtime - begun.stat().st_mtime


def _stamp_first_save(trainer: UnlearningTrainer) -> None:
    """Leave a file beside the output folder when the first save begins."""
    folder, stamp = trainer.run_folder, Path(trainer.args.output_dir).parent / _FIRST_SAVE
    writing = folder._writing

    def stamped(place: Path) -> Any:
        if not stamp.exists():
            stamp.touch()
        return writing(place)

    folder._writing = stamped  # type: ignore[method-assign]


def killed(setup: Setup, folder: Path, aim: InSave, expected: dict[str, Any]) -> str:
    """Kill one run and go on with it; "equal", or what went wrong."""
    processes = start(setup, folder, arm=aim)
    statuses = wait(processes)
    if not any(statuses):
        return "equal, ended before the kill"
    went_on = go_on(setup, folder)
    if went_on not in ("resumed", "begun anew"):
        return f"{went_on}: {folder}"
    return f"equal, {went_on}" if result_of(folder) == expected else f"{went_on} and ended elsewhere: {folder}"


def plan(randoms: int, aimed: int, choice: random.Random) -> Iterator[tuple[Setup, float | None, InSave]]:
    """Which setup is killed where in a save, or after which share of its length from the first save on."""
    for index in range(randoms):
        setup = SETUPS[index % len(SETUPS)]
        yield setup, choice.random(), InSave(0, choice.randrange(setup.ranks))
    for index in range(aimed):
        setup = SETUPS[index % len(SETUPS)]
        place: dict[str, Any] = {"save": choice.randrange(len(OPERATIONS)), "rank": choice.randrange(setup.ranks)}
        if index // len(SETUPS) % 2 == 0:
            operations = OPERATIONS[place["save"]] if place["rank"] == 0 else 2
            yield setup, None, InSave(**place, operation=choice.randrange(operations))
        else:
            yield setup, None, InSave(**place, seconds=choice.uniform(0.0, 0.06))


def main() -> None:
    """Run the campaign and write its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=200, help="kills at random moments (default: %(default)s)")
    parser.add_argument("--aimed", type=int, default=60, help="kills inside of saves (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    begun, outcomes, failures = time.monotonic(), Counter[tuple[str, str, str]](), []
    with tempfile.TemporaryDirectory(prefix="kills_", ignore_cleanup_errors=True) as name:
        references: dict[str, tuple[dict[str, Any], float]] = {}
        for index, (setup, share, aim) in enumerate(plan(options.random, options.aimed, random.Random(options.seed))):
            if setup.title not in references:
                references[setup.title] = uninterrupted(setup, Path(name, f"whole{index}"))
            expected, length = references[setup.title]
            folder = Path(name, str(index))
            if share is not None:
                aim.seconds = share * length
            outcome = killed(setup, folder, aim, expected)
            kind = "random" if share is not None else "file operation" if aim.seconds is None else "moment of a save"
            if outcome.startswith("equal"):
                shutil.rmtree(folder)
            else:
                log = (folder / "rank0.log").read_text(encoding="utf-8")[-3000:]
                failures.append({"setup": setup.title, "aim": repr(aim), "outcome": outcome.split(":")[0]})
                print(f"{setup.title}, {kind}, {aim}: {outcome}\n{log}", flush=True)
            outcomes[(kind, setup.title, outcome.split(":")[0])] += 1
            if index % 20 == 19:
                print(f"{index + 1} kills, {len(failures)} failures, {time.monotonic() - begun:.0f} s", flush=True)
    rows = [{"kill": k, "setup": s, "outcome": o, "runs": count} for (k, s, o), count in sorted(outcomes.items())]
    totals = Counter[str]()
    for row in rows:
        totals[f"{row['kill']}: {row['outcome']}"] += row["runs"]
    content = {
        "command": f"python -m benchmarks.faults.kills --random {options.random} --aimed {options.aimed} "
        f"--seed {options.seed}",
        "kills": sum(outcomes.values()),
        "not equal": len(failures),
        "totals": dict(sorted(totals.items())),
        "failures": failures,
        "runs": rows,
        "seconds": round(time.monotonic() - begun),
        "machine": machine(cuda=False),
        "versions": versions(),
    }
    options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: content[name] for name in ("kills", "not equal", "totals", "seconds")}, indent=1))


if __name__ == "__main__":
    main()
