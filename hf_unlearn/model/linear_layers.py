"""The linear layers of a causal language model, and their weights as [outputs, inputs]."""

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Linear | Conv1D]:
    """The linear layers of a model by name, without its output head, and without weights that embeddings share.

    Experts of a mixture that are kept in one tensor are no linear layers.
    """
    head = model.get_output_embeddings()
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and id(module.weight) not in embeddings
    }


def by_output(layer: nn.Linear | Conv1D) -> Tensor:
    """A view of a linear layer's weights as [outputs, inputs], the other way round in GPT-2's layers."""
    weight = layer.weight.detach()
    return weight.T if isinstance(layer, Conv1D) else weight
