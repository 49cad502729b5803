"""TRL's GRPOTrainer on tokenised prompts: exact ids, answers that end where the rows end, retain rows in each step."""

import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from accelerate.state import AcceleratorState, GradientState, PartialState
from datasets import Dataset
from huggingface_hub import constants
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer
from trl.trainer import add_fused_lm_head

from ..data.batch import indexed
from ..data.tokenized_row import TokenizedRow
from ..model.fine_tuning import row_batches
from ..model.output_head import OutputHead, output_head
from ..model.scoring import score_answers
from .base import EditData
from .by_reward import draw_seeds
from .grpo import GRPO
from .rewards import Rewards


class RetainingGRPOTrainer(GRPOTrainer):
    """GRPO whose steps also keep retain rows: loss + w (-mean lp_t of a batch of retain answers).

    Args:
        retain: batches of retain rows, one for each step.
        retain_weight: w.
        collator: of rows into batches.
        arguments: of GRPOTrainer.
    """

    def __init__(self, *, retain: Iterator[list[TokenizedRow]], retain_weight: float, collator: Any, **arguments: Any):
        super().__init__(**arguments)
        self._retain, self._retain_weight, self._collator = retain, retain_weight, collator
        self._head: OutputHead = output_head(self.model)
        self._parts = 0  # of steps so far: a step is taken in as many as `gradient_accumulation_steps`

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        # Without dropout, as answers are drawn and as the reference is; TRL asks the outermost module for its mode.
        model.eval()
        model.training = True
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self._parts += 1
        if self._retain_weight == 0 or (self._parts - 1) % self.args.gradient_accumulation_steps:
            return loss  # the first part of a step has the retain rows of all of it, however many parts there are
        batch = indexed(self._collator.collate_rows(next(self._retain)))
        batch = {name: value.to(loss.device) for name, value in batch.items()}
        scores, _ = score_answers(model, self._head, batch)
        return loss - self._retain_weight * scores.logps.mean()


class _Rollouts:
    """Answers to prompts that are given by number, as `rollout_func` of GRPOTrainer, each with a seed of its own."""

    def __init__(self, rewards: Rewards, temperature: float) -> None:
        self._rewards, self._temperature, self._drawn = rewards, temperature, 0

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, Any]:
        ids = [self._rewards.prompts[int(place)] for place in prompts]
        seeds = draw_seeds(self._rewards.questioner.seed, self._drawn, len(ids))
        self._drawn += len(ids)
        answers = self._rewards.questioner.answers(
            trainer.model,
            ids,
            max_new_tokens=self._rewards.longest,
            temperature=self._temperature,
            seeds=seeds,
            ended=True,
        )
        return {"prompt_ids": ids, "completion_ids": answers, "logprobs": None}


def make_trainer(
    edit: GRPO, model: Any, data: EditData, rewards: Rewards, places: Sequence[int], folder: str
) -> RetainingGRPOTrainer:
    """A trainer that asks the prompts in their order, as many in each step, and writes nothing anywhere.

    Args:
        edit: its arguments.
        model: whole, in fp32.
        data: the rows to keep, and how models are asked.
        rewards: of the answers; it holds the prompts.
        places: of the prompts' rows, for all steps.
        folder: an empty one, for what a Trainer makes at its start.
    """
    answers = len(places) // edit.steps * edit.rollouts
    at_once = max(size for size in range(1, answers + 1) if answers % size == 0 and size <= data.questioner.batch_size)

    def reward(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [float(value) for value in rewards([int(place) for place in prompts], completion_ids)]

    arguments = _arguments(
        output_dir=folder,
        max_steps=edit.steps,
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=answers // at_once,
        num_generations=edit.rollouts,
        max_completion_length=rewards.longest,
        temperature=edit.temperature,
        learning_rate=edit.rate,
        seed=data.seed,
        use_cpu=model.device.type == "cpu",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are using 'rollout_func'")
        trainer = RetainingGRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=arguments,
            # Numbers stand for the prompts: their exact ids come from the rows, and no text of a row is held here.
            train_dataset=Dataset.from_dict({"prompt": [str(place) for place in places]}),
            processing_class=data.questioner.tokenizer,
            rollout_func=_Rollouts(rewards, edit.temperature),
            retain=row_batches(data.retain, edit.retain_batch, data.seed),
            retain_weight=edit.retain_weight,
            collator=data.questioner.collator,
        )
    trainer.remove_callback(PrinterCallback)
    if edit.beta:
        add_fused_lm_head(rewards.before, temperature=edit.temperature)
        trainer.beta, trainer.ref_model = edit.beta, rewards.before
    return trainer


def _arguments(**given: Any) -> GRPOConfig:
    """A constant rate, fp32, prompts in their order; nothing is logged, saved or reported."""
    return GRPOConfig(
        lr_scheduler_type="constant",
        weight_decay=0.0,
        beta=0.0,  # the reference is set later: TRL would load one from where the model's config says it came from
        shuffle_dataset=False,
        bf16=False,
        activation_checkpointing=False,
        log_completions=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **given,
    )


@contextmanager
def apart() -> Iterator[str]:
    """A temporary folder; TRL sends nothing meanwhile, and what a Trainer sets for the process is taken back."""
    states = [(state, dict(state._shared_state)) for state in (PartialState, AcceleratorState, GradientState)]
    environment, silent = _accelerate_variables(), constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield folder
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = silent
        for name in _accelerate_variables().keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        for state, values in states:  # that of an Accelerator which is used before and after
            state._shared_state.clear()
            state._shared_state.update(values)


def _accelerate_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("ACCELERATE_")}
