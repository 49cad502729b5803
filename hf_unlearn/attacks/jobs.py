"""Jobs: every attack on every subject, dealt out to the processes, each kept on disk as soon as it is done."""

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from ..evaluation.main_process import refused_together
from ..model.fingerprints import hash_parts
from ..model.score_rows import preserve_rng_state
from ..progress import phase, progress
from ..results.attack_report import BEFORE, SettingLeak, SubjectLeak
from ..results.files import atomic_write_text, read_json
from ..version import __version__
from .base import Attack, Threat
from .choice import subject_leak
from .subjects import AttackSets, Subject


@dataclass(frozen=True)
class Job:
    """An attack on a subject."""

    attack: Attack
    subject: Subject

    @property
    def key(self) -> tuple[str, str]:
        """Name of the attack, name of the subject."""
        return self.attack.name, self.subject.name


@dataclass(frozen=True)
class Done:
    """What was kept of finished jobs, in a folder.

    Attributes:
        folder: None keeps nothing.
        depends_on: what the results depend on beside attack and subject, as `hash_parts` takes it.
        weights: of a model, by its identity in memory: SHA-256.
    """

    folder: Path | None
    depends_on: dict[str, Any]
    weights: Callable[[Any], str]

    def read(self, job: Job) -> SubjectLeak | None:
        """The result of a job that an earlier start has finished."""
        file = self._file(job)
        if file is None or not file.is_file():
            return None
        stored = read_json(file)
        return SubjectLeak(**stored | {"settings": [SettingLeak(**setting) for setting in stored["settings"]]})

    def write(self, job: Job, leak: SubjectLeak) -> None:
        """Keep a result. It holds numbers alone."""
        file = self._file(job)
        if file is not None:
            atomic_write_text(file, json.dumps(asdict(leak)))

    def remove(self, jobs: Sequence[Job]) -> None:
        """Delete what was kept, once the report is whole, and the folder unless something else lies in it."""
        files = [file for file in map(self._file, jobs) if file is not None]
        for file in files:
            file.unlink(missing_ok=True)
        if self.folder is not None and self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _file(self, job: Job) -> Path | None:
        if self.folder is None:
            return None
        target = job.subject.target
        parts = self.depends_on | {
            "version": __version__,
            "attack": {"name": job.attack.name, **dataclasses.asdict(job.attack)},
            "subject": job.subject.kind,
            "weights": self.weights(target.model),
            "seed": target.seed,
        }
        if job.attack.threat is Threat.WEIGHTS_AND_BEFORE:
            parts["before"] = "" if target.before is None else self.weights(target.before)
        name = "-".join(job.key).replace(" ", "_")
        return self.folder / f"{name}-{hash_parts(parts)[:16]}.json"


def run_jobs(
    jobs: Sequence[Job], sets: AttackSets, done: Done, accelerator: Accelerator, *, minutes: float | None
) -> dict[tuple[str, str], SubjectLeak]:
    """The results of jobs by their keys, on every rank; those for which no time was left have none.

    Args:
        jobs: in the order in which they are begun, dealt out to the ranks one by one.
        sets: rows.
        done: what earlier starts have finished, which is not repeated.
        accelerator: of the ranks.
        minutes: after which no further job is begun; None for no limit.
    """
    started = time.perf_counter()
    own = jobs[accelerator.process_index :: accelerator.num_processes]
    results: list[tuple[tuple[str, str], SubjectLeak]] = []
    shown = accelerator.is_main_process
    with refused_together(accelerator, jobs[0].subject.target.model):
        for job in progress(own, "attacks", shown=shown):
            leak = done.read(job)
            if leak is None:
                if minutes is not None and time.perf_counter() - started > 60 * minutes:
                    continue
                with phase(f"attack {' on '.join(job.key)}", one_line=True, shown=shown):
                    leak = _attacked(job, sets)
                done.write(job, leak)
            results.append((job.key, leak))
    return dict(results if accelerator.num_processes == 1 else gather_object(results))


def _attacked(job: Job, sets: AttackSets) -> SubjectLeak:
    started, rows, target = time.perf_counter(), sets.rows(control=job.subject.control_rows), job.subject.target
    # The first setting is the one in which nothing was done, and no other is run where it alone is asked for.
    settings = 1 if job.attack.teaches and job.subject.name == BEFORE else None
    with preserve_rng_state():
        leaks = list(itertools.islice(job.attack.run(target, rows), settings))
    utility = target.utility() if any(leak.utility is not None for leak in leaks) else float("nan")
    return subject_leak(leaks, rows.tuned, utility, time.perf_counter() - started)
