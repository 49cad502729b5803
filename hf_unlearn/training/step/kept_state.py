"""The state of step wrappers and weightings in checkpoints: what a resumed run could not make again."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ...errors import input_error
from ...steps import KeepsState
from ...steps.base import State
from ...steps.weighting import Fixed
from ..method_specs import method_to_dict
from ..methods import Methods

# In a folder of its own: some loaders take every .safetensors file beside a model for its weights.
STATE_FOLDER = "unlearning"
STATE_FILE = f"{STATE_FOLDER}/state.safetensors"
_PLAIN = {"step_wrappers": "[]", "weighting": json.dumps(method_to_dict(Fixed()))}


def save_state(folder: str, methods: Methods, retain_weight: float, states: Mapping[str, State]) -> None:
    """Write w_r and the state of the wrappers that keep one; nothing for a run without wrappers and weighting.

    Args:
        folder: of the checkpoint.
        methods: of the run, which a resumed run must share.
        retain_weight: w_r of the next step.
        states: by wrapper.
    """
    made_with = _made_with(methods)
    if made_with == _PLAIN:
        return
    tensors = {"retain_weight": torch.tensor(retain_weight, dtype=torch.float64)}
    for wrapper in methods.wrappers:
        if isinstance(wrapper, KeepsState):
            for name, parts in states[wrapper.name].items():
                tensors |= {f"{wrapper.name}.{name}.{i}": part.contiguous() for i, part in enumerate(parts)}
    path = Path(folder) / STATE_FILE
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, path, metadata=made_with)


def load_state(folder: str, methods: Methods, states: Mapping[str, State]) -> float | None:
    """Read what `save_state` wrote into `states`, each tensor to where the present one is.

    Returns:
        w_r of the next step, None where the checkpoint has none.

    Raises:
        ValueError: the checkpoint is of a run with other wrappers or another weighting.
    """
    path = Path(folder) / STATE_FILE
    if not path.is_file():
        # Trainer's own checkpoints, and those of save_only_model, are of plain runs for all that they tell.
        _require_made_with(methods, _PLAIN)
        return None
    with safe_open(path, framework="pt") as stored:
        _require_made_with(methods, stored.metadata())
        for wrapper in methods.wrappers:
            if isinstance(wrapper, KeepsState):
                for name, parts in states[wrapper.name].items():
                    parts[:] = [
                        stored.get_tensor(f"{wrapper.name}.{name}.{i}").to(part.device) for i, part in enumerate(parts)
                    ]
        return float(stored.get_tensor("retain_weight"))


def _made_with(methods: Methods) -> dict[str, str]:
    """What a checkpoint says of the run that wrote it."""
    wrappers = sorted((method_to_dict(wrapper) for wrapper in methods.wrappers), key=lambda wrapper: wrapper["name"])
    return {"step_wrappers": json.dumps(wrappers), "weighting": json.dumps(method_to_dict(methods.weighting))}


def _require_made_with(methods: Methods, written: Mapping[str, str]) -> None:
    for argument, present in _made_with(methods).items():
        if written[argument] != present:
            raise input_error(
                expected=f"a checkpoint of a run with {argument}: {present}",
                got=f"one of a run with {argument}: {written[argument]}",
                why="the run would go on as another one",
                fix="resume with the arguments of the run that wrote it, or start anew from its model",
            )
