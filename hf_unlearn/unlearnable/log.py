"""Reads the log of a training: which rows were trained in which optimizer step, and from where it can be repeated."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..data.text_digests import row_form, text_digest
from ..errors import input_error
from .cohort_files import Cohort, read_cohorts
from .lines import read_lines
from .places import SALT_FILE, rows_file, start_weights, steps_file

FORMAT = 1
# Events of a log's lines.
BEGUN, RESUMED, STEP, SAVED, ENDED = "begun", "resumed", "step", "saved", "ended"

Rows = Iterable[Mapping[str, Any] | str]


@dataclass(frozen=True)
class Step:
    """An optimizer step.

    Attributes:
        number: from 1, as in `checkpoint-<number>`.
        epoch: from 0.
        rows: per role ("train"; for UnlearningTrainer "forget", "retain", ...), rank and micro-batch: places of rows
            in their set, in the order of the batch.
    """

    number: int
    epoch: int
    rows: dict[str, list[list[list[int]]]]


@dataclass(frozen=True)
class TrainingLog:
    """What `UnlearnableCallback` and `train_cohorts` wrote into a folder.

    Attributes:
        folder: of the log.
        salt: of its digests. Never to be given out.
        header: settings, versions, hashes of the start, number of ranks; empty where only cohorts were trained.
        sets: per role, the digest of each row, in the order of the set.
        steps: optimizer steps that led to the last weights, in order.
        saved: step -> folder and weight hashes of each checkpoint on the way.
        end: hash of the weights with which the training ended (`hf_unlearn.model.fingerprints.hash_weights`); None
            before that.
        cohorts: name -> cohort of `train_cohorts`, those that are left.
        sha256: of all files of the log and the cohorts' manifests.
    """

    folder: Path
    salt: bytes = field(repr=False)
    header: dict[str, Any]
    sets: dict[str, tuple[str, ...]]
    steps: tuple[Step, ...]
    saved: dict[int, dict[str, Any]]
    end: str | None
    cohorts: dict[str, Cohort]
    sha256: str

    @property
    def rows_logged(self) -> int:
        """Rows of the sets that were trained on, counted as often as a set has them."""
        return sum(map(len, self.sets.values()))

    @property
    def total_steps(self) -> int:
        """Optimizer steps taken."""
        return self.steps[-1].number if self.steps else 0

    @property
    def finished(self) -> bool:
        """Whether the training came to its end, on every rank."""
        return self.end is not None

    @property
    def weights(self) -> dict[str, str] | None:
        """SHA-256 of the weight files at the end of training, by name; None where none were saved at its last step."""
        if self.end is None or self.header["settings"].get("load_best_model_at_end"):
            return None
        last = self.saved.get(self.total_steps)
        return None if last is None else dict(last["weights"])

    @property
    def start(self) -> str | None:
        """Hash of the weights before the first step (theta_0); None where only cohorts were trained."""
        return self.header["start"]["sha256"] if self.header else None

    @property
    def start_weights(self) -> Path | None:
        """The file of the trained weights before the first step, where they were kept."""
        path = start_weights(self.folder)
        return path if path.is_file() else None

    def digests(self, rows: Rows) -> list[str]:
        """The digest of each row under the log's salt; digests are taken as they are.

        Args:
            rows: in any accepted format of the form that was logged, or digests of this log.

        Raises:
            ValueError: rows of a form of which there is none in the log: all would seem never to have been trained.
        """
        return [row if isinstance(row, str) else self._digest(row) for row in rows]

    @cached_property
    def forms(self) -> list[str]:
        """The forms of the rows: turns, preferences, text or tokens (`hf_unlearn.data.text_digests.row_form`)."""
        own = {form for said in self.header.get("sets", {}).values() for form in said["forms"]}
        return sorted(own.union(*(cohort.forms for cohort in self.cohorts.values())))

    def _digest(self, row: Mapping[str, Any]) -> str:
        if row_form(row) not in self.forms:
            raise input_error(
                expected=f"rows as they were logged: {', '.join(self.forms)}",
                got=row_form(row),
                why="the same words in another form have another digest, and would seem never to have been trained on",
                fix="name the rows in that form; to know rows by their text, log with rows= as they were before they "
                "were tokenised",
            )
        return text_digest(row, self.salt)

    def places(self, rows: Rows, role: str = "train") -> list[int]:
        """Places of rows in a set, every place of a row that the set has more than once; in order."""
        wanted = set(self.digests(rows))
        return [place for place, digest in enumerate(self.sets.get(role, ())) if digest in wanted]

    def steps_of(self, rows: Rows) -> list[int]:
        """The numbers of the optimizer steps in which any of the rows were trained, in any role; in order."""
        digests = set(self.digests(rows))
        return sorted({number for digest in digests for number in self._steps_by_digest.get(digest, ())})

    def first_step(self, rows: Rows) -> int | None:
        """The first optimizer step in which any of the rows was trained; None if none ever was."""
        return next(iter(self.steps_of(rows)), None)

    @property
    def first_steps(self) -> dict[str, int]:
        """Digest of a row -> the first optimizer step that trained it."""
        return {digest: steps[0] for digest, steps in self._steps_by_digest.items()}

    @property
    def checkpoint_steps(self) -> list[int]:
        """Steps after which there is a whole state to go on from, 0 for the start; in order."""
        steps = {
            number
            for number, saved in self.saved.items()
            if saved["whole"] and (self.folder / saved["folder"]).is_dir()
        }
        return sorted(steps | ({0} if self.header else set()))

    def never_trained(self, rows: Rows) -> list[str]:
        """Digests of the rows that no step was trained on and that no cohort has."""
        known = set(self._steps_by_digest).union(*(cohort.rows for cohort in self.cohorts.values()))
        return [digest for digest in self.digests(rows) if digest not in known]

    def cohorts_of(self, rows: Rows) -> list[str]:
        """Names of the cohorts that have any of the rows."""
        digests = set(self.digests(rows))
        return [name for name, cohort in self.cohorts.items() if not digests.isdisjoint(cohort.rows)]

    def checkpoint_before(self, step: int, *, whole: bool = False) -> Path | None:
        """The last checkpoint that is still there and that a step, and all after it, had no part in.

        Args:
            step: the first that trained a row. The folder serves as `checkpoint` of the edits `msa` and `rewind`.
            whole: only one with optimizer and random state, which training can go on from.

        Returns:
            Its folder; None where there is only theta_0.
        """
        for number in sorted(self.saved, reverse=True):
            saved = self.saved[number]
            path = self.folder / saved["folder"]
            if number < step and path.is_dir() and (saved["whole"] or not whole):
                return Path(os.path.normpath(path))
        return None

    @cached_property
    def _steps_by_digest(self) -> dict[str, list[int]]:
        steps: dict[str, list[int]] = {}
        for step in self.steps:
            for role, ranks in step.rows.items():
                digests = self.sets[role]
                for digest in {digests[place] for batches in ranks for batch in batches for place in batch}:
                    steps.setdefault(digest, []).append(step.number)
        return steps


def read_log(folder: str | os.PathLike[str]) -> TrainingLog:
    """What a folder says about the training that was logged in it, and about its cohorts.

    Of a training that was resumed, the steps that were trained again count once: those of the last time.

    Raises:
        ValueError: there is no log; or a line, a list of digests or a manifest is broken or was changed.
    """
    place = Path(folder)
    if not (place / SALT_FILE).is_file():
        raise _refused(place, "no log and no cohorts", "name the folder that UnlearnableCallback was given")
    salt = (place / SALT_FILE).read_bytes()
    cohorts = read_cohorts(place, salt)
    first = _lines(place, 0, salt)
    if not first and not cohorts:
        raise _refused(place, "a salt and nothing else", "its training did not begin: start it again")
    header = first[0] if first else {}
    if header and header.get("format") != FORMAT:
        raise _refused(place, f"a log of format {header.get('format')}", "read it with the version that wrote it")
    ranks = [first, *(_lines(place, rank, salt) for rank in range(1, header.get("ranks", 1)))]
    folded = [_fold(lines) for lines in ranks]
    sets = {role: _digests(place, role, own["sha256"]) for role, own in header.get("sets", {}).items()}
    return TrainingLog(
        folder=place,
        salt=salt,
        header=header,
        sets=sets,
        steps=_merged(place, [steps for steps, _, _ in folded]),
        saved=folded[0][1],
        end=folded[0][2] if all(end is not None for _, _, end in folded) else None,
        cohorts=cohorts,
        sha256=_sha256(place, len(ranks), [*sets], cohorts),
    )


def _fold(lines: list[dict[str, Any]]) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any]], str | None]:
    """Steps and checkpoints by number, without those that were trained again; the hash of the weights at the end."""
    steps: dict[int, dict[str, Any]] = {}
    saved: dict[int, dict[str, Any]] = {}
    for line in lines:
        if line["event"] == STEP:
            steps[line["step"]] = line
        elif line["event"] == SAVED:
            saved[line["step"]] = line
        elif line["event"] == RESUMED:
            steps = {number: step for number, step in steps.items() if number <= line["step"]}
            saved = {number: checkpoint for number, checkpoint in saved.items() if number <= line["step"]}
    ended = bool(lines) and lines[-1]["event"] == ENDED
    return steps, saved, lines[-1]["sha256"] if ended else None


def _merged(folder: Path, ranks: list[dict[int, dict[str, Any]]]) -> tuple[Step, ...]:
    """The steps of all ranks; one that a killed rank did not log was not taken by the others either."""
    last = min((max(steps, default=0) for steps in ranks), default=0)
    missing = next((n for n in range(1, last + 1) if any(n not in steps for steps in ranks)), None)
    if missing is not None:
        raise _refused(folder, f"a log without step {missing}", "take it from a copy; the rows of that step are lost")
    merged = []
    for number in range(1, last + 1):
        lines = [steps[number] for steps in ranks]
        rows = {role: [line["rows"][role] for line in lines] for role in lines[0]["rows"]}
        merged.append(Step(number, lines[0]["epoch"], rows))
    return tuple(merged)


def _lines(folder: Path, rank: int, salt: bytes) -> list[dict[str, Any]]:
    file = steps_file(folder, rank)
    if rank and not file.is_file():
        raise _refused(folder, f"no {file.name}", "copy the files of all ranks into the folder")
    lines, problem = read_lines(file, salt)
    if problem is not None:
        raise _refused(folder, problem, "take the file from a copy")
    return lines


def _digests(folder: Path, role: str, sha256: str) -> tuple[str, ...]:
    file = rows_file(folder, role)
    content = file.read_bytes() if file.is_file() else b""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise _refused(folder, f"{file.name} with other digests than were written", "take the file from a copy")
    return tuple(content.decode().split())


def _sha256(folder: Path, ranks: int, roles: list[str], cohorts: Mapping[str, Cohort]) -> str:
    files = [steps_file(folder, rank) for rank in range(ranks)] + [rows_file(folder, role) for role in roles]
    files += [cohort.manifest for cohort in cohorts.values()]
    digest = hashlib.sha256()
    for file in filter(Path.is_file, files):
        name = file.relative_to(folder).as_posix()
        digest.update(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _refused(folder: Path, got: str, fix: str) -> ValueError:
    return input_error(
        expected=f"the log of a training in {folder.name}, as UnlearnableCallback or train_cohorts wrote it",
        got=got,
        why="rows are deleted exactly only where it is known which steps they were trained in",
        fix=fix,
    )
