"""Unlearning by reward: TRL's GRPO on forget prompts, with retain prompts beside them."""

from dataclasses import dataclass
from typing import Any

from ..model.fine_tuning import row_batches
from ..results.edit_report import Tried
from .base import EditData
from .by_reward import ByReward, last_means, settings_restored, trained_in_fp32


@dataclass(frozen=True)
class GRPO(ByReward):
    """Group-relative policy optimisation (TRL's GRPOTrainer), rewarded for answers without what is to be forgotten.

    Each step draws `rollouts` answers to each of `prompts` forget and `neighbours` retain prompts. An answer pushes by
    its advantage A = (r - mean r of its prompt's answers) / (their standard deviation + 1e-4): where all answers to a
    prompt are worth the same nothing is learnt from it but the KL, and what is never drawn is never rewarded. Above a
    temperature of 1 more is drawn, but it is the flattened policy that learns, and greedy answers follow late.

    Args:
        steps: optimizer steps.
        rate: learning rate, constant, of AdamW without weight decay.
        prompts: forget prompts of a step.
        neighbours: retain prompts of a step.
        beta: of the KL to the model before on the drawn answers, by the estimator e^d - d - 1.

    Paper: Shao et al. 2024, https://arxiv.org/abs/2402.03300.
    """

    steps: int = 60
    rate: float = 5e-4
    prompts: int = 4
    neighbours: int = 4
    beta: float = 0.01

    name = "grpo"
    formula = "-mean A lp + beta KL(pi || pi_before) + w NLL(retain); A = (r - mean r) / std r in a prompt's answers"
    paper = "Shao et al. 2024, arXiv:2402.03300"
    cost = "steps x (prompts + neighbours) x rollouts answers, each generated, scored twice and trained on once"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("steps", "rate", "prompts")
        self.require_not_negative("neighbours", "beta")

    def run(self, model: Any, data: EditData) -> list[Tried]:
        from .grpo_trainer import apart, make_trainer  # only who trains by reward waits for it to be imported

        rewards, places = self.rewards(data), self._places(data)
        tried = [data.tried(model, {"step": 0})]
        with apart() as folder, settings_restored(model), settings_restored(data.before), trained_in_fp32(model):
            trainer = make_trainer(self, model, data, rewards, places, folder)
            trainer.train()
            trainer.accelerator.free_memory()
        model.eval()
        return [*tried, data.tried(model, {"step": self.steps, **last_means(rewards.log)})]

    def _places(self, data: EditData) -> list[int]:
        """Of the prompts' rows, step by step: forget prompts, then retain prompts."""
        forget = row_batches(range(len(data.forget)), self.prompts, data.seed)
        kept = row_batches(range(len(data.forget), len(data.forget) + len(data.retain)), self.neighbours, data.seed)
        sources = (forget, kept) if self.neighbours else (forget,)
        return [place for _ in range(self.steps) for source in sources for place in next(source)]
