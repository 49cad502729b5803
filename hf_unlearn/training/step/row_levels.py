"""What losses are told of levels and progress in a forward, and how far from their levels the forget rows are."""

from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...model.scoring import RowScores, Scores, changed
from ..baseline import Baseline
from ..levels.levels import Levels
from .context import StepContext
from .kept_state import STATE_FOLDER

DISTANCES_FILE = f"{STATE_FOLDER}/level_distances.safetensors"
RECALIBRATED_FILE = f"{STATE_FOLDER}/levels.safetensors"


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
        self._rows: Tensor | None = None  # levels that were estimated anew; None before that
        self._tokens: Tensor | None = None  # those of the answer tokens, where a loss reads them

    def recalibrate(self, levels: Levels) -> None:
        """From now on the losses are told of these levels."""
        self._rows, self._tokens = levels.rows, levels.token_values

    def supplied(self, scores: Scores, baseline: Baseline | None, context: StepContext) -> Scores:
        """The scores of a forward as the objective is given them.

        Args:
            scores: of a micro-batch, or of the rows of one side of it.
            baseline: what was measured before the first step; None where that is yet to come.
            context: what the forward is for.
        """
        scores = changed(scores, progress=context.progress)
        if baseline is None or scores.forget is None:
            return scores
        forget, bound, levels = scores.forget, baseline.bound, baseline.levels
        if levels is not None:
            at_levels = bound is levels.rows
            if self._rows is not None:
                levels = replace(levels, rows=self._rows, token_values=self._tokens)
            levels = levels.to(forget.row.device)
            bound = levels.rows if at_levels else bound
        if isinstance(bound, Tensor):
            bound = bound[forget.row]
        forget = changed(forget, bound=bound)
        if levels is not None:
            level = levels.rows[forget.row]
            forget = changed(forget, level=level, token_level=token_levels(levels, forget))
            if context.recording and len(forget.logps):
                self._record((forget.nll_per_token().detach() - level).abs(), forget.row, len(levels.rows))
        return changed(scores, forget=forget)

    def _record(self, distances: Tensor, rows: Tensor, count: int) -> None:
        """Add a micro-batch's distances [R], of rows [R] of a set of `count`, to those of the step."""
        if self._step is None:
            self._step = torch.zeros(2, count, device=rows.device)
        self._step.index_add_(1, rows, torch.stack([distances.float(), torch.ones_like(rows, dtype=torch.float32)]))

    def after_step(self) -> None:
        """After an optimizer step: the ranks tell each other of its rows. All call it, whether they had any or not."""
        step, self._step = self._step, None
        if step is None:  # every rank has forget rows in every step: they are what a batch is made of
            return
        # A row that several ranks had, as accelerate fills a last batch, has the same distance on all of them.
        sums, counts = self._accelerator.reduce(step, "sum")
        known = torch.full_like(sums, -1.0) if self._distances is None else self._distances.to(sums.device)
        self._distances = torch.where(counts > 0, sums / counts.clamp(min=1), known)

    def logged(self) -> dict[str, float]:
        """The median distance of the forget rows to their levels, once each was seen; and the mean of moving levels.

        Both in nats per token.
        """
        logged = {} if self._rows is None else {"level_mean": float(self._rows.mean())}
        if self._distances is not None and not bool((self._distances < 0).any()):
            logged["level_distance"] = float(self._distances.quantile(0.5))
        return logged

    def save(self, folder: str) -> None:
        """Write what a resumed run could not make again into a checkpoint's folder.

        That are the distances, of which it would know nothing for an epoch, and levels of a model that is gone.
        """
        levels = {"rows": self._rows, "tokens": self._tokens}
        for name, tensors in ((DISTANCES_FILE, {"distances": self._distances}), (RECALIBRATED_FILE, levels)):
            given = {part: tensor.contiguous() for part, tensor in tensors.items() if tensor is not None}
            if given:
                path = Path(folder, name)
                path.parent.mkdir(exist_ok=True)
                save_file(given, path)

    def load(self, folder: str) -> None:
        """Take up what `save` wrote; nothing is known where it wrote nothing."""
        self.restart()
        if Path(folder, DISTANCES_FILE).is_file():
            self._distances = load_file(Path(folder, DISTANCES_FILE))["distances"]
        if Path(folder, RECALIBRATED_FILE).is_file():
            levels = load_file(Path(folder, RECALIBRATED_FILE))
            self._rows, self._tokens = levels["rows"], levels.get("tokens")


def token_levels(levels: Levels, rows: RowScores) -> Tensor | None:
    """The level of each answer token of some forget rows, [T], nats; None where they were not estimated.

    Where it is not predicted which tokens of a row are the harder ones, the likeliest token has the lowest level, and
    so on (no other pairing is nearer: optimal transport in one dimension).
    """
    if levels.token_values is None or levels.token_starts is None:
        return None
    ends = rows.lengths.cumsum(0)
    # Answer tokens of a batch are numbered through; those of the set start elsewhere for each row.
    shifts = levels.token_starts[rows.row] - (ends - rows.lengths)
    of_token = rows.row_of_token()
    values = levels.token_values[torch.arange(len(rows.token_ids), device=ends.device) + shifts[of_token]]
    return values if levels.token_order or not len(rows.logps) else _by_likelihood(rows.logps, of_token, values)


def _by_likelihood(logps: Tensor, rows: Tensor, ascending: Tensor) -> Tensor:
    """Values that ascend within each row, [T], the lowest to its likeliest token; `rows` [T] says whose each is."""
    likeliest_first = (-logps.detach()).argsort(stable=True)
    by_row = likeliest_first[rows[likeliest_first].argsort(stable=True)]
    return torch.empty_like(ascending).index_copy_(0, by_row, ascending)
