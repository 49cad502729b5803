"""MUSE's figures by loops: as its published code computes them, and as the suite defines them. Not the package's code.

One text at a time, greedy answers token by token, ROUGE by a table, the AUC by pairs. A tokenizer encodes and decodes,
a model gives logits; nothing of hf_unlearn is imported.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch

STOPS = ("\n\n", "\nQuestion", "Question:")


def greedy(model: Any, prompt: Sequence[int], count: int, end: int) -> list[int]:
    """The most likely next token, at most `count` times, without the end of text."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            if token == end:
                break
            ids.append(token)
    return ids[len(prompt) :]


def rouge_l_f1(answer: str, reference: str) -> float:
    """2 P R / (P + R) of the longest common subsequence of words of a to z and digits, none of them stemmed."""
    given, wanted = (re.findall("[a-z0-9]+", text.lower()) for text in (answer, reference))
    longest = [[0] * (len(given) + 1) for _ in range(len(wanted) + 1)]
    for i, left in enumerate(wanted):
        for j, right in enumerate(given):
            longest[i + 1][j + 1] = longest[i][j] + 1 if left == right else max(longest[i][j + 1], longest[i + 1][j])
    if not longest[-1][-1]:
        return 0.0
    precision, recall = longest[-1][-1] / len(given), longest[-1][-1] / len(wanted)
    return 2 * precision * recall / (precision + recall)


def average(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def before_stops(text: str) -> str:
    """The text before the first of the stops that it has."""
    places = [text.find(stop) for stop in STOPS if stop in text]
    return text[: min(places)] if places else text


def examples(rows: Sequence[dict[str, str]]) -> str:
    return "".join(f"Question: {row['question']}\nAnswer: {row['answer']}\n\n" for row in rows)


def published_verbatim(model: Any, tokenizer: Any, rows: Sequence[dict[str, str]], count: int) -> float:
    """Percent; the reference has `count` tokens with its beginning of text, the answer `count` without."""
    scores = []
    for row in rows:
        answer = greedy(model, tokenizer(row["prompt"])["input_ids"], count, tokenizer.eos_token_id)
        reference = tokenizer(row["gt"])["input_ids"][:count]
        scores.append(rouge_l_f1(tokenizer.decode(answer), tokenizer.decode(reference, skip_special_tokens=True)))
    return 100 * average(scores)


def verbatim(model: Any, tokenizer: Any, rows: Sequence[dict[str, str]], count: int) -> float:
    """A share; answer and reference have the same number of tokens, at most `count`, with the space in front."""
    scores = []
    for row in rows:
        reference = tokenizer(" " + row["gt"], add_special_tokens=False)["input_ids"][:count]
        answer = greedy(model, tokenizer(row["prompt"])["input_ids"], count, tokenizer.eos_token_id)
        scores.append(rouge_l_f1(tokenizer.decode(answer[: len(reference)]), tokenizer.decode(reference)))
    return average(scores)


def knowledge(
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, str]],
    shown: Sequence[dict[str, str]],
    count: int,
    *,
    space: str = "",
) -> float:
    """A share; `space` is what the published code has behind "Answer:"."""
    scores = []
    for row in rows:
        prompt = f"{examples(shown)}Question: {row['question']}\nAnswer:{space}"
        answer = greedy(model, tokenizer(prompt)["input_ids"], count, tokenizer.eos_token_id)
        scores.append(rouge_l_f1(before_stops(tokenizer.decode(answer)), row["answer"]))
    return average(scores)


def min_k(model: Any, tokenizer: Any, text: str, share: float = 0.4) -> float:
    """Mean of the lowest int(share * n) log-probabilities of all tokens but the first."""
    ids = tokenizer(text)["input_ids"]
    with torch.no_grad():
        logps = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    own = sorted(float(logps[place, token]) for place, token in enumerate(ids[1:]))
    return average(own[: int(len(own) * share)])


def holdout_auc(score: Callable[[str], float], forget: Sequence[str], holdout: Sequence[str]) -> float:
    """The share of pairs in which the holdout text scores higher, ties half: the published code's AUC."""
    pairs = [(score(text), score(other)) for text in forget for other in holdout]
    return average([(own < other) + (own == other) / 2 for own, other in pairs])
