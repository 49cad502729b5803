"""A model with adapters of transformers' own integration (`add_adapter`, `load_adapter`) as a PeftModel."""

import copy
from typing import Any

from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn
from transformers import PreTrainedModel

from ..errors import input_error

_WHY = "adapter and base model are told apart by it: in the reference, the record, and what is saved"


def as_peft_model(model: Any) -> Any:
    """A `PeftModel` around a model whose adapters transformers has put in; anything else as it is.

    Every weight stays the object that it was, with its value and whether it is trained, so that an optimizer that
    holds it goes on holding it. The model that was given becomes the base of the PeftModel.

    Raises:
        ValueError: adapters that are switched off, or of several kinds, which one PeftModel cannot hold.
    """
    if not isinstance(model, PreTrainedModel) or not model._hf_peft_config_loaded:
        return model
    configs: dict[str, Any] = dict(model.peft_config)
    active = list(model.active_adapters())
    _require_one_model(model, configs)
    weights = dict(model.named_parameters(remove_duplicate=False))
    _take_out(model)
    del model.peft_config
    model._hf_peft_config_loaded = False
    adapted: Any = None
    for name, config in configs.items():
        fresh = copy.deepcopy(config)
        fresh.task_type = config.task_type or "CAUSAL_LM"
        if isinstance(fresh, LoraConfig):
            fresh.init_lora_weights = True  # others (PiSSA) would take their product off the base weights again
        if adapted is None:
            adapted = get_peft_model(model, fresh, adapter_name=name, autocast_adapter_dtype=False)
        else:
            adapted.add_adapter(name, fresh)
        if isinstance(fresh, LoraConfig):
            fresh.init_lora_weights = config.init_lora_weights
    adapted.base_model.set_adapter(active)
    adapted.active_adapter = active[0]
    _put_back(model, weights)
    return adapted


def _require_one_model(model: PreTrainedModel, configs: dict[str, Any]) -> None:
    kinds = sorted({str(config.peft_type.value) for config in configs.values()})
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    if any(layer.disable_adapters for layer in layers):
        raise input_error(
            expected="adapters that are switched on",
            got="a model after disable_adapters()",
            why="the adapter would be neither measured nor trained",
            fix="call model.enable_adapters(), or pass the model without its adapters",
        )
    if len(kinds) > 1 or any(layer.merged for layer in layers):
        raise input_error(
            expected="adapters of one kind, not merged",
            got=f"adapters of {' and '.join(kinds)}" if len(kinds) > 1 else "merged adapters",
            why=_WHY,
            fix="keep one kind (model.delete_adapter(name)), or make the model with peft.get_peft_model",
        )


def _take_out(model: nn.Module) -> None:
    """Every layer as it was before adapters were put in."""
    taken: list[str] = []
    for name, module in list(model.named_modules()):
        if any(name.startswith(f"{outer}.") for outer in taken):
            continue
        if isinstance(module, BaseTunerLayer):
            layer = module.get_base_layer()
        elif isinstance(module, AuxiliaryTrainingWrapper):
            layer = module.original_module
        else:
            continue
        taken.append(name)
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, layer)


def _put_back(model: nn.Module, weights: dict[str, nn.Parameter]) -> None:
    """The same weights under the same names; the adapters' new ones are only their places."""
    names = dict(model.named_parameters(remove_duplicate=False))
    if names.keys() != weights.keys():
        raise input_error(
            expected="adapters that PEFT puts in as transformers did",
            got=f"{len(names.keys() ^ weights.keys())} weights under other names",
            why=_WHY,
            fix="make the model with peft.get_peft_model(model, config) instead of model.add_adapter(config)",
        )
    for name, weight in weights.items():
        owner, _, leaf = name.rpartition(".")
        model.get_submodule(owner)._parameters[leaf] = weight
