"""The output head in chunks: log-probs, distributions and every gradient against the logits of the model itself."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from fixtures.models import tiny_model
from hf_unlearn.data import DataCollatorForUnlearning, Role
from hf_unlearn.losses import FORGET_LOSSES, RETAIN_LOSSES, DistributionLoss
from hf_unlearn.model import chunk_sizes
from hf_unlearn.model.head_backward import LMHead
from hf_unlearn.model.head_query import LogitCache, TokenReadout
from hf_unlearn.model.output_head import output_head
from hf_unlearn.model.scoring import Likelihoods, score

V = 61
SIZES = dict(
    vocab_size=V,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    pad_token_id=0,
)


class Squashed(LlamaForCausalLM):
    """A model that does something to its logits that nobody has heard of."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = torch.asinh(output.logits)
        return output


def plain(**options: Any) -> nn.Module:
    return tiny_model(vocabulary=V, **options)


def with_adapter(**options: Any) -> nn.Module:
    config = LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj"], init_lora_weights=False)
    for name, value in options.items():
        setattr(config, name, value)
    torch.manual_seed(1)
    return get_peft_model(plain(), config)


def of(kind: type, config: Any) -> nn.Module:
    torch.manual_seed(0)
    model = kind(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)  # logits far enough apart for caps and scales to tell
    return model


MODELS = {
    "untied": plain,
    "opt, tied": lambda: plain(kind="opt"),
    "bias": lambda: of(PhiForCausalLM, PhiConfig(**SIZES)),
    "capped (gemma2)": lambda: of(Gemma2ForCausalLM, Gemma2Config(**SIZES, final_logit_softcapping=2.0)),
    "divided (granite)": lambda: of(GraniteForCausalLM, GraniteConfig(**SIZES, logits_scaling=3.0)),
    "multiplied (cohere)": lambda: of(CohereForCausalLM, CohereConfig(**SIZES, logit_scale=0.25)),
    "lora on the head": lambda: with_adapter(target_modules={"q_proj", "lm_head"}),
    "head trained beside lora": lambda: with_adapter(modules_to_save=["lm_head"]),
    "unknown": lambda: of(Squashed, plain().config),
}


