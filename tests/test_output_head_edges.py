"""The output head where something is unusual: odd models, heads that draw, rounded outputs, interruptions, memory."""

import copy
import gc
import weakref
from functools import partial
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaForCausalLM

from fixtures_models import make_trainer, tiny_model
from hf_unlearn import distributions
from hf_unlearn.data import Role
from hf_unlearn.distributions import Reading
from hf_unlearn.measurement import _likeliest
from hf_unlearn.output_head import Keep, output_head
from hf_unlearn.scoring import score
from test_output_head import SIZES, batch_of, gradients, naive, of, plain

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


def test_values_are_not_rounded_with_what_a_model_puts_out():
    batch = batch_of()
    whole = of(LlamaForCausalLM, tiny_model(vocabulary=V).config)
    rounding = Rounding(whole.config)
    rounding.load_state_dict(whole.state_dict())
    found = []
    for model in (whole, rounding):
        reading = Reading("top", Role.FORGET, partial(_likeliest, 4), width=8)
        scores, _ = score(model, output_head(model), batch, readings=[reading])
        found.append((scores.forget.logps, scores.forget.values["top"]))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert found[1][1][:, 4:].max() > 256 and found[1][0].dtype == torch.float32
    one, other = (gradients(model, each[0].sum()) for model, each in zip((whole, rounding), found, strict=True))
    for name, gradient in one.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-2, atol=1e-2 * float(gradient.abs().max()))


@pytest.mark.parametrize("tokens", [3, 1000], ids=["chunks", "one chunk"])
def test_the_gradient_of_a_head_that_drops_out_is_that_of_the_same_draws(monkeypatch, tokens):
    monkeypatch.setattr(distributions, "_CHUNK_ELEMENTS", tokens * 61)
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
        before, _ = score(other, output_head(other), batch, keep={Role.RETAIN: Keep.HIDDEN})
    reading = Reading(
        "kl", Role.RETAIN, lambda z, y, r: (r.softmax(-1) * -z.log_softmax(-1)).sum(-1), reference=before.retain.logits
    )
    scores, _ = score(model, output_head(model), batch, readings=[reading])
    value = scores.forget.logps.sum() + scores.retain.values["kl"].square().sum()
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
