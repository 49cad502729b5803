"""Influence and gradient norms against loops over whole gradients; the model afterwards, byte for byte."""

import copy
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from fixtures.models import FORGET, RETAIN, perturbed, tiny_model, tiny_tokenizer
from fixtures.tokenizer import CHAT_TEMPLATE
from hf_unlearn.data.tokenization import tokenize_rows
from hf_unlearn.model.influence import _adapter, influence_scores
from hf_unlearn.model.row_gradients import eval_mode_with_grad, row_gradient_norms

FORGOTTEN, KEPT = FORGET[:4], RETAIN[:6]


def tokens(rows: list[dict[str, str]]) -> list[dict[str, list[int]]]:
    return list(tokenize_rows(rows, tiny_tokenizer(), set_name="forget", max_length=None))


def naive_gradients(model: Any, row: dict[str, list[int]]) -> tuple[dict[str, torch.Tensor], int]:
    """Gradient of a row's mean NLL by parameter, written out token by token, and the row's answer tokens."""
    model = copy.deepcopy(model).eval()
    model.zero_grad()
    logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0]
    losses = [
        torch.logsumexp(logits[t], -1) - logits[t, label] for t, label in enumerate(row["labels"][1:]) if label != -100
    ]
    (sum(losses) / len(losses)).backward()
    return {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}, len(losses)