def batch_of(rows: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(4, 12, (rows,), generator=generator).tolist()
    ids = [torch.randint(3, V, (n,), generator=generator).tolist() for n in lengths]
    items = [{"input_ids": each, "labels": [-100] * 2 + each[2:], "row": i} for i, each in enumerate(ids)]
    half = rows // 2
    return DataCollatorForUnlearning(0)([a | {"retain": [b]} for a, b in zip(items[:half], items[half:], strict=True)])


def naive(model: nn.Module, batch: dict[str, Tensor], role: Role) -> tuple[Tensor, Tensor]:
    """Logits and ids of the answer tokens of a role, from the model's own logits."""
    output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    rows = batch["role"] == role
    answers = batch["labels"][rows, 1:] != -100
    return output.logits[rows, :-1][answers].double(), batch["labels"][rows, 1:][answers]


def gradients(model: nn.Module, value: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    value.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def kl(logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
    p, q = reference.log_softmax(-1), logits.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def reference_of(model: nn.Module, batch: dict[str, Tensor], keep: LogitCache) -> Any:
    """Where the logits of a frozen copy, at other weights, are had from."""
    torch.manual_seed(3)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
        found, _ = score(other, output_head(other), batch, keep={Role.RETAIN: keep}, likelihoods=Likelihoods.NONE)
    assert len(found.retain.logps) == 0
    return other, found.retain.logits


@pytest.mark.parametrize("tokens", [3, 1000], ids=["chunks", "one chunk"])
@pytest.mark.parametrize("keep", [LogitCache.HIDDEN, LogitCache.LOGITS])
@pytest.mark.parametrize("name", MODELS)
def test_values_and_gradients_are_those_of_the_models_own_logits(monkeypatch, name, keep, tokens):
    monkeypatch.setattr(chunk_sizes, "CPU_CHUNK_BYTES", 4 * tokens * V)
    model, batch = MODELS[name]().double(), batch_of()
    other, logits = reference_of(model, batch, keep)
    readout = TokenReadout("kl", Role.RETAIN, kl, reference=logits)
    scores, _ = score(model, output_head(model), batch, readouts=[readout])
    upstream = torch.linspace(-1, 2, len(scores.forget.logps))
    got = (upstream * scores.forget.logps).sum() + scores.retain.readouts["kl"].sum()
    found = gradients(model, got)

    z, ids = naive(model, batch, Role.FORGET)
    logps = z.log_softmax(-1).gather(-1, ids[:, None]).squeeze(-1)
    policy = naive(model, batch, Role.RETAIN)[0]
    with torch.no_grad():
        before = naive(other, batch, Role.RETAIN)[0]
    divergence = kl(policy, ids, before)
    torch.testing.assert_close(scores.forget.logps, logps, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(scores.retain.readouts["kl"], divergence, rtol=1e-8, atol=1e-9)
    expected = gradients(model, (upstream * logps).sum() + divergence.sum())
    assert found.keys() == expected.keys() and divergence.mean() > 1e-3
    for weight, gradient in expected.items():
        # Norms are computed in fp32 whatever the model's precision.
        assert (found[weight] - gradient).abs().max() <= 1e-6 * gradient.abs().max().clamp_min(1e-3), weight
    assert max(gradient.abs().max() for gradient in expected.values()) > 1e-2


@pytest.mark.parametrize(
    ("model", "kept"),
    [(with_adapter, None), (plain, 2), (lambda: with_adapter().half(), 4)],
    ids=["frozen head", "trained head", "frozen head in fp16"],
)
def test_logits_of_a_frozen_head_are_computed_once(monkeypatch, model, kept):
    """Others again but for the last chunks, as many as have room: two in fp32, four in fp16.

    In fp16 those of a frozen head too: a derivative that no loss has scaled yet is rounded to nothing.
    """
    monkeypatch.setattr(chunk_sizes, "CPU_CHUNK_BYTES", 4 * 5 * V)
    computed = []
    own = LMHead.logits
    monkeypatch.setattr(LMHead, "logits", lambda self, *of: computed.append(len(of[0])) or own(self, *of))
    model, batch = model(), batch_of(16)
    scores, _ = score(model, output_head(model), batch)
    tokens = len(scores.forget.logps) + len(scores.retain.logps)
    assert sum(computed) == tokens > 25
    gradients(model, scores.forget.logps.sum() - scores.retain.logps.sum())
    again = 0 if kept is None else 5 * (-(-tokens // 5) - kept)
    assert sum(computed) == tokens + again, (computed, again)


@pytest.mark.parametrize("name", ["lora on the head", "head trained beside lora"])
def test_the_reference_is_without_the_adapter_of_the_head_whenever_it_is_asked(name):
    model, batch = MODELS[name]().double(), batch_of()
    with torch.no_grad(), model.disable_adapter():
        found, _ = score(
            model, output_head(model), batch, keep={Role.RETAIN: LogitCache.HIDDEN}, likelihoods=Likelihoods.NONE
        )
        expected, _ = naive(model, batch, Role.RETAIN)
    with torch.no_grad():
        adapted, _ = naive(model, batch, Role.RETAIN)
    got = found.retain.logits.at(slice(0, len(expected)), expected)  # asked for with the adapter on again
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert (adapted - expected).abs().max() > 1e-3


def test_a_model_that_does_something_else_is_noticed_and_warned_of(caplog):
    model = MODELS["unknown"]()
    score(model, output_head(model), batch_of())
    score(model, output_head(model), batch_of())
    (warning,) = [record for record in caplog.records if "changes the logits of its head" in record.getMessage()]
    assert "Squashed" in warning.getMessage()


LOSSES = [loss for loss in (*FORGET_LOSSES.values(), *RETAIN_LOSSES.values()) if issubclass(loss, DistributionLoss)]


@pytest.mark.parametrize("loss", [loss() for loss in LOSSES], ids=lambda loss: f"{loss.on.name.lower()}/{loss.name}")
def test_a_step_in_chunks_is_the_step_in_one(monkeypatch, loss):
    model, batch = plain(), batch_of(8)
    torch.manual_seed(3)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
        before, _ = score(
            other, output_head(other), batch, keep={loss.on: LogitCache.HIDDEN}, likelihoods=Likelihoods.NONE
        )
    reference = before.rows(loss.on).logits if loss.needs.reference_logits else None
    readout = TokenReadout("term", loss.on, loss.at_positions, loss.grad_logits, reference)
    results = []
    for tokens in (1000, 5):
        monkeypatch.setattr(chunk_sizes, "CPU_CHUNK_BYTES", 4 * tokens * V)
        scores, _ = score(model, output_head(model), batch, readouts=[readout])
        values = loss(scores.for_term("term"))
        upstream = torch.linspace(-1, 2, len(values))
        results.append((values.detach(), gradients(model, (upstream * values).sum() + scores.forget.logps.sum())))
    (values, whole), (chunked_values, chunked) = results
    torch.testing.assert_close(chunked_values, values, rtol=1e-5, atol=1e-6)
    assert whole.keys() == chunked.keys() and values.abs().max() > 1e-3
    for name, gradient in whole.items():
        torch.testing.assert_close(chunked[name], gradient, rtol=1e-5, atol=1e-5, msg=name)


def test_under_autocast_logits_are_in_16_bits_and_gradients_those_of_the_plain_model(monkeypatch):
    monkeypatch.setattr(chunk_sizes, "CPU_CHUNK_BYTES", 4 * 4 * V)
    model, batch = plain(), batch_of()
    with torch.autocast("cpu", torch.bfloat16):
        scores, _ = score(model, output_head(model), batch)
        logits, ids = naive(model, batch, Role.FORGET)
    expected = logits.log_softmax(-1).gather(-1, ids[:, None]).squeeze(-1)
    torch.testing.assert_close(scores.forget.logps.double(), expected, rtol=1e-5, atol=1e-5)
    one, other = gradients(model, scores.forget.logps.sum()), gradients(model, expected.sum())
    for name, gradient in other.items():
        scale = gradient.abs().max()
        assert (one[name] - gradient).abs().max() < 0.03 * scale, name


def test_a_compiled_model_gives_the_same_and_is_not_compiled_again_for_every_batch():
    model = plain()
    compiled = torch.compile(model, backend="eager", dynamic=True)
    torch._dynamo.utils.counters.clear()
    frames = []
    for rows in (4, 6, 8, 6):
        batch = batch_of(rows)
        expected, _ = score(model, output_head(model), batch)
        got, _ = score(compiled, output_head(model), batch)
        torch.testing.assert_close(got.forget.logps, expected.forget.logps, rtol=1e-5, atol=1e-6)
        found, wanted = (gradients(model, each.forget.logps.sum()) for each in (got, expected))
        for name, gradient in wanted.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)
        frames.append(torch._dynamo.utils.counters["frames"]["ok"])
    assert frames[0] > 0 and frames[2] == frames[-1], frames
