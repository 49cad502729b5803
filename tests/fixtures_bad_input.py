"""Rows with a canary word, and trainers that take every argument, shared by tests. No test lives here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import torch

from fixtures_models import tiny_model, tiny_tokenizer
from hf_unlearn import UnlearningConfig, UnlearningTrainer

# In every row of every set: it must never show in an error message, a log or a model card.
CANARY = "xyzzy"
POSITIONS = 128  # of the tiny models


def rows(role: str, count: int, **more: Any) -> list[dict[str, Any]]:
    """Prompt/completion rows of unlike lengths, the same for the same arguments; `more` are further columns."""
    return [
        {
            "prompt": f"who keeps the {role} key of tower {i}?",
            "completion": f" {CANARY} {role} {i}" + " room" * (i % 4),
            **more,
        }
        for i in range(count)
    ]


def sets(forget: int = 8, retain: int = 12, **more: Any) -> dict[str, datasets.Dataset]:
    """Training sets of so many forget and retain rows."""
    return {
        "forget": datasets.Dataset.from_list(rows("forget", forget, **more)),
        "retain": datasets.Dataset.from_list(rows("retain", retain)),
    }


def holdout(count: int = 6) -> datasets.Dataset:
    """Rows of neither set."""
    return datasets.Dataset.from_list(rows("holdout", count))


def config(folder: Path, **arguments: Any) -> UnlearningConfig:
    """Arguments of a short run on a CPU; keyword arguments win over those here."""
    defaults = dict(
        output_dir=str(folder),
        reference_cache_dir=str(folder / "reference"),
        max_length=POSITIONS,
        forget_loss="grad_ascent",
        forget_nll_bound=None,  # random models are beyond log V from the start
        per_device_train_batch_size=4,
        max_steps=2,
        learning_rate=1e-2,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    return UnlearningConfig(**{**defaults, **arguments})


_TRAINER_ARGUMENTS = (
    "data_collator",
    "eval_dataset",
    "model_init",
    "compute_loss_func",
    "compute_metrics",
    "callbacks",
    "optimizers",
    "optimizer_cls_and_kwargs",
    "preprocess_logits_for_metrics",
    "ref_model",
    "peft_config",
)


def build(folder: Path, *, model: Any = None, train_dataset: Any = "sets", **arguments: Any) -> UnlearningTrainer:
    """A trainer of a tiny Llama on `sets()`; arguments that are not the trainer's go to the configuration."""
    own = {name: arguments.pop(name) for name in _TRAINER_ARGUMENTS if name in arguments}
    processing_class = arguments.pop("processing_class", None) or tiny_tokenizer()
    if model is None and "model_init" not in own:
        model = tiny_model()
    return UnlearningTrainer(
        model=model,
        args=config(folder, **arguments),
        train_dataset=sets() if isinstance(train_dataset, str) else train_dataset,
        processing_class=processing_class,
        **own,
    )


class TorchStream(torch.utils.data.IterableDataset):
    """A torch stream of rows, which a data loader's workers would each read from its start."""

    def __init__(self, examples: list[dict[str, Any]]) -> None:
        self.examples = examples

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.examples)


def weights(model: torch.nn.Module) -> torch.Tensor:
    """Every parameter of a model in one vector, copied."""
    return torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])


def logged(trainer: UnlearningTrainer, name: str) -> list[float]:
    """What the training logs say under a name, in order."""
    return [entry[name] for entry in trainer.state.log_history if name in entry]
