"""Which checkpoints of an output folder belong to the run that was last started there, and which to an earlier one."""

import json
import uuid
from dataclasses import dataclass
from pathlib import Path

from ...results.files import atomic_write_text, read_json
from ...results.schema import SchemaError
from .mark import Mark, require_starts

RUN_FILE = ".run.json"


@dataclass(frozen=True)
class RunStarts:
    """The starts of a run: anew, and once for each time that it was resumed.

    A run that goes back to an earlier checkpoint leaves later ones behind, which are its own no more.

    Attributes:
        starts: (id, last step that counts). The id is None for checkpoints from before there were ids; the step is
            None for the present start.
    """

    starts: tuple[tuple[str | None, int | None], ...]

    @classmethod
    def anew(cls) -> "RunStarts":
        """Of a run that begins at its first step."""
        return cls(((_new_id(), None),))

    @classmethod
    def resumed(cls, mark: Mark | None, step: int) -> "RunStarts":
        """Of a run that goes on from a checkpoint."""
        earlier = _restored(mark.lineage) if mark is not None else ((None, None),)
        ended = tuple((run, step if last is None else min(last, step)) for run, last in earlier)
        return cls((*ended, (_new_id(), None)))

    @classmethod
    def of_folder(cls, folder: str | Path) -> "RunStarts | None":
        """Of the run that was last started in a folder; None where that is not known."""
        try:
            stored = read_json(Path(folder) / RUN_FILE)
            lineage = stored["lineage"]
            require_starts(lineage)
        except (OSError, ValueError, KeyError, TypeError, SchemaError):
            return None
        return cls(_restored(lineage))

    def write(self, folder: str | Path) -> None:
        """Say in a folder that this run was started there."""
        atomic_write_text(Path(folder) / RUN_FILE, json.dumps({"lineage": self.starts}) + "\n")

    def has(self, mark: Mark | None, step: int) -> bool:
        """Whether a checkpoint is of this run."""
        run = None if mark is None else mark.lineage[-1][0]
        return any(run == known and (last is None or step <= last) for known, last in self.starts)


def _new_id() -> str:
    return uuid.uuid4().hex  # of the system's randomness: the run's own is left as it is


def _restored(starts: list[list]) -> tuple[tuple[str | None, int | None], ...]:
    return tuple((run, last) for run, last in starts)
