"""Kills runs at random moments and inside of their saves, goes on with each, compares with one that was not killed.

    python -m benchmarks.faults.kills --output benchmarks/results/kills_cpu.json
    python -m benchmarks.faults.kills --setups sharded --output benchmarks/results/kills_sharded_cpu.json

SIGKILL, as the out-of-memory killer and preemption send it. A run is killed at a random moment between its first save
and its end (before that there is nothing to go on from); or in a save, at a random file operation of it or at a random
moment after its begin. In two ranks one of them is killed, and the other as torchrun would. Each then goes on with
`resume_from_checkpoint=True` (from its start where nothing was saved yet), and must end with the weights and the log
of the run that was not killed, bit for bit. Two ranks have a whole model each, or shards under ZeRO and FSDP2.
"""

import argparse
import contextlib
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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.common.environment import machine, versions
from benchmarks.faults.runs import SETUPS, SHARDED_SETUPS, Setup, go_on, result_of, start, wait
from hf_unlearn import UnlearningTrainer
from hf_unlearn.results.record import RECORD_FILE

_WATCHED = "saves{rank}.json"
_FILE_OPERATIONS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "os.unlink")


@dataclass(frozen=True)
class Whole:
    """A run that nobody kills.

    Attributes:
        result: of `result_of`.
        length: seconds from its first save to its end.
        saves: by rank and save: Python's file operations from its begin to the next one's, and its seconds.
    """

    result: dict[str, Any]
    length: float
    saves: list[list[tuple[int, float]]]


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


def uninterrupted(setup: Setup, folder: Path) -> Whole:
    """Run a setup to its end and see what its saves are like."""
    statuses = wait(start(setup, folder, arm=_watch_saves))
    if any(statuses):
        raise RuntimeError(f"{setup.title} ends with {statuses}\n{(folder / 'rank0.log').read_text(encoding='utf-8')}")
    watched = [json.loads((folder / _WATCHED.format(rank=rank)).read_text()) for rank in range(setup.ranks)]
    ended = (folder / "out" / RECORD_FILE).stat().st_mtime
    saves = [list(zip(rank["operations"], rank["seconds"], strict=True)) for rank in watched]
    return Whole(result_of(folder), ended - watched[0]["first"], saves)


def _watch_saves(trainer: UnlearningTrainer) -> Callable[[], None]:
    """Count the file operations of each save and take its time; both lie beside the output folder afterwards."""
    folder, operations, seconds, first = trainer.run_folder, list[int](), list[float](), list[float]()
    writing = folder._writing

    @contextlib.contextmanager
    def watched(place: Path) -> Iterator[Path]:
        operations.append(0)
        first.append(time.time())
        with writing(place) as staging:
            yield staging
        seconds.append(time.time() - first[-1])

    def hook(event: str, _arguments: Any) -> None:
        if operations and event in _FILE_OPERATIONS:
            operations[-1] += 1

    def write() -> None:
        file = Path(trainer.args.output_dir).parent / _WATCHED.format(rank=os.environ.get("RANK", "0"))
        content = {"operations": operations, "seconds": seconds, "first": first[0]}
        file.write_text(json.dumps(content), encoding="utf-8")

    folder._writing = watched  # type: ignore[method-assign]
    sys.addaudithook(hook)
    return write


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


@dataclass(frozen=True)
class Kill:
    """One kill of the campaign, as it is drawn: of which setup, and where as a share of what its run is like."""

    kind: str
    setup: Setup
    rank: int
    save: float
    place: float

    def aim(self, whole: Whole) -> InSave:
        """Where it is in a run that is like the one which nobody killed."""
        if self.kind == "random":
            return InSave(0, self.rank, seconds=self.place * whole.length)
        saves = whole.saves[self.rank]
        save = int(self.save * len(saves))
        operations, seconds = saves[save]
        if self.kind == "file operation":
            return InSave(save, self.rank, operation=int(self.place * operations))
        return InSave(save, self.rank, seconds=self.place * seconds)


def plan(setups: list[Setup], randoms: int, aimed: int, choice: random.Random) -> Iterator[Kill]:
    """The kills of a campaign: each setup in turn, and each kind of aimed ones."""
    kinds = ["random"] * randoms
    kinds += [("file operation", "moment of a save")[index // len(setups) % 2] for index in range(aimed)]
    for index, kind in enumerate(kinds):
        setup = setups[(index if kind == "random" else index - randoms) % len(setups)]
        yield Kill(kind, setup, choice.randrange(setup.ranks), choice.random(), choice.random())


def campaign(kills: Iterable[Kill], place: Path) -> tuple[Counter[tuple[str, str, str]], list[dict[str, str]]]:
    """How many runs of a kind of kill and a setup came to what, and those that did not end as they should."""
    begun, wholes = time.monotonic(), dict[str, Whole]()
    outcomes, failures = Counter[tuple[str, str, str]](), list[dict[str, str]]()
    for index, kill in enumerate(kills):
        title = kill.setup.title
        if title not in wholes:
            wholes[title] = uninterrupted(kill.setup, place / f"whole{index}")
        folder, aim = place / str(index), kill.aim(wholes[title])
        outcome = killed(kill.setup, folder, aim, wholes[title].result)
        if outcome.startswith("equal"):
            shutil.rmtree(folder)
        else:
            log = (folder / "rank0.log").read_text(encoding="utf-8")[-3000:]
            failures.append({"setup": title, "aim": repr(aim), "outcome": outcome.split(":")[0]})
            print(f"{title}, {kill.kind}, {aim}: {outcome}\n{log}", flush=True)
        outcomes[(kill.kind, title, outcome.split(":")[0])] += 1
        if index % 20 == 19:
            print(f"{index + 1} kills, {len(failures)} failures, {time.monotonic() - begun:.0f} s", flush=True)
    return outcomes, failures


def main() -> None:
    """Run the campaign and write its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setups", choices=("whole", "sharded"), default="whole", help="who holds which weights")
    parser.add_argument("--random", type=int, default=200, help="kills at random moments (default: %(default)s)")
    parser.add_argument("--aimed", type=int, default=60, help="kills inside of saves (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    begun = time.monotonic()
    if options.setups == "sharded":
        import_module("deepspeed")  # here once, not in each of the forked processes
    setups = SHARDED_SETUPS if options.setups == "sharded" else SETUPS
    kills = plan(setups, options.random, options.aimed, random.Random(options.seed))
    with tempfile.TemporaryDirectory(prefix="kills_", ignore_cleanup_errors=True) as name:
        outcomes, failures = campaign(kills, Path(name))
    rows = [{"kill": k, "setup": s, "outcome": o, "runs": count} for (k, s, o), count in sorted(outcomes.items())]
    totals, came_to = Counter[str](), Counter[str]()
    for row in rows:
        totals[f"{row['kill']}: {row['outcome']}"] += row["runs"]
        came_to[row["outcome"].removeprefix("equal, ")] += row["runs"]
    asked = f"--setups {options.setups} --random {options.random} --aimed {options.aimed} --seed {options.seed}"
    content = {
        "command": f"python -m benchmarks.faults.kills {asked}",
        "kills": sum(outcomes.values()),
        "not equal": len(failures),
        "came to": dict(sorted(came_to.items())),
        "totals": dict(sorted(totals.items())),
        "failures": failures,
        "runs": rows,
        "seconds": round(time.monotonic() - begun),
        "machine": machine(cuda=False),
        "versions": versions(),
    }
    options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(
        json.dumps({name: content[name] for name in ("kills", "not equal", "came to", "totals", "seconds")}, indent=1)
    )


if __name__ == "__main__":
    main()
