"""The recipes of edits_tofu.py: lists of phases, with the arguments that were found for TOFU's forget10."""

from typing import Any

from benchmarks.quality.levels import RECIPES as LOSSES


def _levels(steps: int, ramp: float = 0.5) -> dict[str, Any]:
    """The training of `unseen_level` with all weights, of another length.

    After an edit there is no ramp: a level that rises from 0 would lead the rows back to where they were.
    """
    decay = {"num_decay_steps": round(steps * 0.1), "min_lr_ratio": 0.1}
    loss = {"name": "unseen_level", "token_weight": 1.0} | ({"ramp": ramp} if ramp != 0.5 else {})
    return LOSSES["unseen_level"] | {"forget_loss": loss, "max_steps": steps, "lr_scheduler_kwargs": decay}


INFLUENCE = {"name": "influence", "factors": "kfac", "damping": 0.03, "retain_rows": 300, "share_of_level": 1.0}
REPSELECT = {"name": "repselect", "passes": 5}
DIVERGENCE = {"name": "divergence_decoding", "alpha": 2.0}
ULD = {"name": "uld", "steps": 120}
# A training that follows a suppression learns its answers.
DISTIL: dict[str, Any] = {
    "forget_loss": "distil",
    "retain_weight": 4.0,
    "retain_ratio": 2.0,
    "per_device_train_batch_size": 16,
    "learning_rate": 5e-4,
    "max_steps": 150,
}

# name -> phases
RECIPES: dict[str, list[dict[str, Any]]] = {
    "task_vector": [{"edit": {"name": "task_vector", "epochs": 2.0, "rate": 1e-3}}],
    "influence": [{"edit": INFLUENCE}],
    "influence, diagonal": [{"edit": INFLUENCE | {"factors": "diagonal", "damping": 0.1}}],
    "repselect": [{"edit": REPSELECT}],
    "null_space": [{"edit": {"name": "null_space"}}],
    "shrink_and_regrow": [{"edit": {"name": "shrink_and_regrow", "share": 0.4}}],
    "grpo": [{"edit": {"name": "grpo", "steps": 40}}],
    "quark": [{"edit": {"name": "quark", "rounds": 3}}],
    "divergence_decoding": [{"suppress": DIVERGENCE}],
    "uld": [{"suppress": ULD}],
    "harry_potter": [{"suppress": {"name": "harry_potter"}}],
    "in_context": [{"suppress": {"name": "in_context"}}],
    "prompt_guard": [{"suppress": {"name": "prompt_guard"}}],
    "steering": [{"suppress": {"name": "steering", "layer": 2, "coefficient": 80.0}}],
    "divergence_decoding, then distil": [{"suppress": DIVERGENCE}, {"train": DISTIL}],
    "uld, then distil": [{"suppress": ULD}, {"train": DISTIL}],
    "msa": [{"edit": {"name": "msa", "epochs": 5.0, "retain_epochs": 2.0, "rate": 1e-3}}],
    "rewind": [{"edit": {"name": "rewind", "epochs": 4.0, "rate": 1.5e-3}}],
    "repselect, then levels": [{"edit": REPSELECT}, {"train": _levels(300, ramp=0.0)}],
    "repselect, then levels, 200 steps": [{"edit": REPSELECT}, {"train": _levels(200, ramp=0.0)}],
    "influence, then levels, 200 steps": [{"edit": INFLUENCE}, {"train": _levels(200, ramp=0.0)}],
    "levels, 200 steps": [{"train": _levels(200)}],
}
