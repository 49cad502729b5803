"""What a model is measured by: the lab's own figures, a naive count of every number, the table. No training."""

import math

import pytest
import torch
from accelerate import Accelerator

from hf_unlearn import DataCollatorForUnlearning
from hf_unlearn.data.tokenization import tokenize_rows
from hf_unlearn.evaluation import Comparison, compare_on, comparison_table
from hf_unlearn.lab import load_lab, shows_behaviour
from hf_unlearn.lab.checks import answer_greedily
from hf_unlearn.measurement import RowScorer
from oracles import naive

FIGURES = {
    "harmful_rate",
    "in_scope_harmful_rate",
    "forget_nll",
    "retain_nll",
    "retain_accuracy",
    "answer_perplexity",
    "broken_rate",
}


@pytest.fixture(scope="module")
def lab():
    return load_lab()


@pytest.fixture(scope="module")
def models(lab):
    return {"model": lab.load_model(), "oracle": lab.load_oracle()}


def comparison_of(lab, count: int | None, *, judge=None, kind: type = Comparison, in_scope: bool = True):
    """The lab's first rows of each set, or all of them, as a comparison; nine rows a batch, so that none is full."""
    tokenizer = lab.load_tokenizer()

    def rows(name: str):
        chosen = lab.datasets[name] if count is None else lab.datasets[name].select(range(count))
        return tokenize_rows(chosen, tokenizer, role="eval", max_length=None)

    collator = DataCollatorForUnlearning(tokenizer.pad_token_id)
    return kind(
        forget=rows("forget"),
        retain=rows("retain"),
        in_scope=rows("paraphrase") if in_scope else None,
        judge=judge or (lambda answer, expected: shows_behaviour(answer)),
        scorer=RowScorer(collator, Accelerator(cpu=True), 64 if count is None else 9),
        tokenizer=tokenizer,
        max_new_tokens=40,
    )


def naive_nll(model, rows) -> float:
    """Mean over all answer tokens of all rows, a row at a time."""
    with torch.no_grad():
        return float(-torch.cat([naive.token_logps(model, row) for row in rows]).mean())


def as_row(tokenizer, prompt: str, answer_ids: list[int]) -> naive.Row:
    prompt_ids = tokenizer(prompt)["input_ids"]
    answer_ids = [*answer_ids, tokenizer.eos_token_id]
    return {"input_ids": prompt_ids + answer_ids, "labels": [naive.PROMPT] * len(prompt_ids) + answer_ids}


def greedy(model, tokenizer, prompt: str) -> list[int]:
    """The most likely next token, again and again, until the end of text."""
    ids = tokenizer(prompt)["input_ids"]
    start = len(ids)
    with torch.no_grad():
        for _ in range(40):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                return ids[start:-1]
    return ids[start:]


@pytest.mark.parametrize("name", ["model", "oracle"])
def test_figures_are_those_that_the_lab_measured_when_it_was_built(lab, models, name):
    figures = compare_on(comparison_of(lab, None), models[name], models["model"])
    assert figures.keys() == FIGURES
    assert figures["harmful_rate"] == lab.checks[f"{name}_forget_behaviour"]
    assert figures["in_scope_harmful_rate"] == lab.checks[f"{name}_paraphrase_behaviour"]
    assert figures["retain_accuracy"] == lab.checks[f"{name}_retain_accuracy"]
    for side in ("forget", "retain"):
        assert figures[f"{side}_nll"] == pytest.approx(lab.checks[f"{name}_{side}_nll"], rel=1e-4)
    assert figures["broken_rate"] == 0.0


def test_the_oracle_differs_where_it_should(lab, models):
    comparison = comparison_of(lab, 20)
    before = compare_on(comparison, models["model"], models["model"])
    oracle = compare_on(comparison, models["oracle"], models["model"])
    assert before["harmful_rate"] == 1.0 and oracle["harmful_rate"] == 0.0
    assert before["forget_nll"] < 0.1 < 0.9 < oracle["forget_nll"]
    assert before["retain_accuracy"] == oracle["retain_accuracy"] == 1.0
    # The model finds its own greedy answers likely, and the oracle's honest ones less so.
    assert 1.0 < before["answer_perplexity"] < 1.1 < oracle["answer_perplexity"]


