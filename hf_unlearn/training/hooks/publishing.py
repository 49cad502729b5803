"""Trainer's saves and pushes, with a record and a card that are ours: the hooks between a run and the Hub."""

import shutil
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import HubStrategy
from transformers.utils import logging
from transformers.utils.hub import PushInProgress

from ...data.provenance import source_of
from ...errors import input_error
from ...evaluation import EvaluationResult
from ...results.hub.errors import hub_errors
from ...results.hub.names import is_repository, require_metadata
from ...results.hub.push import Push, needs_private, plan_push, require_private, write_own_card
from ...results.record import RunRecord, SetRecord
from .run_description import (
    changed_arguments,
    count_rows,
    describe_hardware,
    describe_model,
    describe_objective,
    versions,
)
from .run_observer import RunObserver

logger = logging.get_logger(__name__)


def start_record(train_dataset: Any) -> RunRecord:
    """The record of a run that is about to be built: where its sets come from decides who may see what it learns."""
    sets = train_dataset if isinstance(train_dataset, Mapping) else {}
    sources = {role: source_of(rows) for role, rows in sets.items() if rows is not None}
    return RunRecord(sets={role: SetRecord(**vars(source)) for role, source in sources.items()})


class Publishing(Trainer):
    """The saving and pushing hooks of `transformers.Trainer`: every folder gets results.json and a card, written last.

    Attributes:
        record: what the card says of the run. `record.metadata`, `record.attacks` and the sources in `record.sets` are
            the user's to fill in.
    """

    record: RunRecord
    push_in_progress: PushInProgress | None

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
        self.record.evaluations[name] = result

    def _observe(self) -> None:
        """Start to watch the run for its record; the observer stands last, so that it sees what the others did."""
        trainer = weakref.proxy(self)
        self._observer = RunObserver(
            self.record, lambda: trainer._describe(), lambda: trainer.callback_handler.callbacks
        )
        self.add_callback(self._observer)

    def _describe(self) -> None:
        """What is known before the first step; what was measured is the observer's."""
        record, args = self.record, self.args
        record.name = record.name or Path(args.output_dir).absolute().name
        record.model = describe_model(self.model, self._model_name, args.init_kwargs.get("revision"), record.model)
        record.objective = describe_objective(self.objective, self.methods, args, self.baseline)
        record.reference = str(self.reference.plan)
        record.hardware = describe_hardware(args, self.accelerator)
        record.holdout_nll = None if self.baseline is None else self.baseline.holdout_nll
        record.seed, record.arguments, record.versions = args.seed, changed_arguments(args), versions()
        if self.train_sets is not None and args.should_save:
            count_rows(record.sets, self.train_sets)

    def write_card(self, folder: str | None = None) -> None:
        """Write results.json and README.md into a folder (`args.output_dir`), over whatever is there."""
        if not self.args.should_save:
            return
        target = Path(folder or self.args.output_dir)
        self._describe()
        self._observer.look(self.state)
        self.record.stop_reason = self.stop_reason
        self.record.save(target)
        write_own_card(target, self.record)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Trainer's, and then the record and the card, over the one that PEFT writes."""
        token, self.args.hub_token = self.args.hub_token, None  # training_args.bin would hold it
        try:
            super()._save(output_dir, state_dict)
        finally:
            self.args.hub_token = token
        self.write_card(output_dir)

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Write the card, with what only the user knows; Trainer's arguments, of which some cannot be honoured.

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
            ValueError: another task, `dataset_args`, or ids that are no repositories.
        """
        ids = [*_listed(dataset_tags), *_listed(dataset)]
        _require_card_arguments(tasks, dataset_args, [*ids, *_listed(finetuned_from)])
        require_metadata(license, _listed(language), ())
        known = self.record.metadata
        known.language = [*known.language, *(each for each in _listed(language) if each not in known.language)]
        known.tags = [*known.tags, *(each for each in _listed(tags) if each not in known.tags)]
        known.license, known.model_name = license or known.license, model_name or known.model_name
        known.datasets = [*known.datasets, *(each for each in ids if each not in known.datasets)]
        if finetuned_from is not None:
            self.record.model.id, self.record.model.origin = finetuned_from, "hub"
        self.write_card()

    # The Hub

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Trainer's; private unless every set is known to be public, or `hub_private_repo` says otherwise."""
        if not self.is_world_process_zero():
            return
        asked = self.args.hub_private_repo if private is None else private
        api = HfApi(token=token or self.args.hub_token)
        with hub_errors("creation of the repository"):
            private = needs_private(self.record, api) if asked is None else asked
            super().init_hf_repo(token, private)
            if private:
                require_private(self.hub_model_id, api, asked=asked is not None)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Push model or adapter, tokenizer, results.json, card and plots; nothing else of the folder.

        A repository that is made by it is private unless all sets are public (`private=False` makes it public).

        Args:
            commit_message: of the one commit.
            blocking: wait until it is through; else a Future comes back.
            token: with write permission.
            revision: branch; `args.hub_revision` if None.
            private: whether a new repository is private.
            kwargs: of `create_model_card`.

        Returns:
            the CommitInfo, or a Future of it; None on all processes but the first.

        Raises:
            PushError: the Hub refused or could not be reached; pushing again goes on.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token, private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**kwargs)
        self._finish_current_push()
        push = self._push(commit_message or "End of training", token, revision, private)
        return push() if blocking else push.api.run_as_future(push)

    def _push(
        self, message: str, token: str | None = None, revision: str | None = None, private: bool | None = None
    ) -> Push:
        assert self.hub_model_id is not None
        return Push(
            plan_push(self.args.output_dir, self.hub_model_id),
            private=self.args.hub_private_repo if private is None else private,
            revision=revision or self.args.hub_revision,
            message=message,
            api=HfApi(token=token or self.args.hub_token),
        )

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Trainer's, of what a push brings to the Hub alone; it runs beside the training."""
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        running = self.push_in_progress
        if running is not None and running.is_done():
            running = None
        if running is not None and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        # From the output folder, as the checkpoint may be deleted (save_total_limit) before its turn comes.
        for name in plan_push(checkpoint_folder, self.hub_model_id).files:
            target = Path(self.args.output_dir, name)
            target.parent.mkdir(exist_ok=True)
            shutil.copy(Path(checkpoint_folder, name), target)
        self.write_card()
        push = self._push(f"Training in progress, step {self.state.global_step}")
        job = push.api.run_as_future(push)
        if running is None:
            self.push_in_progress = PushInProgress([job])
        else:
            running.jobs.append(job)

    def _finish_current_push(self) -> None:
        """Trainer's, which keeps it to itself when a push during the training has failed."""
        super()._finish_current_push()
        ended = getattr(self, "push_in_progress", None)
        if ended is None:
            return
        self.push_in_progress = None
        for job in ended.jobs:
            if (error := job.exception()) is not None:
                logger.warning(f"A push during the training failed.\n{error}")


def require_pushable(args: TrainingArguments) -> None:
    """Raise for strategies that would push optimizer states and other pickles."""
    if args.push_to_hub and args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
        raise input_error(
            expected="hub_strategy to be every_save or end",
            got=HubStrategy(args.hub_strategy).value,
            why="checkpoints hold optimizer states and random states as pickles, which run code when they are loaded",
            fix="keep checkpoints in output_dir, and leave hub_strategy out",
        )


def _require_card_arguments(tasks: Any, dataset_args: Any, ids: list[str]) -> None:
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
    for each in ids:
        if not is_repository(each):
            raise input_error(
                expected="ids of the Hub (owner/name) in a card's metadata",
                got=repr(each),
                why="the Hub refuses a card that names something else",
                fix="leave it out, or pass the repository's id",
            )


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])
