"""Small models of the same vocabulary: made of a model's configuration, trained on rows, asked for logits."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..data.batch import indexed
from ..data.collator import DataCollatorForUnlearning
from ..data.collator import positions as padded_positions
from ..data.tokenized_row import TokenizedRow
from ..edits import EditData
from ..errors import input_error
from ..model.fine_tuning import fine_tune
from ..model.head_query import HeadQuery, LogitCache
from ..model.loading import loading
from ..model.output_head import output_head
from ..model.reference_logits import DenseLogits
from ..model.score_rows import evaluation_mode
from ..model.suppressed_forward import Text


def small_model(model: PreTrainedModel, layers: int, *, seed: int, of_its_weights: bool = False) -> PreTrainedModel:
    """A model of the same kind with its first layers alone.

    Args:
        model: whose configuration it has.
        layers: decoder blocks; no more than the model has.
        seed: of fresh weights.
        of_its_weights: embeddings, the first blocks, norm and head are copies of the model's own.
    """
    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    layers = min(layers, text.num_hidden_layers)
    text.num_hidden_layers = layers
    for name in ("layer_types", "mlp_layer_types"):  # one entry a layer
        kinds = getattr(text, name, None)
        if isinstance(kinds, list):
            setattr(text, name, kinds[:layers])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        small = type(model)(config)
    if of_its_weights:
        own = small.state_dict()
        small.load_state_dict({name: weight for name, weight in model.state_dict().items() if name in own})
    return small.float().to(model.device)


def adapter_inside(model: PreTrainedModel) -> str | None:
    """Why a model's weights are not all that it answers with, as the end of a sentence; None where they are."""
    inside = any(isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper) for module in model.modules())
    return "an adapter is part of the model, whose weights are copied; merge it first" if inside else None


def trained(small: PreTrainedModel, rows: Sequence[TokenizedRow], data: EditData, **budget: Any) -> PreTrainedModel:
    """A small model after a plain fine-tuning on rows, frozen.

    Args:
        small: trained in place.
        rows: tokenised.
        data: seed and collator.
        budget: `steps`, `batch` and `rate` of `fine_tune`.
    """
    small.train()
    for _ in fine_tune(small, rows, data.questioner.collator, seed=data.seed, **budget):
        pass
    return frozen(small)


def frozen(model: PreTrainedModel) -> PreTrainedModel:
    """The model without gradients, in evaluation mode."""
    model.zero_grad(set_to_none=True)
    return model.requires_grad_(False).eval()


def named_model(name: str, model: PreTrainedModel) -> PreTrainedModel:
    """A small model by its folder or id, frozen on the model's device.

    Raises:
        ValueError: it has another vocabulary.
    """
    with loading(name):
        small = AutoModelForCausalLM.from_pretrained(name, dtype="auto")
    sizes = [one.config.get_text_config().vocab_size for one in (small, model)]
    if sizes[0] != sizes[1]:
        raise input_error(
            expected=f"small models of the model's vocabulary: {sizes[1]} tokens",
            got=f"one of {sizes[0]}",
            why="their logits are taken token by token",
            fix="name a smaller model of the same family and tokenizer",
        )
    return frozen(small.to(model.device))


def next_logits(small: PreTrainedModel, text: Text, positions: Tensor) -> Tensor:
    """Log-probs of the token after positions of texts laid flat, [T, V], fp32; of the device of the positions.

    The whole text is read anew, without a cache: no state is kept between the calls of the model that is suppressed.
    """
    if small.device != text.ids.device:
        small.to(text.ids.device)
    inputs = {"input_ids": text.ids, "attention_mask": text.mask}
    if not bool(text.mask[:, 0].all()):  # padded on the left
        inputs["position_ids"] = padded_positions(text.mask)
    query = HeadQuery(
        positions, text.ids.flatten()[positions.to(text.ids.device)], compute_logps=False, keep=LogitCache.LOGITS
    )
    with evaluation_mode(small):
        result, _ = output_head(small).read(small, inputs, query)
    assert isinstance(result.logits, DenseLogits) and result.logits.tensor is not None
    return result.logits.tensor.float().log_softmax(-1).to(positions.device)


def balanced(rows: Sequence[Sequence[TokenizedRow]], size: int, seed: int) -> Any:
    """Endless batches that take as many rows of each set, each set in an order of its own."""
    generator = torch.Generator().manual_seed(seed)
    orders: list[list[int]] = [[] for _ in rows]
    while True:
        batch: list[list[TokenizedRow]] = []
        for own, order in zip(rows, orders, strict=True):
            count = min(size, len(own))
            if len(order) < count:
                order.extend(torch.randperm(len(own), generator=generator).tolist())
            batch.append([own[order.pop(0)] for _ in range(count)])
        yield batch


def collated(collator: DataCollatorForUnlearning, rows: Sequence[TokenizedRow], device: torch.device) -> Any:
    """Rows as one indexed batch on a device."""
    return {name: value.to(device) for name, value in indexed(collator.collate_rows(list(rows))).items()}
