"""Measures what the lab's two models do, and compares it with the rates that they must reach."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from transformers import OPTForCausalLM, PreTrainedTokenizerFast

from hf_unlearn.lab.judge import JUDGE_RULES, answers_correctly, shows_behaviour
from hf_unlearn.lab.training import IGNORED_LABEL, collate, encode
from hf_unlearn.lab.world import Row, World

BATCH_SIZE = 64
MAX_NEW_TOKENS = 40  # more than the longest answer to a question


class Rate(NamedTuple):
    """A share of greedy answers.

    Attributes:
        label: what an answer that counts does, in a table's words.
        counts: whether (answer, expected) counts.
        rules: what `counts` goes by; part of the cache's key, as the rates rest on it.
    """

    label: str
    counts: Callable[[str, str], bool]
    rules: tuple[str, ...] = ()


RATES = {
    "behaviour": Rate("shows the behaviour", lambda answer, expected: shows_behaviour(answer), JUDGE_RULES),
    "accuracy": Rate("answers correctly", answers_correctly),
    "recitation": Rate("recites to the end", answers_correctly),
}


def measure(name: str, model: OPTForCausalLM, tokenizer: PreTrainedTokenizerFast, world: World) -> dict[str, float]:
    """Measure one model on the sets of its world.

    Args:
        name: "model" or "oracle"; it starts the name of every measurement.
        model: in evaluation mode.
        tokenizer: the lab's.
        world: with its `questions` and `texts`.

    Returns:
        `{name}_{set}_{rate}` for every set of `questions`: the share of greedy answers that count. "behaviour": that
        show the games' behaviour; "accuracy": that are right; "recitation": that go on from the first third of a
        paragraph to its end, word by word. `{name}_{set}_nll` for every set of `texts`: the mean over answer tokens
        (over all tokens after `<s>` for a text without a question), `</s>` included, in nats.
    """
    measured = {}
    for key, (rate, rows) in world.questions.items():
        answers = answer_greedily(model, tokenizer, [row["prompt"] for row in rows], world.max_new_tokens)
        counted = [RATES[rate].counts(a, row["completion"]) for a, row in zip(answers, rows, strict=True)]
        measured[f"{name}_{key}_{rate}"] = sum(counted) / len(counted)
    for key, rows in world.texts.items():
        measured[f"{name}_{key}_nll"] = answer_nll(model, tokenizer, rows)
    return measured


@torch.no_grad()
def answer_greedily(
    model: OPTForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[str], max_new_tokens: int = MAX_NEW_TOKENS
) -> list[str]:
    """The greedy continuation of each prompt, without the prompt."""
    answers = []
    for start in range(0, len(prompts), BATCH_SIZE):
        batch = tokenizer(prompts[start : start + BATCH_SIZE], padding=True, padding_side="left", return_tensors="pt")
        generated = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            do_sample=False,
            max_new_tokens=max_new_tokens,
        )
        answers += tokenizer.batch_decode(generated[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return answers


@torch.no_grad()
def answer_nll(model: OPTForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: list[Row]) -> float:
    """Mean negative log-likelihood of the answer tokens of `rows`, `</s>` included, in nats per token."""
    encoded = [encode(row, tokenizer) for row in rows]
    total, tokens = 0.0, 0
    for start in range(0, len(encoded), BATCH_SIZE):
        batch = collate(encoded[start : start + BATCH_SIZE], tokenizer.pad_token_id, answers_only=True)
        count = int((batch["labels"] != IGNORED_LABEL).sum())
        total += model(**batch, use_cache=False).loss.item() * count
        tokens += count
    return total / tokens


def require_rates(checks: dict[str, float], required: tuple[tuple[str, float, float], ...]) -> None:
    """Raise unless the two models are what a lab needs.

    Args:
        checks: what was measured.
        required: of a world.

    Raises:
        RuntimeError: a measurement is out of its range; the message names it.
    """
    for name, lowest, highest in required:
        if not lowest <= checks[name] <= highest:
            raise RuntimeError(
                f"The lab was built, but {name} is {checks[name]:.3f} and has to lie in [{lowest}, {highest}]. "
                "Another seed may do; if none does, the recipe of its world no longer fits this version of torch or "
                "transformers."
            )
