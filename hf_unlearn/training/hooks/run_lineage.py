"""The lineage of a trainer's run: which weights it begins with, and which files it leaves."""

from dataclasses import replace
from pathlib import Path

from ...model.fingerprints import hash_parts, hash_weights
from ...model.sharding import is_sharded
from ...model.weight_files import WEIGHT_FILES, loaded_file_hashes, weight_file_hashes
from ...results.lineage import IN_MEMORY, Lineage, code_version, file_hash, now
from ...results.record import RECORD_FILE, RunRecord
from ...results.schema import as_json
from .trainer_view import TrainerView

_Stamp = dict[str, tuple[int, int]]  # size and time of change of each file


class RunLineage:
    """Fills the lineage of a run's record, on the process that saves.

    What a task has put into `record.lineage` before the run stays: requests, recipe, and where a run that continues
    from another one starts.

    Args:
        record: of the run.
        trainer: held weakly.
        model_name: what the model was loaded by, None for a model in memory.
    """

    def __init__(self, record: RunRecord, trainer: TrainerView, model_name: str | None) -> None:
        self._record, self._trainer, self._in_memory = record, trainer, model_name is None
        self._parent_record: str | None = None
        self._weights_in: dict[str, str] = {}
        self._hashed: tuple[Path, _Stamp, dict[str, str]] | None = None  # of the last folder
        if not trainer.args.should_save:
            return
        # As it is now: an evaluation of the earlier run may change its record while this one trains.
        source = model_name or getattr(trainer.model.config, "_name_or_path", None)
        # That of a model made in memory is "", which as a folder is the present one.
        self._parent_record = file_hash(Path(source) / RECORD_FILE) if source else None
        if model_name is not None:
            options = trainer.args.init_kwargs
            self._weights_in = loaded_file_hashes(
                model_name,
                revision=options.get("revision"),
                cache_dir=options.get("cache_dir"),
                subfolder=options.get("subfolder") or "",
            )

    def begin(self) -> None:
        """Hash a model that came from no file, before its first step; all ranks have to ask.

        A model that the user has loaded may have been changed since, so that it is one in memory.
        """
        model, saves = self._trainer.model, self._trainer.args.should_save
        split = is_sharded(model)
        # Of a model that was loaded by its name only the process that saves knows whether it had files.
        if (split or saves) if self._in_memory else (saves and not split and not self._weights_in):
            self._weights_in = {IN_MEMORY: hash_weights(model)}

    def look(self, folder: Path, *, training: bool) -> None:
        """Put what is known now into the record, with the files that lie in a folder.

        Args:
            folder: where the run was just saved.
            training: whether steps are still to be taken.
        """
        record = self._record
        known = record.lineage or Lineage()
        record.lineage = replace(
            known,
            date=now() if training or not known.date else known.date,
            parent=known.parent or (record.model.earlier_run if self._parent_record else None),
            parent_record=known.parent_record or self._parent_record,
            weights_in=known.weights_in or self._weights_in,
            weights_out=self._files(folder),
            code=code_version(),
            recipe=known.recipe or _recipe(record),
        )

    def ended(self) -> None:
        """The last step is taken: the weights are done."""
        self._record.lineage = replace(self._record.lineage or Lineage(), date=now())

    def _files(self, folder: Path) -> dict[str, str]:
        """Hashes of the weight files in a folder, which are read again only where one has changed."""
        files = {file.name: file.stat() for file in sorted(folder.glob(WEIGHT_FILES))}
        stamp = {name: (status.st_size, status.st_mtime_ns) for name, status in files.items()}
        if self._hashed is None or self._hashed[:2] != (folder, stamp):
            self._hashed = (folder, stamp, weight_file_hashes(folder))
        return self._hashed[2]


def _recipe(record: RunRecord) -> str:
    """Hash of what a run of a script of one's own does: its arguments and objective."""
    return hash_parts({name: as_json(getattr(record, name)) for name in ("arguments", "objective", "seed")})
