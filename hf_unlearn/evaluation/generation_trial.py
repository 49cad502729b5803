"""Whether `generate` gives the tokens that a model's logits give, and of which prompts in one batch.

`generate` pads prompts on the left, which some models see (RWKV, BART's decoder), and counts positions from 0, which
others do not (RoBERTa).
"""

import enum
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from ..errors import input_error
from ..model.probe import CALL_ERRORS, ModelProbe, Trial, probe_model
from ..model.score_rows import evaluation_mode, preserve_rng_state
from ..model.sharding import reshard

_ATTRIBUTE = "_hf_unlearn_generates"  # of a model, beside its modules


class PromptBatches(enum.Enum):
    """Which prompts can be answered in one batch."""

    ANY = "any"
    EQUAL_LENGTHS = "of equal lengths"
    ONE = "one at a time"  # RWKV carries the state of the first row on to all


def prompt_batches(model: Any, autocast: Any, generation_settings: Any) -> PromptBatches:
    """Which prompts can be answered in one batch: tried once of a model, with two tokens after two short prompts.

    Args:
        model: not wrapped; every rank calls it where it is split.
        autocast: under which answers are generated.
        generation_settings: context in which the model's own settings are aside.

    Raises:
        ValueError: its `generate` gives other tokens than its logits, however it is asked.
    """
    probe = probe_model(model, model, autocast=autocast)
    known_of, known = vars(model).get(_ATTRIBUTE, (None, None))
    if known_of is probe:
        return known
    with preserve_rng_state(), evaluation_mode(model), autocast(), generation_settings(model):
        trial = Trial.of(model, model)
        batches = _tried(trial, probe)
    reshard(model)
    vars(model)[_ATTRIBUTE] = (probe, batches)
    return batches


def first_positions(mask: Tensor, probe: ModelProbe) -> dict[str, Tensor]:
    """What `generate` must be told of positions: nothing where those that it makes itself, from 0, are the model's.

    Args:
        mask: of left-padded prompts, [B, L].
        probe: of the model.
    """
    if not probe.first_position:
        return {}
    return {"position_ids": (mask.cumsum(1) - 1).clamp(min=0) + probe.first_position}


def _tried(trial: Trial, probe: ModelProbe) -> PromptBatches:
    trials = {
        PromptBatches.ANY: [trial.row, trial.row[: trial.shared]],
        PromptBatches.EQUAL_LENGTHS: [trial.row, trial.other],
        PromptBatches.ONE: [trial.row],
    }
    for batches, prompts in trials.items():
        if _generates_its_logits(trial, probe, prompts):
            return batches
    raise input_error(
        expected="a model whose generate() gives the tokens that its own logits give",
        got=f"{type(trial.unwrapped).__name__}, whose generate() fails or gives others",
        why="answers would not be the model's",
        fix="measure it with a suite that asks for no answers, or use another model",
    )


def _generates_its_logits(trial: Trial, probe: ModelProbe, prompts: Sequence[list[int]]) -> bool:
    """Whether the logits of two generated tokens are those of a forward over the prompt and the first of them."""
    longest = max(map(len, prompts))
    device = trial.unwrapped.device
    ids = torch.tensor([[trial.pad] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    settings = GenerationConfig(
        max_new_tokens=2,
        do_sample=False,
        use_cache=True,
        pad_token_id=trial.pad,
        return_dict_in_generate=True,
        output_logits=True,
    )
    inputs = {"input_ids": ids, "attention_mask": mask, **first_positions(mask, probe)}
    try:
        output = trial.unwrapped.generate(**inputs, generation_config=settings)
    except torch.OutOfMemoryError:
        raise
    except CALL_ERRORS:
        return False
    first = output.sequences[:, longest].tolist()
    rows = [[*prompt, token] for prompt, token in zip(prompts, first, strict=True)]
    right = trial.call(rows).logits
    return all(
        trial.same(output.logits[step][i], right[i, len(prompt) - 1 + step])
        for i, prompt in enumerate(prompts)
        for step in range(2)
    )
