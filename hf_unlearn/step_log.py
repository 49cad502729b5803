"""Running sums of what steps and evaluations measured, kept on the device. Nothing is computed from a model here."""

import torch
from accelerate import Accelerator
from torch import Tensor

from .scoring import RowScores


class StepLog:
    """Components of the loss by name, summed over micro-batches and ranks, averaged over steps when read.

    Args:
        names: every component, so that the ranks agree on them even when a micro-batch lacks one.
        device: where the sums live; reading is the only synchronisation, but for the check of finiteness.
    """

    def __init__(self, names: list[str], device: torch.device) -> None:
        self._names, self._device = names, device
        self.start()

    def start(self) -> None:
        """Forget what was summed up; the next read covers what comes from now on."""
        self._sums = dict.fromkeys(self._names, torch.zeros(2, device=self._device))
        self._finite = torch.ones((), dtype=torch.bool, device=self._device)

    def add(self, components: dict[str, Tensor], loss: Tensor) -> None:
        """Add one micro-batch's contributions: for each component its value and its share of the step's items, [2]."""
        for name, value_and_share in components.items():
            self._sums[name] = self._sums[name] + value_and_share.detach()
        self._finite = self._finite & torch.isfinite(loss.detach())

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Mean of each component over the steps since the last read that had items of it; the same on every rank.

        The shares of one step add up to 1 over its micro-batches and ranks, so their sum counts the steps. A component
        that no step had is left out.
        """
        sums = torch.stack([self._sums[name].float() for name in self._names])
        totals = accelerator.reduce(sums, "sum").tolist()
        self.start()
        return {name: value / steps for name, (value, steps) in zip(self._names, totals, strict=True) if steps}

    def finite(self, accelerator: Accelerator) -> bool:
        """Whether every loss since the last call was finite on every rank; the same answer on all of them."""
        broken = accelerator.reduce((~self._finite).float(), "sum")
        self._finite = torch.ones_like(self._finite)
        return not bool(broken)


class EvalRows:
    """Per-row NLLs of an evaluation set, from which the set's exact figures come."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []

    def add(self, accelerator: Accelerator, rows: RowScores) -> Tensor:
        """Add one batch's rows of all ranks, without the repeats that fill a last batch.

        Returns this rank's mean NLL per token.
        """
        nll_and_tokens = torch.stack([rows.nll().double(), rows.lengths.double()], dim=1)
        self._rows.append(accelerator.gather_for_metrics(nll_and_tokens).cpu())
        total = nll_and_tokens.sum(0)
        return total[0] / total[1]

    def metrics(self) -> dict[str, float]:
        """`nll` (and `loss`): mean over all answer tokens; `probability`: mean over rows of exp(-nll per token)."""
        if not self._rows:
            return {}
        nll, tokens = torch.cat(self._rows).unbind(1)
        mean = float(nll.sum() / tokens.sum())
        return {"loss": mean, "nll": mean, "probability": float((-nll / tokens).exp().mean())}
