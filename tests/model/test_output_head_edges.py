"""The output head where something is unusual: odd models, heads that draw, rounded outputs, interruptions, memory."""

import copy
import gc
import pickle
import weakref
from functools import partial
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaForCausalLM

from fixtures.models import make_trainer, step_logs, tiny_model
from hf_unlearn.data import Role
from hf_unlearn.model import chunk_sizes
from hf_unlearn.model.head_backward import LMHead
from hf_unlearn.model.head_query import LogitCache, TokenReadout
from hf_unlearn.model.logit_transform import LogitTransform
from hf_unlearn.model.output_head import output_head
from hf_unlearn.model.reference_logits import HeadLogits
from hf_unlearn.model.score_rows import _likeliest
from hf_unlearn.model.scoring import score
from model.test_output_head import MODELS, SIZES, batch_of, gradients, naive, of, plain

V = 900  # more than 16 bits can number


class Cut(LlamaForCausalLM):
    """Puts out fewer logits than its head, as models with a padded vocabulary do."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits[..., : self.config.vocab_size - 20]
        return output


class Barred(LlamaForCausalLM):
    """Bars tokens that are past the numbers of a narrow probe, as Chameleon does."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits.index_fill(-1, torch.arange(60, 80), -1e4)
        return output


class RoundingGemma(Gemma2ForCausalLM):
    """Caps its logits and rounds them."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits.bfloat16()
        return output


class Rounding(LlamaForCausalLM):
    """Rounds what it puts out to 16 bits, as FSDP2 does in mixed precision."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits.bfloat16()
        return output


def logps_of(model: Any, batch: dict[str, Tensor]) -> Tensor:
    logits, ids = naive(model, batch, Role.FORGET)
    return logits.log_softmax(-1).gather(-1, ids[:, None]).squeeze(-1)


@pytest.mark.parametrize("kind", [Cut, Barred])
def test_a_model_that_changes_some_logits_alone_is_scored_by_its_own(kind):
    model, batch = of(kind, tiny_model(vocabulary=100).config).double(), batch_of()
    scores, _ = score(model, output_head(model), batch)
    expected = logps_of(model, batch)
    torch.testing.assert_close(scores.forget.logps, expected, rtol=1e-9, atol=1e-9)
    unchanged = LlamaForCausalLM(model.config).double()
    unchanged.load_state_dict(model.state_dict())
    assert (logps_of(unchanged, batch) - expected).abs().max() > 1e-2


def test_a_cap_is_known_where_it_comes_out_rounded():
    config = Gemma2Config(**SIZES, final_logit_softcapping=30.0)
    plain_one, rounding, batch = of(Gemma2ForCausalLM, config), of(RoundingGemma, config), batch_of()
    expected, _ = score(plain_one, output_head(plain_one), batch)
    found, _ = score(rounding, output_head(rounding), batch)
    assert output_head(rounding)._chunked and torch.equal(found.forget.logps, expected.forget.logps)


def test_values_are_not_rounded_with_what_a_model_puts_out():
    batch = batch_of()
    whole = of(LlamaForCausalLM, tiny_model(vocabulary=V).config)
    rounding = Rounding(whole.config)
    rounding.load_state_dict(whole.state_dict())
    found = []
    for model in (whole, rounding):
        readout = TokenReadout("top", Role.FORGET, partial(_likeliest, 4), width=8)
        scores, _ = score(model, output_head(model), batch, readouts=[readout])
        found.append((scores.forget.logps, scores.forget.readouts["top"]))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert found[1][1][:, 4:].max() > 256 and found[1][0].dtype == torch.float32
    one, other = (gradients(model, each[0].sum()) for model, each in zip((whole, rounding), found, strict=True))
    for name, gradient in one.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-2, atol=1e-2 * float(gradient.abs().max()))


