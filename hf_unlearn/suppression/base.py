"""What a suppression is: rows in, a `Suppressor` out that changes how a model answers. No weight is touched."""

import abc
import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import LogitsProcessor, PreTrainedModel

from ..component import Component
from ..edits import EditData
from ..errors import input_error
from ..model.sharding import is_sharded
from ..model.suppressed_forward import SuppressedForward, Text, suppress_forward
from .parts import hash_part, save_parts
from .processor import SuppressionProcessor


@dataclass(frozen=True)
class Suppressor(abc.ABC):
    """A fitted suppression: what it takes to change a model's answers, frozen. Made by `Suppression.build`.

    Its fields are tensors, small models, n-grams, and what JSON takes; together they are what is saved.

    Class attributes:
        name: of its suppression.
        changes_logits: whether it changes logits by the text before them (`change`); else what the model reads.
        holds: what of the forget rows can be read in the saved suppressor, as a sentence.
    """

    name: ClassVar[str]
    changes_logits: ClassVar[bool] = False
    holds: ClassVar[str] = ""

    def forward(self, model: Any, own: Callable[..., Any], inputs: dict[str, Any], text: Text) -> Any:
        """The output of the model's own forward, called with inputs that may be others.

        Args:
            model: that answers, without an adapter's wrapper.
            own: its forward.
            inputs: of the call, by name.
            text: all that it has read, the tokens of its cache included.
        """
        return own(**inputs)

    def change(self, logits: Tensor, text: Text, positions: Tensor) -> Tensor:
        """The logits as they are to be, [T, V]; as they are where `changes_logits` is False.

        Args:
            logits: of the model, [T, V].
            text: [B, L] of token ids, with their mask.
            positions: of the tokens that the logits follow, in the text laid flat, [T].
        """
        return logits

    def install(self, model: nn.Module) -> "Installed":
        """Suppress the answers of a model, in every call of it, until the handle removes it.

        Raises:
            ValueError: a model that is split over ranks, has a suppressor, or has another size than the fitted one.
        """
        if is_sharded(model):
            raise input_error(
                expected="a model that every rank holds whole",
                got="parameters that are split over ranks (ZeRO-3 or FSDP)",
                why="ranks would have to ask the suppressor in step with the gathering of weights",
                fix="suppress the saved model, in one process or under DDP",
            )
        why = self.unfit(model)
        if why is not None:
            raise input_error(
                expected="a model that the suppressor was fitted to, or one of its sizes",
                got=f"one of {why}",
                why="it reads and changes the model's states and logits number by number",
                fix="fit the suppression to this model",
            )
        return Installed(suppress_forward(model, self))

    @property
    def vocabulary(self) -> int | None:
        """Of the model that it was fitted to; None for one that fits any."""
        return None

    def unfit(self, model: Any) -> str | None:
        """Of which other size a model is than the one that it was fitted to; None where it fits."""
        own, other = self.vocabulary, model.config.get_text_config().vocab_size
        return f"{other} tokens, not {own}" if own not in (None, other) else None

    def logits_processor(self, pad_token_id: int | None = None) -> LogitsProcessor:
        """The same as a logits processor, for `generate` of a model without the suppressor.

        Args:
            pad_token_id: what prompts are padded with on the left; None where they are not padded.

        Raises:
            ValueError: it works on what the model reads, not on logits.
        """
        if not self.changes_logits:
            raise input_error(
                expected="a suppression of logits, for a LogitsProcessor",
                got=self.name,
                why="it changes what the model reads, which a processor of logits does not see",
                fix="suppressor.install(model), and generate as ever",
            )
        return SuppressionProcessor(self, pad_token_id)

    @property
    def parts(self) -> dict[str, Any]:
        """Its fields by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @cached_property
    def identity(self) -> str:
        """SHA-256 of all that it does."""
        parts = {name: hash_part(part) for name, part in self.parts.items()}
        return hashlib.sha256(json.dumps([self.name, parts], sort_keys=True).encode()).hexdigest()

    def save(self, folder: str | Path) -> Path:
        """Save it: JSON, safetensors and folders of small models. `load_suppressor` reads it.

        `holds` says what of the forget rows can be read in these files: keep them as the rows themselves are kept.
        """
        return save_parts(Path(folder), self.name, self.parts)


class Installed:
    """A suppressor on a model, until `remove`."""

    def __init__(self, forward: SuppressedForward) -> None:
        self._forward = forward

    def remove(self) -> None:
        """Take it off: the model answers as its weights do, bit for bit."""
        self._forward.leave()


@dataclass(frozen=True)
class Suppression(Component, abc.ABC):
    """Changes how a model answers and leaves its weights alone. A frozen dataclass of its arguments.

    Class attributes:
        reads: sets that must be there, of "forget", "retain" and "holdout".
        fitted: the class of its suppressors.
        cost: what it takes to fit and at every call, in words.
        restores: what removing it restores, in words.
        formula, paper, name: as of every component.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"forget", "retain"})
    fitted: ClassVar[type[Suppressor]]
    cost: ClassVar[str] = ""
    restores: ClassVar[str] = "everything: the weights are those of the model before"

    @abc.abstractmethod
    def build(self, model: PreTrainedModel, data: EditData) -> Suppressor:
        """Fit it to rows. The model is left as it is; the result follows from model, data and `data.seed` alone."""

    def unfit(self, model: PreTrainedModel, data: EditData) -> str | None:
        """Why it cannot be done to a model, as the end of a sentence; None where it can."""
        return None
