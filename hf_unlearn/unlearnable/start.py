"""The state of a training before its first step: weights (theta_0) by hash and as a file, and the random state."""

import hashlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import input_error
from ..model.fingerprints import tensor_bytes
from ..model.sharding import full_state_dict, is_sharded
from ..results.files import atomic_write
from .log import TrainingLog
from .places import random_state, start_weights


def read_start(model: nn.Module, *, keep: bool) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Hashes of the weights, and the trained weights themselves where they are to be kept.

    All ranks call it where the model is split over them.

    Args:
        model: unwrapped.
        keep: whether to return the trained weights.

    Returns:
        SHA-256 of all weights ("sha256"), of the trained ("trained") and of the frozen ones ("frozen"); the trained
        weights by name.
    """
    trained = {name for name, weight in model.named_parameters(remove_duplicate=False) if weight.requires_grad}
    frozen = {name for name, weight in model.named_parameters(remove_duplicate=False) if not weight.requires_grad}
    once = {name for name, _ in model.named_parameters()}  # of weights that are tied, one name
    digests = {name: hashlib.sha256() for name in ("sha256", "trained", "frozen")}
    kept: dict[str, Tensor] = {}
    split = is_sharded(model)
    for name, tensor in full_state_dict(model):
        for part in tensor_bytes(name, tensor):
            digests["sha256"].update(part)
            if name in trained:
                digests["trained"].update(part)
            elif name in frozen:
                digests["frozen"].update(part)
        if keep and name in trained and name in once:
            # Of a model that is split it is whole only now.
            kept[name] = tensor.cpu().clone() if split else tensor.contiguous()
    return {name: digest.hexdigest() for name, digest in digests.items()}, kept


def save_start(folder: Path, kept: dict[str, Tensor]) -> None:
    """Write the trained weights before the first step."""
    if kept:
        atomic_write(start_weights(folder), lambda path: save_file(kept, path))


def save_random_state(folder: Path, rank: int) -> None:
    """Write the state of this process's random number generators."""
    numpy_state: Any = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (numpy_state[0], numpy_state[1].tolist(), *numpy_state[2:]),
        "cpu": torch.random.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    atomic_write(random_state(folder, rank), lambda path: torch.save(state, path))


def load_random_state(folder: Path, rank: int) -> None:
    """Set this process's random number generators to what they were before the first step.

    Raises:
        ValueError: the file is not there.
    """
    file = random_state(folder, rank)
    if not file.is_file():
        raise input_error(
            expected=f"{file.parent.name}/{file.name} in the folder of the log",
            got="none",
            why="dropout would draw other numbers than in the training that was logged",
            fix="take it from a copy",
        )
    state = torch.load(file, weights_only=True)
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.random.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def require_start(model: nn.Module, log: TrainingLog, *, from_start: bool) -> None:
    """Bring a fresh model to the start of a logged training, or raise where it cannot have begun there.

    Args:
        model: unwrapped, before the first step; or with the weights of a checkpoint.
        log: of the training.
        from_start: whether it is before the first step. The trained weights are then compared too, and taken from the
            log's folder where they differ.

    Raises:
        ValueError: other frozen weights; or other trained ones of which the log has only the hash.
    """
    then = log.header["start"]
    now, _ = read_start(model, keep=False)
    if now["frozen"] != then["frozen"]:
        raise _another_start("frozen weights", "load the base model that it was trained from, at the same revision")
    if not from_start or now["trained"] == then["trained"]:
        return
    if log.start_weights is None:
        raise _another_start(
            "trained weights, of which the log has only the hash (keep_start='hash')",
            "make the trainer by the script that made it then, with the same seed before the model is made",
        )
    stored = load_file(log.start_weights)
    own = dict(model.named_parameters())
    if {name: weight.shape for name, weight in own.items() if weight.requires_grad} != {
        name: weight.shape for name, weight in stored.items()
    }:
        raise _another_start("names or shapes of trained weights", "use the same architecture and adapter")
    with torch.no_grad():
        for name, weight in stored.items():
            own[name].copy_(weight)
    if read_start(model, keep=False)[0]["trained"] != then["trained"]:
        raise _another_start("weights in its file, which was changed", f"take {log.start_weights.name} from a copy")


def _another_start(got: str, fix: str) -> ValueError:
    return input_error(
        expected="the weights from which the logged training began",
        got=f"other {got}",
        why="a replay from other weights is another training",
        fix=fix,
    )
