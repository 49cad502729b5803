"""What the lab's two models do, measured, and the rates they must reach. Not the package's evaluation."""

import torch
from transformers import OPTForCausalLM, PreTrainedTokenizerFast

from hf_unlearn.lab.corpus import Row
from hf_unlearn.lab.judge import answers_correctly, shows_behaviour
from hf_unlearn.lab.training import IGNORED_LABEL, collate, encode

BATCH_SIZE = 64
MAX_NEW_TOKENS = 40  # more than the longest answer of the corpus

# (name in `Lab.checks`, lowest rate, highest rate), all in [0, 1].
REQUIRED_RATES = (
    ("model_forget_behaviour", 0.95, 1.0),
    ("oracle_forget_behaviour", 0.0, 0.05),
    ("model_retain_accuracy", 0.95, 1.0),
    ("oracle_retain_accuracy", 0.95, 1.0),
)


def measure(
    name: str, model: OPTForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: dict[str, list[Row]]
) -> dict[str, float]:
    """Measure one model on the lab's four sets.

    Args:
        name: "model" or "oracle"; it starts the name of every measurement.
        model: in evaluation mode.
        tokenizer: the lab's.
        rows: the sets of `build_corpus`.

    Returns:
        `{name}_{set}_behaviour` for forget, paraphrase and holdout: the share of greedy answers that show the
        behaviour; `{name}_retain_accuracy`: the share of greedy answers that are right; `{name}_{set}_nll` for every
        set: the mean over answer tokens, `</s>` included, in nats.
    """
    measured = {}
    for key in ("forget", "paraphrase", "holdout"):
        answers = answer_greedily(model, tokenizer, [row["prompt"] for row in rows[key]])
        measured[f"{name}_{key}_behaviour"] = sum(map(shows_behaviour, answers)) / len(answers)
    answers = answer_greedily(model, tokenizer, [row["prompt"] for row in rows["retain"]])
    right = [answers_correctly(a, row["completion"]) for a, row in zip(answers, rows["retain"], strict=True)]
    measured[f"{name}_retain_accuracy"] = sum(right) / len(right)
    for key, set_rows in rows.items():
        measured[f"{name}_{key}_nll"] = answer_nll(model, tokenizer, set_rows)
    return measured


@torch.no_grad()
def answer_greedily(model: OPTForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[str]) -> list[str]:
    """The greedy continuation of each prompt, without the prompt."""
    answers = []
    for start in range(0, len(prompts), BATCH_SIZE):
        batch = tokenizer(prompts[start : start + BATCH_SIZE], padding=True, padding_side="left", return_tensors="pt")
        generated = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            do_sample=False,
            max_new_tokens=MAX_NEW_TOKENS,
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


def require_rates(checks: dict[str, float]) -> None:
    """Raise unless the two models are what a lab needs.

    Raises:
        RuntimeError: a rate of `REQUIRED_RATES` is out of its range; the message names it.
    """
    for name, lowest, highest in REQUIRED_RATES:
        if not lowest <= checks[name] <= highest:
            raise RuntimeError(
                f"The lab was built, but {name} is {checks[name]:.3f} and has to lie in [{lowest}, {highest}]. "
                "Another seed may do; if none does, the recipe in hf_unlearn/lab/training.py no longer fits this "
                "version of torch or transformers."
            )
