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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.common.environment import machine, versions
from benchmarks.faults.runs import SETUPS, SHARDED_SETUPS, Setup, go_on, result_of, start, wait
from hf_unlearn import UnlearningTrainer
from hf_unlearn.results.files import atomic_write_text
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


def plan(setups: list[Setup], randoms: int, aimed: int, choice: random.Random) -> list[Kill]:
    """The kills of a campaign: as many of each setup, and of each kind of aimed ones, in a random order."""
    kinds = ["random"] * randoms
    kinds += [("file operation", "moment of a save")[index // len(setups) % 2] for index in range(aimed)]
    kills = []
    for index, kind in enumerate(kinds):
        setup = setups[(index if kind == "random" else index - randoms) % len(setups)]
        kills.append(Kill(kind, setup, choice.randrange(setup.ranks), choice.random(), choice.random()))
    choice.shuffle(kills)  # so that a campaign that is cut short has some of all
    return kills


@dataclass
class Figures:
    """What a campaign has come to so far.

    Attributes:
        planned: kills.
        outcomes: how many runs, by kind of kill, setup and what they came to.
        failures: those that did not end as they should.
    """

    command: str
    planned: int
    outcomes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def add(self, kill: Kill, aim: InSave, outcome: str) -> None:
        """Count one kill."""
        outcome = outcome.split(":")[0]
        self.outcomes[(kill.kind, kill.setup.title, outcome)] += 1
        if not outcome.startswith("equal"):
            self.failures.append({"setup": kill.setup.title, "aim": repr(aim), "outcome": outcome})

    def content(self) -> dict[str, Any]:
        """All of it, for a file."""
        totals, came_to = Counter[str](), Counter[str]()
        for (kind, _, outcome), count in self.outcomes.items():
            totals[f"{kind}: {outcome}"] += count
            came_to[outcome.removeprefix("equal, ")] += count
        rows = [{"kill": k, "setup": s, "outcome": o, "runs": n} for (k, s, o), n in sorted(self.outcomes.items())]
        return {
            "command": self.command,
            "planned": self.planned,
            "kills": sum(self.outcomes.values()),
            "not equal": len(self.failures),
            "came to": dict(sorted(came_to.items())),
            "totals": dict(sorted(totals.items())),
            "failures": self.failures,
            "runs": rows,
            "seconds": round(time.monotonic() - self.begun),
            "machine": machine(cuda=False),
            "versions": versions(),
        }


def campaign(kills: list[Kill], place: Path, output: Path, figures: Figures) -> None:
    """Kill run after run; the file has the figures after each of them."""
    wholes = dict[str, Whole]()
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
            print(f"{title}, {kill.kind}, {aim}: {outcome}\n{log}", flush=True)
        figures.add(kill, aim, outcome)
        atomic_write_text(output, json.dumps(figures.content(), indent=1) + "\n")


def main() -> None:
    """Run the campaign and write its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setups", choices=("whole", "sharded"), default="whole", help="who holds which weights")
    parser.add_argument("--random", type=int, default=200, help="kills at random moments (default: %(default)s)")
    parser.add_argument("--aimed", type=int, default=60, help="kills inside of saves (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    if options.setups == "sharded":
        import_module("deepspeed")  # here once, not in each of the forked processes
    setups = SHARDED_SETUPS if options.setups == "sharded" else SETUPS
    kills = plan(setups, options.random, options.aimed, random.Random(options.seed))
    asked = f"--setups {options.setups} --random {options.random} --aimed {options.aimed} --seed {options.seed}"
    figures = Figures(f"python -m benchmarks.faults.kills {asked}", len(kills))
    with tempfile.TemporaryDirectory(prefix="kills_", ignore_cleanup_errors=True) as name:
        campaign(kills, Path(name), options.output, figures)
    shown = ("kills", "not equal", "came to", "totals", "seconds")
    print(json.dumps({name: figures.content()[name] for name in shown}, indent=1))


if __name__ == "__main__":
    main()
