"""Model cards fit for the Hub: metadata that it refuses is taken out. No card is written here."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import Trainer


def drop_local_base(trainer: Trainer, folder: str) -> None:
    """Take a base model that is no repository of the Hub (a local folder, or no name at all) out of a card.

    PEFT writes the path of a local base into `base_model` and into a tag. The Hub rejects such a card, and the path
    says where on whose machine the model lay.
    """
    card_path = Path(folder) / "README.md"
    if not trainer.is_world_process_zero() or not card_path.is_file():
        return
    card = ModelCard.load(card_path, ignore_metadata_errors=True)
    names = card.data.base_model if isinstance(card.data.base_model, list) else [card.data.base_model]
    local = [name for name in names if name is not None and not _is_repository(name)]
    if not local:
        return
    card.data.base_model = None
    card.data.tags = [tag for tag in card.data.tags or [] if not _names(tag, local)]
    text = card.content
    for name in filter(None, local):
        text = text.replace(name, "a local model")
    ModelCard(text).save(card_path)


def _is_repository(name: Any) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not Path(name).exists()


def _names(tag: str, local: list[str]) -> bool:
    return tag.startswith("base_model:") and tag.rpartition(":")[2] in local
