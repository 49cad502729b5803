"""What losses are told of levels and progress in a forward, and how far from their levels the forget rows are."""

from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...model.scoring import RowScores, Scores
from ..baseline import Baseline
from ..levels.levels import Levels
from .context import StepContext
from .kept_state import STATE_FOLDER

DISTANCES_FILE = f"{STATE_FOLDER}/level_distances.safetensors"


class RowLevels:
    """Supplies the scores of a forward with bounds, levels and progress, and follows the rows to their levels.

    The NLL that a training step reads of its forget rows costs nothing more, so each row's distance is that of its
    last training step, taken before that step moved the weights: up to an epoch old, as the loss saw the row (under
    the perturbation of an attack, where there is one), and of all rows of the set, which a logging window is not.

    Args:
        accelerator: of the trainer.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.restart()

    def restart(self) -> None:
        """Nothing is known of any row: another run begins."""
        self._distances: Tensor | None = None  # [N], |nll_i - tau_i|; -1 where a row was not seen yet
        self._step: Tensor | None = None  # of the present step on this rank: [2, N], sums and counts of the same

    def supplied(self, scores: Scores, baseline: Baseline | None, context: StepContext) -> Scores:
        """The scores of a forward as the objective is given them.

        Args:
            scores: of a micro-batch, or of the rows of one side of it.
            baseline: what was measured before the first step; None where that is yet to come.
            context: what the forward is for.
        """
        scores = replace(scores, progress=context.progress)
        if baseline is None or scores.forget is None:
            return scores
        forget, bound, levels = scores.forget, baseline.bound, baseline.levels
        if isinstance(bound, Tensor):
            bound = bound[forget.row]
        forget = replace(forget, bound=bound)
        if levels is not None:
            levels = levels.to(forget.row.device)
            level = levels.rows[forget.row]
            forget = replace(forget, level=level, token_level=token_levels(levels, forget))
            if context.recording and len(forget.logps):
                self._record((forget.nll_per_token().detach() - level).abs(), forget.row, len(levels.rows))
        return replace(scores, forget=forget)

    def _record(self, distances: Tensor, rows: Tensor, count: int) -> None:
        """Add a micro-batch's distances [R], of rows [R] of a set of `count`, to those of the step."""
        if self._step is None:
            self._step = torch.zeros(2, count, device=rows.device)
        self._step.index_add_(1, rows, torch.stack([distances.float(), torch.ones_like(rows, dtype=torch.float32)]))

    def after_step(self) -> None:
        """After an optimizer step: the ranks tell each other of its rows. All call it, whether they had any or not."""
        if self._step is None:
            return
        # A row that several ranks had, as accelerate fills a last batch, has the same distance on all of them.
        sums, counts = self._accelerator.reduce(self._step, "sum")
        self._step.zero_()
        known = torch.full_like(sums, -1.0) if self._distances is None else self._distances.to(sums.device)
        self._distances = torch.where(counts > 0, sums / counts.clamp(min=1), known)

    def logged(self) -> dict[str, float]:
        """The median distance of the forget rows to their levels, nats per token, once each was seen."""
        if self._distances is None or bool((self._distances < 0).any()):
            return {}
        return {"level_distance": float(self._distances.double().quantile(0.5))}

    def save(self, folder: str) -> None:
        """Write the distances, of which a resumed run would know nothing for an epoch, into a checkpoint's folder."""
        if self._distances is not None:
            path = Path(folder, DISTANCES_FILE)
            path.parent.mkdir(exist_ok=True)
            save_file({"distances": self._distances.contiguous()}, path)

    def load(self, folder: str) -> None:
        """Take up what `save` wrote; nothing is known where it wrote nothing."""
        self.restart()
        path = Path(folder, DISTANCES_FILE)
        if path.is_file():
            self._distances = load_file(path)["distances"]


def token_levels(levels: Levels, rows: RowScores) -> Tensor | None:
    """The level of each answer token of some forget rows, [T], nats; None where they were not estimated."""
    if levels.token_values is None or levels.token_starts is None:
        return None
    ends = rows.lengths.cumsum(0)
    # Answer tokens of a batch are numbered through; those of the set start elsewhere for each row.
    shifts = levels.token_starts[rows.row] - (ends - rows.lengths)
    places = torch.arange(len(rows.token_ids), device=ends.device) + shifts[rows.row_of_token()]
    return levels.token_values[places]
