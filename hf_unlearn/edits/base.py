"""What an edit is: data in, other weights out, without the objective of `UnlearningTrainer`."""

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from transformers import PreTrainedModel

from ..component import Component
from ..data.tokenized_row import TokenizedRow
from ..errors import input_error
from ..evaluation.questioner import Questioner
from ..results.edit_report import Tried


@dataclass(frozen=True)
class EditData:
    """What an edit has beside the model.

    Attributes:
        questioner: scores rows and asks for answers; tokenizer, batch size and seed are in it.
        forget: tokenised rows to forget.
        retain: tokenised rows to keep; () where there are none.
        unseen: tokenised rows like the forget rows that no model has seen: the half of the holdout rows that may be
            fitted to; () where there are none.
        given: the same rows as they were given, by role ("forget", "retain", "holdout"), for what works on texts.
        level: mean NLL per token that a model without the forget rows would give them, nats; None where unknown.
        before: the model before unlearning, for edits with `needs_before`. It is to be left as it is.
        checkpoint: loads a model from before it learnt the forget rows; None where there is none.
        judge: of generated answers, as `hf_unlearn.evaluation.Judge`; None where overlap with the row judges.
    """

    questioner: Questioner
    forget: Sequence[TokenizedRow]
    retain: Sequence[TokenizedRow] = ()
    unseen: Sequence[TokenizedRow] = ()
    given: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    level: float | None = None
    before: PreTrainedModel | None = None
    checkpoint: Callable[[], PreTrainedModel] | None = None
    judge: Callable[..., Any] | None = None

    @property
    def seed(self) -> int:
        """Of everything that is drawn."""
        return self.questioner.seed

    def tried(self, model: Any, setting: Mapping[str, Any], *, retain: bool = True) -> Tried:
        """What a model gives the forget rows, and the retain rows where they are to be scored, in a setting."""
        kept = float(self.questioner.nll(model, self.retain).mean()) if retain and len(self.retain) else None
        return Tried(dict(setting), float(self.questioner.nll(model, self.forget).mean()), kept)

    def require_level(self, edit: "Edit") -> float:
        """The level; raises where nothing says which one it is."""
        if self.level is None:
            raise input_error(
                expected=f"holdout rows, or level=NATS, for the edit {edit.name}",
                got="neither",
                why="it stops where the forget rows have the NLL that rows never seen have",
                fix="pass rows like the forget rows that the model was never trained on as `holdout`, or a number",
            )
        return self.level


@dataclass(frozen=True)
class Edit(Component, abc.ABC):
    """Changes the weights of a model without a loss of `UnlearningTrainer`. A frozen dataclass of its arguments.

    Class attributes:
        reads: sets that must be there, of "forget", "retain" and "holdout".
        needs_before: whether it compares with the model before unlearning (`EditData.before`).
        needs_checkpoint: whether it starts from a model that had not learnt the forget rows (`EditData.checkpoint`).
        cost: what it takes, in words.
        formula, paper, name: as of every component.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"forget"})
    needs_before: ClassVar[bool] = False
    needs_checkpoint: ClassVar[bool] = False
    cost: ClassVar[str] = ""

    @abc.abstractmethod
    def run(self, model: PreTrainedModel, data: EditData) -> list[Tried]:
        """Change the weights of a model in place; what was measured on the way, the chosen setting among it.

        The model is whole, in fp32 or as it was loaded, on its device, in evaluation mode, its weights trainable. The
        result follows from model, data and `data.seed` alone. Texts of rows are never printed or logged.
        """

    def unfit(self, model: PreTrainedModel, data: EditData) -> str | None:
        """Why it cannot be done to a model, as the end of a sentence; None where it can."""
        return None

    def warnings(self, data: EditData) -> list[str]:
        """What a reader must know of its result, beside what the levels tell; sentences."""
        return []