@pytest.mark.parametrize("tokens", [3, 1000], ids=["chunks", "one chunk"])
def test_the_gradient_of_a_head_that_drops_out_is_that_of_the_same_draws(monkeypatch, tokens):
    monkeypatch.setattr(chunk_sizes, "CPU_CHUNK_BYTES", 4 * tokens * 61)
    config = LoraConfig(r=2, lora_alpha=8, target_modules=["lm_head"], init_lora_weights=False, lora_dropout=0.5)
    torch.manual_seed(1)
    model, batch = get_peft_model(plain(), config).double().train(), batch_of()
    weight = next(weight for name, weight in model.named_parameters() if "lora_B" in name)

    def value() -> Tensor:
        torch.manual_seed(5)
        return score(model, output_head(model), batch)[0].forget.logps.sum()

    value().backward()
    direction, size = torch.randn(weight.shape, dtype=weight.dtype), 1e-5
    ends = []
    with torch.no_grad():
        for step in (size, -2 * size):
            weight += step * direction
            ends.append(float(value()))
    expected = (ends[0] - ends[1]) / (2 * size)
    assert float((weight.grad * direction).sum()) == pytest.approx(expected, rel=1e-5)
    assert abs(expected) > 1


@pytest.mark.parametrize("options", [dict(target_modules=["lm_head"]), dict(modules_to_save=["lm_head"])])
@pytest.mark.parametrize("keep", [LogitCache.HIDDEN, LogitCache.LOGITS])
def test_a_copy_with_adapters_on_its_head_is_a_reference_with_them(keep, options):
    torch.manual_seed(1)
    config = LoraConfig(r=2, lora_alpha=8, **{"target_modules": ["q_proj"], "init_lora_weights": False, **options})
    model, batch = get_peft_model(plain(), config).double().eval(), batch_of()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.mul_(1.5)  # what is trained beside an adapter starts as it was
        found, _ = score(model, output_head(model), batch, keep={Role.RETAIN: keep})
        expected, _ = naive(model, batch, Role.RETAIN)
        with model.disable_adapter():
            without = found.retain.logits.at(slice(0, len(expected)), expected)  # asked for with the adapter off
            other, _ = naive(model, batch, Role.RETAIN)
    got = found.retain.logits.at(slice(0, len(expected)), expected)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert (other - expected).abs().max() > 1e-2
    if keep is LogitCache.LOGITS:
        torch.testing.assert_close(without, expected, rtol=1e-9, atol=1e-9)


def test_a_head_trained_beside_an_adapter_is_read_as_it_was_where_that_is_off():
    model, batch = MODELS["head trained beside lora"]().double(), batch_of()
    with torch.no_grad():
        model.get_output_embeddings().modules_to_save.default.weight.mul_(1.5)
        with model.disable_adapter():
            found, _ = score(model, output_head(model), batch, keep={Role.RETAIN: LogitCache.HIDDEN})
            expected, _ = naive(model, batch, Role.RETAIN)
    got = found.retain.logits.at(slice(0, len(expected)), expected)  # asked for with the adapter on again
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_a_run_from_a_trained_adapter_on_the_head_is_the_same_with_either_reference(tmp_path):
    torch.manual_seed(0)
    config = LoraConfig(target_modules=["q_proj", "lm_head"], init_lora_weights=False)
    model, logs = get_peft_model(tiny_model(), config), []
    for reference in ("auto", "copy"):
        options = dict(forget_loss="npo", retain_loss="kl", reference=reference, max_steps=3)
        trainer = make_trainer(tmp_path, copy.deepcopy(model), **options)
        trainer.train()
        logs.append([log["retain/kl"] for log in step_logs(trainer)])
        assert (trainer.reference._frozen is None) == (reference == "auto")
    assert logs[0] == pytest.approx(logs[1], rel=1e-4, abs=1e-6)
    assert abs(logs[0][0]) < 1e-6 and logs[0][2] > 1e-2


def test_the_reference_does_not_drop_out_where_the_policy_does(tmp_path):
    model = get_peft_model(tiny_model("opt", dropout=0.5), LoraConfig(target_modules=["q_proj"]))
    trainer = make_trainer(tmp_path, model, retain_loss="kl", disable_dropout=False)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.train()
    trainer.model.train()
    found = []
    for _ in range(2):
        rows = trainer.reference.read(trainer.accelerator, trainer.model, batch)[Role.RETAIN]
        found.append(rows.logits.at(slice(0, 5), torch.zeros(())))
    assert trainer.model.training and torch.equal(*found) and found[0].std() > 0


