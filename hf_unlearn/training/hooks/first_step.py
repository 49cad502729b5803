"""Looks at the rows of the first step: a model that does not know them has nothing to forget, or to keep."""

from collections.abc import Callable, Iterator, Mapping

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

logger = logging.get_logger(__name__)

# A share of log V from which on the next token is as good as unknown: text of any language is far below.
NEAR_CHANCE = 0.8
# Nats per token below which rows are known, whatever else is measured of them.
KNOWN = 1.0


class FirstStepLevels(TrainerCallback):
    """Warns, once and on the main process, of rows that the model does not seem to know.

    It reads the NLLs that the first step computes anyway, of its own batch and before any weight has moved; training
    goes on. `hf-unlearn train` measures more, and stops (`tasks/preflight.py`).

    Args:
        levels: mean of each component of the loss in the step so far; every rank calls it.
        chance: NLL per token of a model that knows nothing, log V.
        unseen: NLL per token of holdout rows, or None where nothing asked for it.
    """

    def __init__(
        self,
        levels: Callable[[], Mapping[str, float]],
        chance: Callable[[], float],
        unseen: Callable[[], float | None],
    ) -> None:
        self._levels, self._chance, self._unseen = levels, chance, unseen
        self._looked = False

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Look at the first step; one of a resumed run is none."""
        if self._looked or state.global_step > 0:
            return
        self._looked = True
        levels = self._levels()
        if state.is_world_process_zero:
            for problem in unknown_rows(levels, self._chance(), self._unseen()):
                logger.warning(
                    "%s. A model cannot forget, or keep, what it does not know: check that it is the one that learnt "
                    "the rows, its tokenizer, chat template and beginning of text.",
                    problem,
                )


def unknown_rows(levels: Mapping[str, float], chance: float, unseen: float | None) -> Iterator[str]:
    """What shows that a model does not know its rows, in words without their end.

    Args:
        levels: `forget_nll` and `retain_nll`, nats per token; either may be missing.
        chance: NLL per token of a model that knows nothing.
        unseen: that of rows which the model has never seen, or None.
    """
    near = False
    for name in ("forget", "retain"):
        nll = levels.get(f"{name}_nll")
        if nll is not None and nll >= NEAR_CHANCE * chance:
            near = near or name == "forget"
            yield (
                f"The {name} rows of the first step have an NLL of {nll:.2f} nats per token, near that of a random "
                f"model ({chance:.2f})"
            )
    forget = levels.get("forget_nll")
    if not near and unseen is not None and forget is not None and forget > KNOWN and forget >= unseen:
        yield (
            f"The forget rows of the first step have an NLL of {forget:.2f} nats per token, not below that of the "
            f"holdout rows ({unseen:.2f}), as only those of a behaviour may have that unseen rows show as well"
        )