def naive_set_gradient(model: Any, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Gradient of the mean over all answer tokens of a set."""
    found = [naive_gradients(model, row) for row in rows]
    total = sum(count for _, count in found)
    return {name: sum(each[name] * count / total for each, count in found) for name in found[0][0]}


def dot(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    assert left.keys() == right.keys()
    return sum(float((left[name] * right[name]).sum()) for name in left)


def naive_scores(model: Any, project: Callable[..., Any] = lambda gradients: gradients) -> dict[str, np.ndarray]:
    target = project(naive_set_gradient(model, tokens(FORGOTTEN)))
    rows = [project(naive_gradients(model, row)[0]) for row in tokens(KEPT)]
    dots = np.array([dot(row, target) for row in rows])
    lengths = np.array([dot(row, row) ** 0.5 * dot(target, target) ** 0.5 for row in rows])
    return {"dot": dots, "cosine": dots / lengths}


def with_adapter(dropout: float = 0.0) -> PeftModel:
    """A PeftModel whose adapter has moved, so that the gradients of A are not zero either."""
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], lora_dropout=dropout)
    return perturbed(get_peft_model(tiny_model(), config), scale=0.1)


def state(model: nn.Module) -> dict[str, Any]:
    """All that a call could leave behind."""
    return {
        "weights": {name: value.detach().numpy().tobytes() for name, value in model.state_dict().items()},
        "parameters": [(name, id(p), p.requires_grad, p.grad) for name, p in model.named_parameters()],
        "modules": [(name, id(module), module.training) for name, module in model.named_modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "names": sorted(vars(model)),
        "config": model.config.to_dict(),
        "random": torch.get_rng_state().numpy().tobytes(),
    }


@pytest.mark.parametrize("kind", ["cosine", "dot"])
def test_scores_with_an_adapter_are_those_of_its_gradients(kind: Any) -> None:
    model = with_adapter()
    expected = naive_scores(model)[kind]
    assert np.ptp(expected) > 0.01 * np.abs(expected).max() > 0
    found = influence_scores(model, tiny_tokenizer(), FORGOTTEN, Dataset.from_list(KEPT), kind=kind)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["cosine", "dot"])
@pytest.mark.parametrize("name", ["llama", "opt"])
def test_scores_without_an_adapter_are_those_of_projected_gradients(name: str, kind: Any) -> None:
    model = tiny_model(name)
    with eval_mode_with_grad(model), _adapter(model, 3, 7):
        draws = {n.split(".lora_A.")[0]: p.detach().double() for n, p in model.named_parameters() if ".lora_A." in n}
    assert len(draws) == (14 if name == "llama" else 12)  # every linear layer of both blocks, the head left out

    def project(gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {layer: gradients[f"{layer}.weight"] @ draw.T for layer, draw in draws.items()}

    expected = naive_scores(model, project)[kind]
    assert np.ptp(expected) > 0.01 * np.abs(expected).max() > 0
    found = influence_scores(model, tiny_tokenizer(), FORGOTTEN, KEPT, rank=3, kind=kind, seed=7)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_the_projection_estimates_whole_gradients() -> None:
    model = tiny_model()
    layers = [name for name, module in model.model.named_modules() if isinstance(module, nn.Linear)]
    whole = naive_scores(model, lambda gradients: {name: gradients[f"model.{name}.weight"] for name in layers})
    found = influence_scores(model, tiny_tokenizer(), FORGOTTEN, KEPT, rank=2000, kind="dot")
    np.testing.assert_allclose(found, whole["dot"], atol=0.1 * np.abs(whole["dot"]).max())


def test_a_forget_row_is_its_own_nearest() -> None:
    found = influence_scores(tiny_model(), tiny_tokenizer(), FORGOTTEN[:1], [*KEPT, FORGOTTEN[0]])
    assert found.argmax() == len(KEPT)
    assert found[-1] == pytest.approx(1.0, abs=1e-5)
    assert found[:-1].max() < 0.99


def test_a_step_of_ascent_raises_the_nll_by_what_the_dot_says() -> None:
    model = tiny_model().double()
    step = 1e-5
    with eval_mode_with_grad(model), _adapter(model, 4, 0) as parameters:
        losses = []
        target: list[torch.Tensor] = []
        for _ in range(2):
            if target:
                for parameter, gradient in zip(parameters, target, strict=True):
                    parameter.data += step * gradient
            losses.append([model(**batch).loss for batch in map(as_batch, tokens(KEPT))])
            forgotten = [model(**batch).loss for batch in map(as_batch, tokens(FORGOTTEN))]
            counts = [sum(label != -100 for label in row["labels"][1:]) for row in tokens(FORGOTTEN)]
            mean = sum(loss * count for loss, count in zip(forgotten, counts, strict=True)) / sum(counts)
            target = list(torch.autograd.grad(mean, parameters))
        rises = [(after - before).item() / step for before, after in zip(*losses, strict=True)]
    found = influence_scores(model, tiny_tokenizer(), FORGOTTEN, KEPT, rank=4, kind="dot")
    assert np.abs(found).max() > 1e-3
    np.testing.assert_allclose(found, rises, rtol=1e-2, atol=1e-3 * np.abs(found).max())


def as_batch(row: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([row[name]]) for name in ("input_ids", "labels")}


def mixed_modes(model: Any) -> Any:
    """Training, but for a part of it; with a frozen weight, a gradient, and a random state of its own."""
    model.train()
    first = next(m for m in model.modules() if isinstance(m, nn.ModuleList))[0]
    first.eval()
    parameters = list(model.parameters())
    parameters[0].requires_grad_(False)
    trainable = next(p for p in parameters if p.requires_grad)
    trainable.grad = torch.full_like(trainable, 3.0)
    torch.manual_seed(5)
    return model


@pytest.mark.parametrize("make", [lambda: tiny_model("opt", dropout=0.5), lambda: with_adapter(0.5)])
def test_the_model_is_left_byte_for_byte_as_it_was(make: Callable[[], Any]) -> None:
    model = mixed_modes(make())
    before = state(model)
    first, second = (influence_scores(model, tiny_tokenizer(), FORGOTTEN, KEPT) for _ in range(2))
    np.testing.assert_array_equal(first, second)  # dropout is off
    assert np.isfinite(first).all() and first.any()
    norms = row_gradient_norms(model, tokens(KEPT))
    np.testing.assert_array_equal(norms, row_gradient_norms(model, tokens(KEPT)))
    assert state(model) == before
    assert model.config.to_dict() == before["config"]


def test_the_model_is_left_as_it_was_when_a_row_fails() -> None:
    model = mixed_modes(tiny_model())
    before = state(model)
    bad = [*tokens(KEPT[:1]), {"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}]
    broken = model.model.norm.register_forward_pre_hook(_fail_at_three_tokens)
    with pytest.raises(RuntimeError, match="three"):
        influence_scores(model, None, tokens(FORGOTTEN), bad)
    broken.remove()
    assert state(model) == before


def _fail_at_three_tokens(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    if inputs[0].shape[1] == 3:
        raise RuntimeError("three")


def test_tokenised_rows_and_a_template_give_the_same_as_text() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    plain = influence_scores(model, tokenizer, FORGOTTEN, KEPT)
    np.testing.assert_array_equal(influence_scores(model, None, tokens(FORGOTTEN), tokens(KEPT)), plain)
    joined = influence_scores(model, tokenizer, FORGOTTEN, KEPT, template="{prompt}{completion}")
    np.testing.assert_array_equal(joined, plain)
    other = influence_scores(model, tokenizer, FORGOTTEN, KEPT, template="Q: {prompt} A:{completion}")
    assert np.abs(other - plain).max() > 1e-3
    tokenizer.chat_template = "{{ mood }}" + CHAT_TEMPLATE
    glad, sad = (
        influence_scores(model, tokenizer, FORGOTTEN, KEPT, chat_template_kwargs={"mood": mood}) for mood in ("+", "-")
    )
    assert np.abs(glad - sad).max() > 1e-3


def test_sixteen_bit_weights_keep_32_bit_adapters() -> None:
    exact = influence_scores(tiny_model(), tiny_tokenizer(), FORGOTTEN, KEPT)
    model = tiny_model().to(torch.bfloat16)
    found = influence_scores(model, tiny_tokenizer(), FORGOTTEN, KEPT)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert np.abs(exact).max() > 0.1
    np.testing.assert_allclose(found, exact, atol=0.05)


@pytest.mark.parametrize("name", ["llama", "opt"])
def test_gradient_norms_are_those_of_a_loop(name: str) -> None:
    model = tiny_model(name)
    rows = tokens([*FORGOTTEN, *KEPT])
    expected = np.array([dot(g, g) ** 0.5 for g, _ in (naive_gradients(model, row) for row in rows)])
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(row_gradient_norms(model, rows), expected, rtol=1e-4)
    np.testing.assert_allclose(row_gradient_norms(model, Dataset.from_list(rows)), expected, rtol=1e-4)
    model.requires_grad_(False)
    np.testing.assert_allclose(row_gradient_norms(model, rows), expected, rtol=1e-4)
    assert not any(p.requires_grad for p in model.parameters())
    model.get_input_embeddings().weight.requires_grad_()
    assert (row_gradient_norms(model, rows) < 0.99 * expected).all()


def test_gradient_norms_of_an_adapter_are_of_its_own_weights() -> None:
    model = with_adapter()
    rows = tokens(KEPT)
    gradients = [naive_gradients(model, row)[0] for row in rows]
    assert all("lora" in name for name in gradients[0])
    expected = [dot(each, each) ** 0.5 for each in gradients]
    with torch.no_grad():
        np.testing.assert_allclose(row_gradient_norms(model, rows), expected, rtol=1e-4)


def test_gradient_norms_are_small_where_the_model_knows_the_row() -> None:
    model, rows = tiny_model(), tokens(FORGOTTEN)
    before = row_gradient_norms(model, rows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        sum(model(**as_batch(row)).loss for row in rows[:2]).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = row_gradient_norms(model, rows)
    assert (after[:2] < 0.5 * before[:2]).all()
    assert after[:2].max() < after[2:].min()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"input_ids": [5, 6], "labels": [5, -100]}, "row 1 of the set, which has no answer token"),
        ({"input_ids": [5] * 129, "labels": [5] * 129}, "row 1 of the set, of 129 tokens"),
        ({"input_ids": [5, 999], "labels": [5, 999]}, "row 1 of the set, with ids from 5 to 999"),
        ({"prompt": "a", "completion": "b"}, "row 1 of the set, with input_ids or labels"),
    ],
)
def test_rows_without_a_gradient_are_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        row_gradient_norms(tiny_model(), [*tokens(KEPT[:1]), row])


def frozen_adapter() -> Any:
    return with_adapter().requires_grad_(False)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (tiny_model, {"kind": "cosin"}, "did you mean 'cosine'"),
        (tiny_model, {"rank": 0}, "rank must be a whole number of at least 1"),
        (tiny_model, {"retain": []}, "at least one row in the retain set"),
        (tiny_model, {"retain": Dataset.from_list(KEPT).to_iterable_dataset()}, "a set with a length"),
        (lambda: nn.Linear(2, 2), {}, "a causal language model of transformers"),
        (lambda: tiny_model().model, {}, "a causal language model of transformers"),
        (frozen_adapter, {}, "is_trainable=True"),
        (lambda: with_adapter().base_model.model, {}, "merging.merge"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], Any], arguments: dict[str, Any], message: str) -> None:
    given = {"model": make(), "tokenizer": tiny_tokenizer(), "forget": FORGOTTEN, "retain": KEPT} | arguments
    with pytest.raises(ValueError, match=message):
        influence_scores(**given)


def test_one_gradient_is_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, own = tiny_model(), torch.autograd.grad
    references: list[weakref.ref[torch.Tensor]] = []
    held: list[int] = []

    def spied(*arguments: Any, **settings: Any) -> Any:
        held.append(sum(reference() is not None for reference in references))
        found = own(*arguments, **settings)
        references.extend(map(weakref.ref, found))
        return found

    monkeypatch.setattr(torch.autograd, "grad", spied)
    assert row_gradient_norms(model, tokens(KEPT)).min() > 0
    influence_scores(model, tiny_tokenizer(), FORGOTTEN, KEPT)
    assert held == [0] * (2 * len(KEPT) + len(FORGOTTEN))
