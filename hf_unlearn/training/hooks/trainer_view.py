"""What the trainer's collaborators read of it, as one declared interface."""

from typing import Any, Protocol

from accelerate import Accelerator
from torch import nn
from transformers import TrainerControl, TrainerState
from transformers.trainer_callback import CallbackHandler

from ...data.prepare import TrainSets
from ..baseline import Baseline
from ..config import UnlearningConfig
from ..distributed_setup import DistributedSetup
from ..methods import Methods
from ..objective import Objective
from ..reference.reference import Reference


class TrainerView(Protocol):
    """An `UnlearningTrainer` as its callbacks and its record see it.

    It is read when it is needed, as model, objective and accelerator change in a hyperparameter search. Who keeps one
    keeps a weak reference (`weakref.proxy`): a strong one would keep the weights in memory after `del trainer`.
    """

    args: UnlearningConfig
    state: TrainerState
    control: TrainerControl
    accelerator: Accelerator
    callback_handler: CallbackHandler
    train_dataset: Any
    eval_dataset: Any
    processing_class: Any
    model: Any
    model_wrapped: nn.Module
    optimizer: Any
    methods: Methods
    unlearning_objective: Objective
    train_sets: TrainSets | None
    distributed: DistributedSetup
    reference: Reference
    _trial: Any

    def _get_output_dir(self, trial: Any) -> str:
        """The folder of the run: `args.output_dir`, or that of a trial."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write a model's files from the process that saves."""

    @property
    def baseline(self) -> Baseline | None:
        """What was measured before the first step; None until then."""

    @property
    def stop_reason(self) -> str | None:
        """Why the last run stopped before its last step, or None."""
