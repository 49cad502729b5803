"""`--continue_from RUN`: the weights that an earlier run left are the model of this one."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from transformers.utils import logging

from ..errors import input_error
from ..model.adapters import load_adapter
from ..model.loading import load_tokenizer, loading
from ..model.merging import merge
from ..model.weight_files import loaded_file_hashes, weight_file_hashes
from ..results.adapter_config import ADAPTER_CONFIG, read_adapter_config
from ..results.files import atomic_write_text, read_json
from ..results.lineage import Lineage, file_hash
from ..results.phase_record import SUPPRESS
from ..results.record import RECORD_FILE, RunRecord, load_record
from ..suppression import SUPPRESSION_FOLDER, has_suppressor
from .arguments import Parsed
from .command_file import forget_hash, saved_models
from .saved_run import require_weights
from .task import Task

logger = logging.get_logger(__name__)

MERGED = "continued_from"  # folder in the run's, where the earlier run's adapter had to be merged first
_MERGED_FROM = "merged_from.json"  # in it, written last: the files that it was made of
_STATE = "trainer_state.json"  # which a run of hf-unlearn train writes after its last step


@dataclass(frozen=True)
class Continued:
    """The run that another one continues from.

    Attributes:
        folder: of the earlier run.
        model: folder of the weights to start with: the earlier run's, or a copy with its adapter merged.
        adapter: whether that is an adapter, which is trained on.
        record: of the earlier run.
        lineage: what the new run's says of its start.
    """

    folder: Path
    model: str
    adapter: bool
    record: RunRecord
    lineage: Lineage

    def take_over(self, task: Task) -> None:
        """Put the weights into a task that has none of its own.

        It also gets the oracle and the checkpoint of the earlier run, where both are about the same forget rows: a
        model that never saw those of the one may know those of the other.
        """
        task.model, task.continued = self.model, self
        kept = saved_models(self.folder)
        if not kept or kept["forget"] is None or kept["forget"] != forget_hash(task):
            return
        if task.oracle is None and kept["oracle"]:
            task.oracle, task.oracle_is = kept["oracle"], kept["oracle_is"] or task.oracle_is
        task.checkpoint = task.checkpoint or kept["checkpoint"]

    def describe(self, record: RunRecord, *, new_adapter: bool) -> None:
        """Say in a record that the model comes from an earlier run, and what that knew of the base.

        Args:
            record: of the new run.
            new_adapter: whether it adds an adapter: its base is then the earlier run's model, not that one's base.
        """
        earlier, model = self.record.model, record.model
        known = (None, "local", None) if new_adapter else (earlier.id, earlier.origin, earlier.revision)
        model.id, model.origin, model.revision = known
        model.earlier_run = self.lineage.parent


def continue_run(parsed: Parsed) -> Continued | None:
    """The run that the arguments continue from, checked; None where they name none. The arguments name its weights.

    A whole model is taken as it is, and an adapter is trained on. Where a new adapter is asked for or phases are run,
    the earlier run's adapter is merged into its base first, into `continued_from/` of the output folder. What the
    earlier run fitted to the rows is not fitted again.

    Raises:
        ValueError: no run that has ended with weights, weights that changed since, a suppression at inference, or the
            run's own output folder.
    """
    script, args = parsed.script, parsed.args
    if script.continue_from is None:
        return None
    folder = Path(script.continue_from).expanduser().absolute()
    record = _checked(folder, Path(args.output_dir))
    main = args.process_index == 0
    weights = loaded_file_hashes(str(folder)) if main else {}
    if main:
        _require_unchanged(folder, record)
    lineage = Lineage(
        parent=record.name or "without a name",
        parent_record=file_hash(folder / RECORD_FILE),
        weights_in=weights,
    )
    model, adapter = folder, (folder / ADAPTER_CONFIG).is_file()
    if adapter and (parsed.model.use_peft or script.phases is not None) and script.show_rows is None:
        adapter, model = False, Path(args.output_dir).absolute() / MERGED
        with args.main_process_first(local=True, desc="merging the earlier run's adapter"):
            _merge(folder, model)
    parsed.model.model_name_or_path, parsed.model.model_revision = str(model), "main"
    args.model_init_kwargs = {name: value for name, value in args.init_kwargs.items() if name != "revision"}
    if getattr(script, "fit", False):
        script.fit = False
    return Continued(folder, str(model), adapter, record, lineage)


def _checked(folder: Path, output: Path) -> RunRecord:
    """The record of a run that can be continued from, its weights aside."""
    if folder.resolve() == output.resolve():
        raise input_error(
            expected="--output_dir with another folder than --continue_from",
            got=f"{folder.name} as both",
            why="the run would write over the weights that it starts from",
            fix="name a new folder; a run that was interrupted goes on with --resume_from_checkpoint true",
        )
    record = load_record(folder)
    if record.steps < record.planned_steps and record.stop_reason is None and not (folder / _STATE).is_file():
        raise input_error(
            expected="--continue_from with a run that has ended",
            got=f"{folder.name}, after step {record.steps} of {record.planned_steps}",
            why="its weights are on their way, and another process may still change them",
            fix="let it end first (--resume_from_checkpoint true), or name another run",
        )
    require_weights(folder)
    if has_suppressor(folder / SUPPRESSION_FOLDER) or (record.phases and record.phases[-1].kind == SUPPRESS):
        raise input_error(
            expected="--continue_from with a run that was unlearnt in its weights",
            got=f"{folder.name}, whose answers are suppressed at inference",
            why="its weights still know the rows, and would be trained without what suppresses them",
            fix="distil it into the weights first: a training after the suppression, with forget_loss distil",
        )
    if (folder / ADAPTER_CONFIG).is_file():
        read_adapter_config(folder)
    return record


def _require_unchanged(folder: Path, record: RunRecord) -> None:
    """Raise where the weights are not those that the run saved, by their hashes."""
    known = {} if record.lineage is None else record.lineage.weights_out
    if not known:
        logger.warning(f"The record of {folder.name} has no hashes of its weights: whether they changed is not known.")
        return
    present = weight_file_hashes(folder)
    changed = sorted(name for name in {*known, *present} if known.get(name) != present.get(name))
    if changed:
        raise input_error(
            expected=f"the weights that the run {folder.name} has saved, by the hashes in its {RECORD_FILE}",
            got=f"others: {', '.join(changed[:3])}",
            why="what was measured of that run is not true of these weights, and the new run would rest on it",
            fix="put the files back, or name them with --model_name_or_path, as a model of no run",
        )


def _merge(folder: Path, target: Path) -> None:
    """Merge an adapter into its base, as a folder that is whole or absent; one made of the same files is kept."""
    made_of = loaded_file_hashes(str(folder))
    mark = target / _MERGED_FROM
    if mark.is_file() and read_json(mark) == made_of:
        return
    unfinished = target.with_name(f"{target.name}.unfinished")
    for leftover in (unfinished, target):
        shutil.rmtree(leftover, ignore_errors=True)
    with loading(folder):
        adapted = load_adapter(folder, dtype="float32")
    merge(adapted).save_pretrained(unfinished)
    load_tokenizer(str(folder)).save_pretrained(unfinished)
    atomic_write_text(unfinished / _MERGED_FROM, json.dumps(made_of, indent=2) + "\n")
    unfinished.rename(target)
