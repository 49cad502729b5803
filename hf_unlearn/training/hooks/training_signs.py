"""Watches a run for signs that it does not do what it is for: forget NLL that falls, retain rows that are lost."""

from collections.abc import Callable
from typing import TypeAlias

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from ...results.record import RunRecord

# The first value of a log and its last ones, the latest first -> what they are a sign of.
Sign: TypeAlias = Callable[[float, list[float]], str | None]

logger = logging.get_logger(__name__)

# Logs in a row that show a sign, so that one batch of easy rows does not.
_IN_A_ROW = 3
# Forget NLL has fallen below this share of its start, by more nats than rounding and the choice of rows explain.
_FALLEN_SHARE, _FALLEN_BY = 0.7, 0.1
# Retain NLL has risen by so many nats per token: the answers are e times less likely, token by token.
_RISEN_BY = 1.0
# An accuracy of retain answers that has fallen to less than this share of what it was.
_LOST_SHARE = 0.5


class TrainingSigns(TrainerCallback):
    """Warns once of each sign, and keeps it in the record, from which report and card say it.

    It reads Trainer's log history, so that a resumed run is compared with its own start.

    Args:
        record: of the run.
    """

    def __init__(self, record: RunRecord) -> None:
        self._record = record
        self._seen: set[str] = set()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """A new run has shown nothing yet."""
        self._seen.clear()
        self._record.signs = []

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Look at the last logs."""
        self._look("forget_nll", state, self._fallen)
        self._look("retain_nll", state, self._risen)
        for name in ("eval_retain_accuracy", "eval_out_of_scope_accuracy"):
            self._look(name, state, self._lost, in_a_row=1)

    def _look(self, name: str, state: TrainerState, sign: Sign, in_a_row: int = _IN_A_ROW) -> None:
        if name in self._seen:
            return
        first = next((log[name] for log in state.log_history if name in log), None)
        last: list[float] = []
        for log in reversed(state.log_history):
            if name in log:
                last.append(log[name])
            if len(last) > in_a_row:
                break
        if first is None or len(last) <= in_a_row:  # the start is none of them
            return
        said = sign(first, last[:in_a_row])
        if said is not None:
            self._seen.add(name)
            self._record.signs.append(f"{said} (step {state.global_step}).")
            logger.warning("%s", self._record.signs[-1])

    @staticmethod
    def _fallen(first: float, last: list[float]) -> str | None:
        if all(nll < _FALLEN_SHARE * first and first - nll > _FALLEN_BY for nll in last):
            return (
                f"The forget NLL fell from {first:.3g} to {last[0]:.3g} nats per token: the run teaches what it is to "
                "forget. A loss of the wrong sign, or a retain side that is too strong, does that"
            )
        return None

    @staticmethod
    def _risen(first: float, last: list[float]) -> str | None:
        if all(nll > first + _RISEN_BY for nll in last):
            return (
                f"The retain NLL rose from {first:.3g} to {last[0]:.3g} nats per token: what is to be kept is being "
                "lost. A lower learning rate, fewer steps or a higher retain_weight keep more of it"
            )
        return None

    @staticmethod
    def _lost(first: float, last: list[float]) -> str | None:
        if first > 0 and all(share < _LOST_SHARE * first for share in last):
            return f"Retain answers collapsed: from {first:.1%} right to {last[0]:.1%}"
        return None