def test_sums_over_chunks_are_not_rounded_to_16_bits(monkeypatch):
    batch, model = batch_of(60), plain().to(torch.bfloat16)
    found = []
    for tokens in (1000, 2):
        monkeypatch.setattr(chunk_sizes, "CPU_CHUNK_BYTES", 4 * tokens * 61)
        scores, _ = score(model, output_head(model), batch)
        value = scores.forget.logps.sum() + scores.retain.logps.sum()
        found.append(gradients(model, value)["lm_head.weight"].float())
    whole, chunked = found
    # Each product is rounded once, and their sum once: 2^-9 of them. Sums of 16 bits are off by six times as much.
    assert (chunked - whole).norm() < 4e-3 * whole.norm()


def test_caps_and_scales_are_computed_in_fp32():
    head = torch.nn.Linear(16, 61, bias=False).to(torch.bfloat16)
    hidden = 4 * torch.randn(5, 16).to(torch.bfloat16)
    transform = LogitTransform(0.3, 2.0)
    got = LMHead(head, head.forward, transform).logits(hidden)
    torch.testing.assert_close(got, 2 * (0.3 * head(hidden).float() / 2).tanh(), rtol=1e-6, atol=1e-6)
    assert got.dtype == torch.float32


def test_chunks_are_computed_again_under_the_autocast_of_the_forward():
    head = torch.nn.Linear(16, 61, bias=False)
    hidden, grad_logits = torch.randn(5, 16), torch.randn(5, 61)
    with torch.autocast("cpu", torch.bfloat16):
        source, expected = LMHead(head, head.forward, LogitTransform()), head(hidden)
    logits = source.logits(hidden)  # a backward pass is outside of it
    assert logits.dtype == torch.bfloat16 and torch.equal(logits, expected)
    gradient = torch.zeros_like(head.weight)
    back = source.backward(hidden, logits, grad_logits, [gradient])
    small = grad_logits.bfloat16(), hidden.bfloat16(), head.weight.bfloat16()
    assert torch.equal(back, (small[0] @ small[2]).float()) and torch.equal(gradient, (small[0].T @ small[1]).float())


def test_a_head_with_a_forward_of_its_own_keeps_it():
    model, batch = plain(), batch_of()
    own, calls = model.lm_head.forward, []

    def forward(hidden: Tensor) -> Tensor:
        calls.append(hidden.shape)
        return 2 * own(hidden)

    model.lm_head.forward = forward  # as accelerate's hooks do
    scores, _ = score(model, output_head(model), batch)
    assert vars(model.lm_head)["forward"] is forward and calls
    torch.testing.assert_close(scores.forget.logps.double(), logps_of(model, batch), rtol=1e-5, atol=1e-5)


def test_a_model_is_looked_at_without_drawing_random_numbers_or_changing_its_modes():
    model = tiny_model("opt", dropout=0.5, vocabulary=61).train()
    model.model.decoder.layers[0].eval()
    modes = [module.training for module in model.modules()]
    before = torch.get_rng_state()
    output_head(model).examine(model, batch_of())
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in model.modules()] == modes and True in modes and False in modes


@pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize(
    "name",
    [
        "untied",
        "opt, tied",
        "bias",
        "capped (gemma2)",
        "divided (granite)",
        "multiplied (cohere)",
        "lora on the head",
        "head trained beside lora",
    ],
)
def test_known_models_are_read_in_chunks(name, adapted):
    model, batch = MODELS[name](), batch_of()
    if adapted and "lora" not in name:
        model = get_peft_model(model, LoraConfig(target_modules="all-linear"))
    head = output_head(model)
    scores, _ = score(model, head, batch, keep={Role.RETAIN: LogitCache.HIDDEN})
    assert head._chunked and isinstance(scores.retain.logits, HeadLogits)