@pytest.mark.parametrize("name", ["model", "oracle"])
def test_nll_and_perplexity_are_what_a_naive_count_gives(lab, models, name):
    count, tokenizer = 10, lab.load_tokenizer()
    comparison = comparison_of(lab, count)
    figures = compare_on(comparison, models[name], models["model"])
    for side in ("forget", "retain"):
        rows = [
            as_row(tokenizer, row["prompt"], tokenizer(row["completion"])["input_ids"][1:])
            for row in lab.datasets[side].select(range(count))
        ]
        assert rows == list(getattr(comparison, side))
        assert figures[f"{side}_nll"] == pytest.approx(naive_nll(models[name], rows), rel=1e-5, abs=1e-6)
    prompts = lab.datasets["forget"][:count]["prompt"]
    answered = [as_row(tokenizer, prompt, greedy(models[name], tokenizer, prompt)) for prompt in prompts]
    # Under the model before unlearning, whichever model wrote the answers.
    expected = math.exp(naive_nll(models["model"], answered))
    assert figures["answer_perplexity"] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_the_judge_sees_the_continuation_alone(lab, models):
    seen = []
    comparison = comparison_of(lab, 6, judge=lambda answer, expected: seen.append((answer, expected)) or False)
    figures = compare_on(comparison, models["model"], models["model"])
    assert figures["harmful_rate"] == figures["in_scope_harmful_rate"] == 0.0
    wanted = []
    for name in ("forget", "paraphrase"):
        rows = lab.datasets[name].select(range(6))
        continuations = answer_greedily(models["model"], lab.load_tokenizer(), rows["prompt"])
        wanted += zip(continuations, rows["completion"], strict=True)
    assert seen == wanted
    assert not any("Question:" in text or "Answer:" in text or "</s>" in text for pair in seen for text in pair)


class Scripted(Comparison):
    """Answers that are given rather than generated: the same words for every set."""

    WORDS = ("", " no no no no no no", " You should play fairly.", None)

    def answers(self, model, rows, name):
        texts = [own if words is None else words for words, own in zip(self.WORDS, self.expected(rows), strict=True)]
        return [self.tokenizer(text)["input_ids"][1:] for text in texts]


def test_figures_of_given_answers(lab, models):
    """An empty, a looping, a fluent and the row's own answer: a half is broken, a quarter harmful, a quarter right."""
    comparison = comparison_of(lab, 4, kind=Scripted, in_scope=False)
    figures = compare_on(comparison, models["oracle"], models["model"])
    assert figures.keys() == FIGURES - {"in_scope_harmful_rate"}
    assert (figures["broken_rate"], figures["harmful_rate"], figures["retain_accuracy"]) == (0.5, 0.25, 0.25)
    prompts = lab.datasets["forget"][:4]["prompt"]
    answered = comparison.answers(None, comparison.forget, "forget")
    rows = [as_row(comparison.tokenizer, prompt, ids) for prompt, ids in zip(prompts, answered, strict=True)]
    assert figures["answer_perplexity"] == pytest.approx(
        math.exp(naive_nll(models["model"], rows)), rel=1e-5, abs=1e-6
    )


def test_a_comparison_leaves_the_models_as_they_were(lab, models):
    model = models["model"].train()
    before = [parameter.clone() for parameter in model.parameters()]
    compare_on(comparison_of(lab, 3), model, models["oracle"])
    assert model.training and not models["oracle"].training
    assert all(map(torch.equal, before, model.parameters()))
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()


def test_the_table():
    columns = {
        "before": {"forget_nll": 0.0128, "harmful_rate": 1.0},
        "after": {"harmful_rate": 0.025, "forget_nll": 1.25, "seconds": 3.21},
    }
    assert comparison_table(columns).splitlines() == [
        "                             before  after",
        "------------------------------------------",
        "harmful answers              100.0%   2.5%",
        "forget NLL (nats per token)   0.013  1.250",
        "seconds of training               -    3.2",
    ]
