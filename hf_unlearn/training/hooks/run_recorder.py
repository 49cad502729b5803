"""The record of a trainer's run, and when it and its card are written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn
from transformers.trainer_utils import get_last_checkpoint

from ...data.provenance import source_of
from ...errors import input_error
from ...evaluation import EvaluationResult
from ...model.adapters import resized_vocabulary, saved_vocabulary
from ...results.card_file import CARD_FILE, CardWriter
from ...results.hub.names import is_repository, require_metadata
from ...results.phase_record import sum_phases
from ...results.record import RunRecord, SetRecord
from ..baseline import needs_holdout
from ..reference.checks import describe_start, require_start
from .run_description import describe_run
from .run_lineage import RunLineage
from .run_observer import RunObserver
from .trainer_view import TrainerView


def start_record(train_dataset: Any) -> RunRecord:
    """The record of a run that is about to be built: where its sets come from decides who may see what it learns."""
    sets = train_dataset if isinstance(train_dataset, Mapping) else {}
    sources = {role: source_of(rows) for role, rows in sets.items() if rows is not None}
    return RunRecord(sets={role: SetRecord(**vars(source)) for role, source in sources.items()})


class RunRecorder:
    """Fills a run's record and writes it, with its card, on the process that saves.

    Args:
        record: of the run.
        trainer: held weakly.
        model_name: what the model was loaded by, None for a model in memory.

    Attributes:
        observer: the callback that fills in what a run takes; it stands last, so that it sees what the others did.
    """

    def __init__(self, record: RunRecord, trainer: TrainerView, model_name: str | None) -> None:
        self._record, self._trainer, self._model_name = record, trainer, model_name
        self._cards = CardWriter()
        self._begun = self._asked_base = False
        self._lineage = RunLineage(record, trainer, model_name)
        self.observer = RunObserver(record, trainer, model_name, self._lineage.ended)

    def described(self) -> RunRecord:
        """The record, with what is known of the run as it is now."""
        describe_run(self._record, self._trainer, self._model_name)
        return self._record

    def begin(self, checkpoint: str | bool | None, ref_model: nn.Module | None) -> None:
        """Keep what the run begins with; a run that goes on from a checkpoint must begin with the same.

        Args:
            checkpoint: as `train` takes it.
            ref_model: given by the user, or None.
        """
        if self._begun:  # the reference is that of the first time
            return
        args, model = self._trainer.args, self._trainer.model
        start = describe_start(model, ref_model)
        folder = None if isinstance(checkpoint, bool) else checkpoint
        if checkpoint is True:  # without a folder Trainer says so
            folder = get_last_checkpoint(args.output_dir) if Path(args.output_dir).is_dir() else None
        if folder is not None:
            levels = needs_holdout(args) or args.stop_retain_nll_increase is not None
            needs = self._trainer.unlearning_objective.needs
            require_start(folder, model, start, needs, given=ref_model is not None, levels=levels)
        self._record.model.start, self._begun = start, True
        self._lineage.begin()

    def add_evaluation(self, name: str, result: EvaluationResult) -> None:
        """Put a suite's result into the record, and with the next save into the card.

        Args:
            name: of the model that was measured: "before", "after", "oracle", or another word.
            result: of `hf_unlearn.evaluation.evaluate`.
        """
        if not isinstance(result, EvaluationResult):
            raise input_error(
                expected="an EvaluationResult",
                got=f"a {type(result).__name__}",
                why="a card shows figures with what they rest on",
                fix='pass trainer.add_evaluation("after", evaluate(trainer.model, tokenizer, suite))',
            )
        self._record.evaluations[name] = result

    def add_metadata(
        self,
        language: str | list[str] | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: Any = None,
    ) -> None:
        """Remember what only the user knows, for every card that comes; nothing comes twice.

        Args:
            language: ISO code.
            license: key of a licence on the Hub.
            tags: beside those that every card has.
            model_name: title.
            finetuned_from: repository of the base model, where it was loaded from a local copy.
            tasks: "text-generation", which is what these models do.
            dataset_tags: ids of datasets on the Hub, beside those that are known.
            dataset: the same.
            dataset_args: refused; the sets of a run are described by their rows and hashes.

        Raises:
            ValueError: another task, `dataset_args`, or what the Hub would refuse; nothing is remembered then.
        """
        _require_card_arguments(tasks, dataset_args)
        datasets = [*_listed(dataset_tags), *_listed(dataset)]
        _require_repositories([*datasets, *_listed(finetuned_from)])
        require_metadata(license, _listed(language), ())
        known = self._record.metadata
        known.language = list(dict.fromkeys([*known.language, *_listed(language)]))
        known.tags = list(dict.fromkeys([*known.tags, *_listed(tags)]))
        known.datasets = list(dict.fromkeys([*known.datasets, *datasets]))
        known.license, known.model_name = license or known.license, model_name or known.model_name
        if finetuned_from is not None:
            self._record.model.id, self._record.model.origin = finetuned_from, "hub"

    def write(self, folder: str | None, *, card: bool) -> None:
        """Write results.json into a folder (`args.output_dir` if None), and README.md over whatever is there.

        Without a card, README.md is taken away: what lies there is PEFT's, or a card of an earlier state.
        """
        if not self._trainer.args.should_save:
            return
        target = Path(folder or self._trainer.args.output_dir)
        self.described()
        self.observer.look(self._trainer.state)
        self._record.stop_reason = self._trainer.stop_reason
        sum_phases(self._record)
        model = self._trainer.model
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        if base is not model:
            self._record.model.vocabulary = saved_vocabulary(target, base)
        if not self._asked_base:  # once a run: of a model on the Hub it is a request
            self._asked_base, resized = True, resized_vocabulary(base)
            self._record.model.resized = None if resized is None else resized[1]
        self._lineage.look(target, training=self.observer.training)
        if card:
            self._cards.write(target, self._record)
            return
        self._record.card_sha256 = None
        (target / CARD_FILE).unlink(missing_ok=True)
        self._record.save(target)


def _require_card_arguments(tasks: str | list[str] | None, dataset_args: Any) -> None:
    """Raise for arguments of Trainer's `create_model_card` that a card of ours cannot honour."""
    if any(task != "text-generation" for task in _listed(tasks)):
        raise input_error(
            expected="tasks to be text-generation",
            got=repr(tasks),
            why="the card's results are those of a causal language model",
            fix="leave tasks out",
        )
    if dataset_args is not None:
        raise input_error(
            expected="no dataset_args",
            got=repr(dataset_args),
            why="the sets of a run are described by their rows and hashes",
            fix="leave dataset_args out",
        )


def _require_repositories(ids: list[str]) -> None:
    for name in ids:
        if not is_repository(name):
            raise input_error(
                expected="ids of the Hub (owner/name) in a card's metadata",
                got=repr(name),
                why="the Hub refuses a card that names something else",
                fix="leave it out, or pass the repository's id",
            )


def _listed(value: str | list[str] | None) -> list[str]:
    """One value, several or none, as Trainer's `create_model_card` takes them."""
    return [value] if isinstance(value, str) else list(value or [])