@pytest.mark.parametrize("tokens", [1000, 5], ids=["one chunk", "chunks"])
def test_logits_that_fit_are_not_computed_again(monkeypatch, tokens):
    monkeypatch.setattr(chunk_sizes, "CPU_CHUNK_BYTES", 4 * tokens * 61)
    counted: list[int] = []
    own = LMHead.logits
    monkeypatch.setattr(LMHead, "logits", lambda self, *of: counted.append(len(of[0])) or own(self, *of))
    model, batch = plain(), batch_of(16)
    scores, _ = score(model, output_head(model), batch)
    (scores.forget.logps.sum() + scores.retain.logps.sum()).backward()
    total = len(scores.forget.logps) + len(scores.retain.logps)
    # The last two of several chunks have room.
    chunks = -(-total // tokens)
    assert len(counted) == (1 if chunks == 1 else 2 * chunks - 2), counted


def test_a_second_derivative_is_refused():
    model = plain()
    scores, _ = score(model, output_head(model), batch_of())
    with pytest.raises(ValueError, match="a first derivative of log-probs"):
        torch.autograd.grad(scores.forget.logps.sum(), model.lm_head.weight, create_graph=True)


def test_a_graph_that_is_kept_gives_the_same_gradient_again():
    model, batch = plain(), batch_of()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.lm_head.weight.mul_(1.1)
        before, _ = score(other, output_head(other), batch, keep={Role.RETAIN: LogitCache.HIDDEN})
    readout = TokenReadout(
        "kl", Role.RETAIN, lambda z, y, r: (r.softmax(-1) * -z.log_softmax(-1)).sum(-1), reference=before.retain.logits
    )
    scores, _ = score(model, output_head(model), batch, readouts=[readout])
    value = scores.forget.logps.sum() + scores.retain.readouts["kl"].square().sum()
    first = torch.autograd.grad(value, model.lm_head.weight, retain_graph=True)[0]
    second = torch.autograd.grad(value, model.lm_head.weight)[0]
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    assert first.abs().max() > 1e-2


def test_a_model_whose_vocabulary_was_resized_has_another_head():
    model, batch = plain(), batch_of()
    first = output_head(model)
    model.resize_token_embeddings(70, mean_resizing=False)
    gc.collect()
    assert output_head(model) is not first
    scores, _ = score(model, output_head(model), batch)
    torch.testing.assert_close(scores.forget.logps.double(), logps_of(model, batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_forward_leaves_the_model_as_it_was(error):
    config = Gemma2Config(**SIZES, final_logit_softcapping=2.0)
    model, batch = of(Gemma2ForCausalLM, config), batch_of()
    expected, _ = score(model, output_head(model), batch)

    def interrupt(*_: Any) -> None:
        raise error

    for where in (model.model.norm, model.lm_head):
        handle = where.register_forward_pre_hook(interrupt)
        with pytest.raises(error):
            score(model, output_head(model), batch)
        handle.remove()
        assert "forward" not in vars(model.lm_head) and config.final_logit_softcapping == 2.0
    scores, _ = score(model, output_head(model), batch)
    assert torch.equal(scores.forget.logps, expected.forget.logps)
    copy.deepcopy(model)


@pytest.mark.parametrize("options", [dict(reference="copy"), dict(peft_config=LoraConfig(target_modules=["q_proj"]))])
def test_a_trainer_and_its_models_are_freed(tmp_path, options):
    trainer = make_trainer(tmp_path, tiny_model(), retain_loss="kl", max_steps=1, **options)
    trainer.train()
    models = [trainer.model, trainer.model.get_output_embeddings(), trainer.reference._frozen]
    kept = [weakref.ref(each) for each in (trainer, *models) if each is not None]
    del trainer, models
    gc.collect()
    assert [each() for each in kept] == [None] * len(kept)


def test_a_copied_or_pickled_model_has_a_head_of_its_own():
    model, batch = plain(), batch_of()
    expected, _ = score(model, output_head(model), batch)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert output_head(other) is not output_head(model) and output_head(other) is output_head(other)
        assert output_head(other).module is other.lm_head
        scores, _ = score(other, output_head(other), batch)
        assert torch.equal(scores.forget.logps, expected.forget.logps)
    assert output_head(get_peft_model(model, LoraConfig(target_modules=["q_proj"]))) is not output_head(model)


def test_a_forward_of_a_head_inside_another_of_it_is_refused():
    model, batch = plain(), batch_of()
    head = output_head(model)
    score(model, head, batch)  # examined
    handle = model.model.register_forward_hook(lambda *_: score(model, head, batch) and None)
    with pytest.raises(AssertionError, match="running already"):
        score(model, head, batch)
    handle.remove()
    assert "forward" not in vars(model.lm_head)
    score(model, head, batch)
