"""Whether the rows of a micro-batch are padded or follow each other in one line, chosen by what either takes."""

import json
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from transformers.utils import logging

from ..data.batch import Batch, IndexingCollator, parts_of
from ..model.probe import ModelProbe
from .padding_free import fault_of_line
from .prepared_run import PreparedRun
from .probing import longest_line
from .step.context import StepContext
from .step.kept_state import STATE_FOLDER
from .step.wrapped_step import WrappedStep

LAYOUT_FILE = f"{STATE_FOLDER}/row_layout.json"
_ROUNDS = 3  # that are timed, after one of each layout that is not

logger = logging.get_logger(__name__)


class RowLayout:
    """The layout of a run's training batches.

    `padding_free` says it, or with `auto_padding_free` what the first micro-batch takes in either: with flash
    attention rows in one line cost their tokens alone, with other kernels a square of all tokens of the line, and
    which is faster depends on the kernel, the model and how ragged the rows are. Both give the same gradient up to
    rounding; a resumed run has the layout that it began with.

    Args:
        run: as it was prepared.
        accelerator: of the trainer.

    Attributes:
        in_one_line: whether rows follow each other in one line.
    """

    def __init__(self, run: PreparedRun, accelerator: Accelerator) -> None:
        self._run, self._accelerator = run, accelerator
        self.in_one_line = run.args.padding_free

    def collator_of(self, data_collator: Callable[..., Any]) -> IndexingCollator:
        """What makes the batches of a loader; see `PreparedRun.collator_of`."""
        return self._run.collator_of(data_collator, in_one_line=self.in_one_line)

    def choose(
        self,
        model: nn.Module,
        probe: ModelProbe,
        batches: Callable[[], Iterable[Batch]],
        compute_loss: Callable[..., Any],
        steps: WrappedStep,
        resumed: str | None,
    ) -> None:
        """Before the first step of a run that asks for it: the layout that it had, or else the faster one.

        Args:
            model: unwrapped, before unlearning.
            probe: of the model.
            batches: the training data in the present layout, prepared for the device.
            compute_loss: Trainer's.
            steps: of the run, whose log these losses are not in.
            resumed: checkpoint that the run goes on from, or None.
        """
        if not self._run.args.auto_padding_free:
            return
        held = None if resumed is None else Path(resumed, LAYOUT_FILE)
        if held is not None and held.is_file():
            self.in_one_line = bool(json.loads(held.read_text(encoding="utf-8"))["padding_free"])
            return
        if not probe.rows_apart or not self._fits(model):
            self.in_one_line = False  # a search may have had another model before
            logger.warning("Rows are padded: this model, or this run, cannot have them in one line.")
            return
        with torch.random.fork_rng(), steps.calling(StepContext(recording=False)):
            seconds = self._timed(model, batches, compute_loss)
        self.in_one_line = seconds[True] < seconds[False]
        logger.warning(  # a run that does as it was asked to, but the clock has decided
            f"Rows {'follow each other in one line' if self.in_one_line else 'are padded'}: a micro-batch takes "
            f"{1000 * seconds[True]:.3g} ms in one line and {1000 * seconds[False]:.3g} ms padded."
        )

    def save(self, folder: str) -> None:
        """Write the layout that was chosen into a checkpoint's folder."""
        if self._run.args.auto_padding_free:
            file = Path(folder, LAYOUT_FILE)
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps({"padding_free": self.in_one_line}) + "\n", encoding="utf-8")

    def _fits(self, model: nn.Module) -> bool:
        run = self._run
        line = longest_line(run.objective, run.args, run.sets.longest)
        return run.pads_itself and fault_of_line(model, line) is None

    def _timed(
        self,
        model: nn.Module,
        batches: Callable[[], Iterable[Batch]],
        compute_loss: Callable[..., Any],
    ) -> dict[bool, float]:
        """Seconds of forward and backward of the first micro-batch, by whether its rows are in one line."""
        first: dict[bool, Batch] = {}
        for layout in (True, False):
            self.in_one_line = layout
            first[layout] = next(iter(batches()))
        taken: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(1 + _ROUNDS):
            for layout, batch in first.items():
                taken[layout].append(self._seconds(model, batch, compute_loss))
        medians = torch.tensor([statistics.median(taken[layout][1:]) for layout in (True, False)])
        together = self._accelerator.reduce(medians.to(self._accelerator.device), "mean").tolist()
        return dict(zip((True, False), together, strict=True))

    def _seconds(self, model: nn.Module, batch: Batch, compute_loss: Callable[..., Any]) -> float:
        model.train()
        self._wait()
        begun = time.perf_counter()
        for part in parts_of(batch):
            with self._accelerator.autocast():
                loss = compute_loss(model, part)
            loss.backward()
        self._wait()
        seconds = time.perf_counter() - begun
        model.zero_grad()
        return seconds

    def _wait(self) -> None:
        if self._accelerator.device.type != "cpu":
            torch.accelerator.synchronize(self._accelerator.device)
