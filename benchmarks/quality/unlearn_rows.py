"""One training of `UnlearningTrainer` on tokenised rows, as the benchmarks on TOFU and the lab run it."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback

from benchmarks.quality.teacher_forcing import TokenizedRow
from hf_unlearn import UnlearningConfig, UnlearningTrainer
from hf_unlearn.model.merging import merge


def adapter_of_rank(rank: int) -> LoraConfig:
    """LoRA on all linear layers, and the embedding trained whole, which is the head too.

    "all-linear" leaves both out, and with them most of what moves a token at a probability near 1: such an adapter
    starts late, ends short of the levels and is relearnt fast. The last holds of an adapter on the embedding, too.
    """
    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules="all-linear",
        modules_to_save=["embed_tokens"],
        ensure_weight_tying=True,
    )


def unlearn_rows(
    model: PreTrainedModel,
    sets: Mapping[str, Sequence[TokenizedRow]],
    tokenizer: PreTrainedTokenizerBase,
    recipe: Mapping[str, Any],
    seed: int,
    reference: PreTrainedModel | None = None,
) -> tuple[PreTrainedModel, dict[str, float]]:
    """A model after training, its adapter merged, and what that took.

    Args:
        model: to start from, in place.
        sets: forget, retain and holdout rows.
        tokenizer: of the model.
        recipe: arguments of UnlearningConfig, and the rank of an adapter.
        seed: of the run.
        reference: what the losses compare with, where it is not the model that the training starts from.
    """
    own = {argument: value for argument, value in recipe.items() if argument != "rank"}
    with tempfile.TemporaryDirectory() as output_dir:
        config = UnlearningConfig(
            output_dir=output_dir,
            reference_cache_dir=output_dir,
            seed=seed,
            save_strategy="no",
            logging_steps=10,
            report_to="none",
            disable_tqdm=True,
            include_num_input_tokens_seen="non_padding",
            **own,
        )
        trainer = UnlearningTrainer(
            model=model,
            args=config,
            train_dataset={name: datasets.Dataset.from_list(list(rows)) for name, rows in sets.items()},
            processing_class=tokenizer,
            peft_config=adapter_of_rank(recipe["rank"]) if "rank" in recipe else None,
            ref_model=reference,
        )
        trainer.remove_callback(PrinterCallback)  # its lines would cut through the table
        begun = time.process_time()
        trainer.train()
        seconds = time.process_time() - begun
        model = trainer.accelerator.unwrap_model(trainer.model)
        trainer.close()
    model = merge(model) if isinstance(model, PeftModel) else model
    tokens = float(trainer.state.num_input_tokens_seen)
    return model, {"tokens": tokens, "train_cpu_seconds": seconds, "steps": trainer.state.global_step}
