"""Models that cannot be the reference of a run: of another kind or size, or a checkpoint of the run itself."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PeftType, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from torch import Tensor, nn

from ...data.answer_positions import AnswerIndex
from ...data.roles import Role
from ...errors import input_error
from ...losses.base import Loss, Needs
from ...model.fingerprints import hash_samples
from ...model.output_head import output_head
from ...model.suppressed_forward import suppression_identity
from ...results.record import RECORD_FILE, load_record

_AGAIN = "pass the model that the run began with, and resume_from_checkpoint"


def require_alike(model: Any, ref_model: Any, needs: Needs) -> None:
    """Raise for a reference whose distributions or hidden states have another size than the model's.

    Args:
        model: that unlearns, unwrapped.
        ref_model: given by the user.
        needs: what the losses compare.
    """
    sizes = {"rows of the vocabulary": [output_head(one).vocabulary for one in (model, ref_model)]}
    if needs.reference_hidden:
        configs = [one.config.get_text_config() for one in (model, ref_model)]
        sizes["hidden size"] = [config.hidden_size for config in configs]
        sizes["layers"] = [config.num_hidden_layers for config in configs]
    for size, (own, given) in sizes.items():
        if own != given:
            raise input_error(
                expected=f"ref_model to have the model's {size}: {own}",
                got=str(given),
                why="token by token the two would not be comparable",
                fix="leave ref_model out, or pass the model before unlearning"
                + (f" after resize_token_embeddings({own})" if size.startswith("rows") else ""),
            )


def require_same_rows(role: Role, index: AnswerIndex, lengths: Sequence[int]) -> None:
    """Raise for rows of a batch whose answers are not as long as those that were computed before training.

    Args:
        role: of the rows.
        index: of the batch.
        lengths: answer tokens of every row of the role's set.
    """
    rows = index.row_slice(role)
    if [lengths[i] for i in index.row_numbers[rows]] != list(index.host_lengths[rows]):
        raise input_error(
            expected=f"the {role.name.lower()} rows whose reference was computed before training",
            got="rows of other lengths",
            why="what belongs to other tokens would be taken for the reference's",
            fix="use the package's collator and leave the data as the trainer got it, or set reference='copy'",
        )


def require_given(terms: Sequence[Loss], reference: Any, *, given: bool, sharded: bool) -> None:
    """Raise for a loss that would compare the model with itself, and for a suppressed reference that would be split.

    Args:
        terms: of the objective.
        reference: the model that is the reference, unwrapped.
        given: the user passed it as ref_model.
        sharded: parameters are split over ranks.
    """
    alone = [term.name for term in terms if term.of_given_reference and not given]
    if alone:
        raise input_error(
            expected=f"ref_model, for {alone[0]}",
            got="no ref_model",
            why="the model would be taught to answer as it does already",
            fix="pass a model that answers as this one is to: hf_unlearn.suppression.suppress(..., a copy, ...)",
        )
    if sharded and suppression_identity(reference) is not None:
        raise input_error(
            expected="a ref_model that every rank holds whole, as one whose answers are suppressed has to be",
            got="ZeRO-3 or FSDP, which split it",
            why="ranks would have to ask the suppressor in step with the gathering of weights",
            fix="train under DDP or ZeRO-1/2, or with an adapter",
        )


def describe_start(model: nn.Module, ref_model: nn.Module | None) -> dict[str, str]:
    """Hashes of the weights before the first step: "model", and "reference" where it was given.

    None of weights that are split over ranks. Of adapters only what decides their output: the first factor of LoRA,
    and all of other kinds, start at random.
    """
    models = {"model": model} | ({} if ref_model is None else {"reference": ref_model})
    hashes = {name: hash_samples(_deciding(one)) for name, one in models.items()}
    # What suppresses a reference's answers decides them as its weights do.
    around = {name: suppression_identity(one) or "" for name, one in models.items()}
    return {name: digest + around[name] for name, digest in hashes.items() if digest is not None}


def _deciding(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    lora = isinstance(model, PeftModel) and all(
        model.peft_config[name].peft_type is PeftType.LORA for name in model.active_adapters
    )
    for name, weight in model.named_parameters():
        if not isinstance(model, PeftModel) or (
            not ("lora_A" in name or "lora_embedding_A" in name) if lora else not weight.requires_grad
        ):
            yield name, weight


def require_start(
    checkpoint: str | os.PathLike[str], model: Any, start: dict[str, str], needs: Needs, *, given: bool, levels: bool
) -> None:
    """Raise where a resumed run would take another model for the one before unlearning than it did when it began.

    Args:
        checkpoint: folder that the run goes on from.
        model: as the trainer got it.
        start: hashes of "model" and "reference", as `describe_start` gives them; empty where they are not known.
        needs: what the losses ask of the reference.
        given: the user passed a ref_model.
        levels: a row bound or a stop rule is measured on the model before unlearning.
    """
    if not (needs.reference or levels):
        return
    folder = Path(checkpoint)
    known = load_record(folder).model.start if (folder / RECORD_FILE).is_file() else {}
    other = [name for name in ("model", "reference") if name in known and known[name] != start.get(name, known[name])]
    moved = "model" in other or _is_adapter_of(model, folder) or _was_loaded_from(model, folder)
    reference = "reference" in other if given else moved
    if needs.reference and reference:
        raise input_error(
            expected="the model that the run began with, beside resume_from_checkpoint",
            got="another ref_model" if given else "a model with other weights, a checkpoint of the run perhaps",
            why="it would be taken for the model before unlearning: the losses would start again from zero",
            fix=f"{_AGAIN}, or pass the model before unlearning as ref_model",
        )
    if levels and moved:
        raise input_error(
            expected="the model that the run began with, beside resume_from_checkpoint",
            got="a model with other weights, a checkpoint of the run perhaps",
            why="the row bound or the stop rules would be measured on it",
            fix=_AGAIN,
        )


def _was_loaded_from(model: Any, folder: Path) -> bool:
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    name: Any = getattr(base.config, "_name_or_path", None)
    return bool(name) and Path(name).is_dir() and Path(name).resolve() == folder.resolve()


def _is_adapter_of(model: Any, folder: Path) -> bool:
    """Whether a model's adapter is the one that a checkpoint holds."""
    file = folder / SAFETENSORS_WEIGHTS_NAME
    if not isinstance(model, PeftModel) or not file.is_file():
        return False
    kept = load_file(file)
    own = get_peft_model_state_dict(model, adapter_name=model.active_adapters[0], save_embedding_layers=False)
    shared = own.keys() & kept.keys()
    return bool(shared) and all(torch.equal(own[name].cpu(), kept[name]) for name in shared)
