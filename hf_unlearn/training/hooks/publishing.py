"""Creates the Hub repository of a trainer's run and pushes the run's folder to it, during the training or after."""

import shutil
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import HfApi
from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy
from transformers.utils import logging
from transformers.utils.hub import PushInProgress

from ...errors import input_error
from ...results.hub.errors import hub_errors
from ...results.hub.push import Push, needs_private, plan_push, pushable_files, require_private
from ...results.record import RunRecord

logger = logging.get_logger(__name__)


class RunPublisher:
    """The repository of a run: who may see it, and what a push brings there.

    Args:
        args: of the run.
        record: of the run; private unless every set in it is known to be public.
    """

    def __init__(self, args: TrainingArguments, record: RunRecord) -> None:
        require_pushable(args)
        self._args, self._record = args, record

    def create_repository(
        self,
        create: Callable[[str | None, bool], None],
        repo_id: Callable[[], str],
        token: str | None,
        private: bool | None,
    ) -> None:
        """Make the repository, private unless the sets are public or the user says otherwise.

        Args:
            create: makes it with a token, private or not, where there is none.
            repo_id: gives its id afterwards.
            token: with write permission; `args.hub_token` if None.
            private: what the user says; `args.hub_private_repo` if None.

        Raises:
            PushError: the Hub refused or could not be reached.
            ValueError: it has to be private, and there is a public one of that name.
        """
        asked = self._args.hub_private_repo if private is None else private
        api = HfApi(token=token or self._args.hub_token)
        with hub_errors("creation of the repository"):
            private = needs_private(self._record, api) if asked is None else asked
            create(token, private)
            if private:
                require_private(repo_id(), api, asked=asked is not None)

    def push(
        self,
        repo_id: str,
        message: str,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
    ) -> Push:
        """The push of `args.output_dir` as it is now; the call of what comes back sends it."""
        return Push(
            plan_push(self._args.output_dir, repo_id),
            private=self._args.hub_private_repo if private is None else private,
            revision=revision or self._args.hub_revision,
            message=message,
            api=HfApi(token=token or self._args.hub_token),
        )

    def push_checkpoint(self, folder: str, running: PushInProgress | None, repo_id: str, step: int) -> PushInProgress:
        """Start a push of what is public of a checkpoint, its record and card with it, beside the training.

        It goes from `args.output_dir`, as the checkpoint may be deleted (save_total_limit) before its turn comes.
        """
        for name in pushable_files(folder):
            target = Path(self._args.output_dir, name)
            target.parent.mkdir(exist_ok=True)
            unfinished = target.with_name(f".{target.name}.copied")
            try:
                shutil.copy(Path(folder, name), unfinished)
                unfinished.replace(target)
            finally:
                unfinished.unlink(missing_ok=True)  # still there when the disk is full
        return self.push_beside(running, repo_id, f"Training in progress, step {step}")

    def may_push_checkpoint(self, running: PushInProgress | None) -> bool:
        """Whether a checkpoint is to be pushed: not while an earlier one's push runs, unless that was asked for."""
        if self._args.hub_strategy == HubStrategy.END:
            return False
        return running is None or running.is_done() or self._args.hub_always_push

    def push_beside(self, running: PushInProgress | None, repo_id: str, message: str) -> PushInProgress:
        """Start a push that runs beside the training.

        Args:
            running: pushes that were started before.
            repo_id: where to.
            message: of the commit.
        """
        push = self.push(repo_id, message)
        job = push.api.run_as_future(push)
        if running is None or running.is_done():
            return PushInProgress([job])
        running.jobs.append(job)
        return running


def warn_of_failures(ended: PushInProgress | None) -> None:
    """Say which pushes during the training have failed; Trainer keeps it to itself."""
    for job in [] if ended is None else ended.jobs:
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
