"""One run of a series: its folder and its command line, and how far it is, kept in its folder (series.json)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import input_error
from ...results.files import atomic_write_text, read_json
from ...results.lineage import file_hash
from ...results.record import RECORD_FILE

SERIES_FILE = "series.json"
_FORMAT = 1


@dataclass(frozen=True)
class PlannedRun:
    """A run that is to be done.

    Attributes:
        folder: of the run, which becomes its --output_dir.
        arguments: the words after `hf-unlearn train`, without --output_dir and --resume_from_checkpoint.
    """

    folder: Path
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """What people are told it is called."""
        return self.folder.name

    def mark(self, *, done: bool) -> None:
        """Write into the folder that this run has been started, or is done."""
        stored = {"format": _FORMAT, **self._known(), "done": done}
        atomic_write_text(self.folder / SERIES_FILE, json.dumps(stored, indent=2) + "\n").chmod(0o600)

    def is_done(self) -> bool:
        """Whether the run is whole in its folder.

        Raises:
            ValueError: the folder holds another run.
        """
        stored = self._stored()
        if stored is None:
            if (self.folder / RECORD_FILE).exists():
                raise self._another(f"a run that no series has started, in {self.name}")
            return False
        if not self._has_kept_something():  # a loss of one's own that failed, and was corrected since
            return False
        if stored.get("arguments") != list(self.arguments):
            raise self._another(f"one with other arguments in {self.name}: {_changes(stored, self.arguments)}")
        files = self._known()["files"]
        changed = [Path(file).name for file, sha in files.items() if stored.get("files", {}).get(file) != sha]
        if changed:
            raise self._another(f"one in {self.name} that read another {changed[0]} than there is now")
        return stored.get("done") is True and (self.folder / RECORD_FILE).is_file()

    def _known(self) -> dict[str, Any]:
        """Its arguments, and the hashes of the files that they name: recipes, plugins, rows."""
        files = [Path(word.partition("=")[2] if word.startswith("--") else word) for word in self.arguments]
        return {
            "arguments": list(self.arguments),
            "files": {str(file.absolute()): file_hash(file) for file in files if _is_file(file)},
        }

    def _has_kept_something(self) -> bool:
        """Whether the folder holds a result, or what a run could go on from."""
        kept = (RECORD_FILE, "checkpoint-*", "phases")
        return any(next(self.folder.glob(name), None) is not None for name in kept)

    def _stored(self) -> Mapping[str, Any] | None:
        try:
            stored = read_json(self.folder / SERIES_FILE)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise self._another(
                f"a {SERIES_FILE} that cannot be read ({type(error).__name__}) in {self.name}"
            ) from None
        if not isinstance(stored, Mapping) or stored.get("format") != _FORMAT:
            raise self._another(f"a {SERIES_FILE} of another kind in {self.name}")
        return stored

    def _another(self, got: str) -> ValueError:
        return input_error(
            expected="folders that are new, or hold the same runs from before",
            got=got,
            why="runs of two kinds would stand in one comparison",
            fix=f"pass another --output_dir, or remove {self.folder}",
        )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a long text, such as the JSON of a loss, is no name of a file
        return False


def _changes(stored: Mapping[str, Any], now: tuple[str, ...]) -> str:
    then = stored.get("arguments")
    words = then if isinstance(then, list) else []
    gone, come = [str(word) for word in words if word not in now], [word for word in now if word not in words]
    return f"{' '.join(gone) or 'nothing'} then, {' '.join(come) or 'nothing'} now"
