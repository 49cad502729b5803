"""Models, references and optimizers as users hand them over: taken as what they are, or refused before training."""

import copy
import logging
import math

import pytest
import torch
from peft import (
    CPTConfig,
    IA3Config,
    LoraConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from transformers import AutoModelForCausalLM, BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from fixtures.examples import assert_user_error
from fixtures.models import make_trainer, perturbed, step_logs, tiny_model, weights
from hf_unlearn import UnlearningTrainer
from hf_unlearn.model.adapters import load_adapter
from hf_unlearn.results.record import load_record
from hf_unlearn.training import prepared_run

NPO_AT_REFERENCE = 2 / 0.1 * math.log(2)
ROWS = torch.randint(5, 200, (2, 9), generator=torch.Generator().manual_seed(0))


def lora(**more):
    return LoraConfig(**{"r": 2, "target_modules": ["q_proj"], **more})


def logits(model):
    with torch.no_grad():
        return model.eval()(ROWS).logits


def refused(make, *words):
    with pytest.raises(ValueError) as error:
        make()
    assert_user_error(str(error.value))
    assert [word for word in words if word not in str(error.value)] == [], str(error.value)


def folder_with_model(folder):
    tiny_model().save_pretrained(folder / "base")
    return folder / "base"


# Adapters that transformers puts into a model


@pytest.mark.parametrize(
    "config",
    [
        lora(),
        lora(target_modules=["q_proj"], modules_to_save=["lm_head"]),
        lora(init_lora_weights="pissa", use_dora=True),
        IA3Config(target_modules=["k_proj"], feedforward_modules=[]),
    ],
    ids=["lora", "a head trained whole", "pissa", "ia3"],
)
def test_add_adapter_is_a_peft_model(tmp_path, config):
    model = AutoModelForCausalLM.from_pretrained(folder_with_model(tmp_path))
    model.add_adapter(config)
    started, trained = logits(model), [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    trainer = make_trainer(tmp_path, model, forget_loss="npo", retain_loss="kl", max_steps=2)
    assert torch.equal(logits(trainer.model), started)
    assert {id(w) for w in trainer.model.parameters() if w.requires_grad} == {id(w) for w in trained}
    assert optimizer.param_groups[0]["params"][0] is trained[0]
    trainer.train()
    first = step_logs(trainer)[0]
    assert first["forget/npo"] == pytest.approx(NPO_AT_REFERENCE, rel=1e-5)
    assert first["retain/kl"] == pytest.approx(0, abs=1e-6)
    assert trainer.reference._frozen is None and "adapter" in trainer.record.reference  # no second model
    trainer.save_model()
    assert load_record(tmp_path / "out").model.adapter["kind"] == config.peft_type.value
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "Removing or disabling the adapter brings the old behaviour back" in card
    unlearned = logits(trainer.model)
    assert torch.equal(logits(load_adapter(tmp_path / "out")), unlearned)
    assert (unlearned - started).abs().max() > 1e-4


def test_load_adapter_and_several_adapters(tmp_path):
    base = folder_with_model(tmp_path)
    kept = perturbed(get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora()), scale=0.3)
    kept.save_pretrained(tmp_path / "kept")
    model = AutoModelForCausalLM.from_pretrained(base)
    model.load_adapter(str(tmp_path / "kept"), adapter_name="kept")
    model.add_adapter(lora(target_modules=["v_proj"]), adapter_name="unlearn")
    model.set_adapter(["kept", "unlearn"])
    for name, weight in model.named_parameters():
        weight.requires_grad_(".unlearn." in name)
    started = logits(model)
    assert torch.equal(started, logits(kept))
    trainer = make_trainer(tmp_path, model, forget_loss="npo", retain_loss="kl", max_steps=2)
    before = weights(trainer.model)
    trainer.train()
    assert step_logs(trainer)[0]["retain/kl"] == pytest.approx(0, abs=1e-6)  # the kept adapter is of the reference
    moved = [name for name, weight in trainer.model.named_parameters() if not torch.equal(weight, before[name])]
    assert moved and all(".unlearn." in name for name in moved)


def test_adapters_that_one_peft_model_cannot_be(tmp_path):
    off, two, frozen = tiny_model(), tiny_model(), tiny_model()
    off.add_adapter(lora())
    off.disable_adapters()
    refused(lambda: make_trainer(tmp_path, off), "disable_adapters()", "enable_adapters()")
    two.add_adapter(lora())
    two.add_adapter(IA3Config(target_modules=["k_proj"], feedforward_modules=[]), adapter_name="second")
    refused(lambda: make_trainer(tmp_path, two), "IA3 and LORA")
    frozen.add_adapter(lora())
    frozen.requires_grad_(False)
    refused(lambda: make_trainer(tmp_path, frozen), "none that requires a gradient")


def test_what_a_saved_adapter_would_leave_out_is_refused(tmp_path):
    unfrozen = get_peft_model(tiny_model(), lora())
    unfrozen.get_base_model().lm_head.weight.requires_grad_(True)
    refused(lambda: make_trainer(tmp_path, unfrozen), "1 tensors of the base model", "lm_head", "modules_to_save")
    both = get_peft_model(tiny_model(), lora())
    both.add_adapter("second", lora(target_modules=["v_proj"]))
    both.base_model.set_adapter(["default", "second"])
    refused(lambda: make_trainer(tmp_path, both), "default, second")
    resized = AutoModelForCausalLM.from_pretrained(folder_with_model(tmp_path))
    resized.resize_token_embeddings(300)
    refused(
        lambda: make_trainer(tmp_path, resized, peft_config=lora(target_modules=["embed_tokens"])),
        "300 rows where",
        "model.save_pretrained(folder)",
    )


# The reference

PROMPTS = [
    CPTConfig(cpt_token_ids=[5], cpt_mask=[1], cpt_tokens_type_mask=[1], task_type="CAUSAL_LM"),
    PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    PromptEncoderConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
]


@pytest.mark.parametrize("config", PROMPTS, ids=lambda config: config.peft_type.value)
@pytest.mark.parametrize("given", ["peft_config", "model"])
def test_prompts_are_refused_before_anything_is_done(tmp_path, monkeypatch, config, given):
    monkeypatch.setattr(prepared_run, "build_train_sets", None)
    model = tiny_model() if given == "peft_config" else get_peft_model(tiny_model(), config)
    options = {"peft_config": config} if given == "peft_config" else {}
    refused(lambda: make_trainer(tmp_path, model, **options), type(config).__name__, "use LoRA")


def test_prefixes_with_activation_checkpointing_are_refused_and_without_they_train(tmp_path):
    prefix = PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    asked = {"peft_config": prefix, "forget_loss": "grad_ascent"}
    refused(
        lambda: make_trainer(tmp_path, tiny_model(), activation_checkpointing=True, **asked),
        "PrefixTuningConfig without activation checkpointing",
    )
    on = tiny_model()
    on.gradient_checkpointing_enable()
    refused(lambda: make_trainer(tmp_path, on, **asked), "PrefixTuningConfig without activation checkpointing")
    assert make_trainer(tmp_path, tiny_model(), **asked).train().global_step == 1


def bert(kind, **more):
    return kind(BertConfig(vocab_size=261, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, **more))


def test_references_that_cannot_be_compared_with_are_refused(tmp_path):
    def asks(reference, **more):
        return lambda: make_trainer(tmp_path, tiny_model(), ref_model=reference, **{"forget_loss": "npo"} | more)

    refused(
        asks(tiny_model(vocabulary=300)), "rows of the vocabulary: 261", "Got: 300", "resize_token_embeddings(261)"
    )
    refused(asks(tiny_model(vocabulary=300), forget_loss="grad_ascent", retain_loss="kl"), "Got: 300")
    # Its static checks are the model's own, prompts before its tokens among them.
    refused(asks(bert(BertModel)), "ref_model to be a causal language model", "BertModel")
    refused(asks(get_peft_model(tiny_model(), copy.deepcopy(PROMPTS[1]))), "PromptTuningConfig", "use LoRA")
    shared = tiny_model()
    twin = tiny_model(seed=1)
    twin.model.embed_tokens.weight = torch.nn.Parameter(shared.model.embed_tokens.weight.data)
    refused(lambda: make_trainer(tmp_path, shared, forget_loss="npo", ref_model=twin), "shares 1 tensors")
    refused(lambda: make_trainer(tmp_path, shared, forget_loss="npo", ref_model=shared), "the model itself")
    padded = tiny_model(vocabulary=300)
    padded.resize_token_embeddings(261)
    trainer = make_trainer(tmp_path, tiny_model(), forget_loss="npo", retain_loss="kl", ref_model=padded)
    assert trainer.train().global_step == 1
    # Another type is another precision of the same comparison.
    halved = make_trainer(tmp_path, tiny_model(), forget_loss="npo", ref_model=tiny_model().to(torch.bfloat16))
    halved.train()
    assert step_logs(halved)[0]["forget/npo"] == pytest.approx(NPO_AT_REFERENCE, rel=0.02)


# The optimizer


class OfAnother(UnlearningTrainer):
    """A trainer whose optimizer was made of another model."""

    def create_optimizer(self, *args):
        self.optimizer = torch.optim.SGD(tiny_model().parameters(), lr=0.1)
        return self.optimizer


def optimized(folder, model, weights_held, as_class=False, **more):
    trainer = UnlearningTrainer.__init__

    def with_optimizer(self, *args, **kwargs):
        if as_class:
            given = {"optimizer_cls_and_kwargs": (torch.optim.SGD, {"lr": 0.1, "params": weights_held})}
        else:
            given = {"optimizers": (torch.optim.SGD(weights_held, lr=0.1), None)}
        trainer(self, *args, **kwargs, **given)

    kind = type("WithOptimizer", (UnlearningTrainer,), {"__init__": with_optimizer})
    return make_trainer(folder, model, trainer_class=kind, **more)


def test_an_optimizer_without_the_trained_weights_is_refused(tmp_path, caplog):
    words = ("an optimizer that holds the weights to train", "nothing would change")
    model = tiny_model()
    refused(lambda: optimized(tmp_path, model, list(model.parameters()), peft_config=lora()), *words)
    refused(lambda: optimized(tmp_path, tiny_model(), list(tiny_model().parameters())), *words)
    late = make_trainer(tmp_path, tiny_model(), trainer_class=OfAnother)
    by_class = optimized(tmp_path, tiny_model(), list(tiny_model().parameters()), as_class=True)
    for trainer in (late, by_class):
        refused(trainer.train, *words)
        assert trainer.state.global_step == 0
    model = tiny_model()
    with caplog.at_level(logging.WARNING, logger="hf_unlearn"):
        logging.getLogger("hf_unlearn").addHandler(caplog.handler)
        trainer = optimized(tmp_path, model, list(model.lm_head.parameters()))
    assert "holds 1 of the 21 tensors" in caplog.text
    before = weights(model)
    trainer.train()
    assert [name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])] == [
        "lm_head.weight"
    ]
    adapted = get_peft_model(tiny_model(), lora())
    held = [weight for weight in adapted.parameters() if weight.requires_grad]
    assert optimized(tmp_path, adapted, held).train().global_step == 1


# A checkpoint given as the model


def comparing(folder, model, **more):
    return make_trainer(
        folder, model, **{"forget_loss": "npo", "retain_loss": "kl", "max_steps": 4, "save_strategy": "steps",
        "save_steps": 2} | more
    )  # fmt: skip


@pytest.mark.parametrize("adapter", [None, lora, lambda: lora(modules_to_save=["lm_head"])])
def test_a_checkpoint_as_the_model_is_not_the_reference(tmp_path, adapter):
    base = folder_with_model(tmp_path)

    def options():
        return {} if adapter is None else {"peft_config": adapter()}

    whole = comparing(tmp_path, str(base), **options())
    whole.train()
    expected, checkpoint = step_logs(whole)[2:], tmp_path / "out" / "checkpoint-2"
    same = comparing(tmp_path, str(base), **options())
    same.train(resume_from_checkpoint=str(checkpoint))
    assert [log["retain/kl"] for log in step_logs(same)[2:]] == [log["retain/kl"] for log in expected]
    assert expected[0]["retain/kl"] > 1e-4

    def resumed(model, **more):
        return comparing(tmp_path, model, **more)

    # By its name, as a model that was loaded, and as a copy that has another name.
    copied = (
        AutoModelForCausalLM.from_pretrained(base) if adapter else AutoModelForCausalLM.from_pretrained(checkpoint)
    )
    models = [str(checkpoint), load_adapter(checkpoint, trainable=True) if adapter else copied]
    models.append(comparing(tmp_path, str(checkpoint)).model)
    models[-1].config._name_or_path = ""
    for model in models:
        trainer = resumed(model)
        refused(
            lambda trainer=trainer: trainer.train(resume_from_checkpoint=str(checkpoint)),
            "the model that the run began with",
            "as ref_model",
        )
    given = resumed(str(checkpoint), ref_model=AutoModelForCausalLM.from_pretrained(base))
    given.train(resume_from_checkpoint=str(checkpoint))
    assert [log["retain/kl"] for log in step_logs(given)[2:]] == pytest.approx(
        [log["retain/kl"] for log in expected], rel=1e-4
    )


def test_levels_of_a_resumed_run_are_those_of_the_first_model(tmp_path):
    base, rule = folder_with_model(tmp_path), {"stop_retain_nll_increase": 5.0, "retain_loss": "nll"}
    comparing(tmp_path, str(base), **rule | {"forget_loss": "grad_ascent"}).train()
    checkpoint = str(tmp_path / "out" / "checkpoint-2")
    again = comparing(tmp_path, checkpoint, **rule | {"forget_loss": "grad_ascent"})
    refused(lambda: again.train(resume_from_checkpoint=checkpoint), "the stop rules would be measured on it")
    nothing = comparing(tmp_path, checkpoint, forget_loss="grad_ascent", retain_loss="nll")
    assert nothing.train(resume_from_checkpoint=checkpoint).global_step == 4  # nothing is compared, nothing measured


def test_a_second_run_from_an_unlearned_model_says_what_its_reference_is(tmp_path):
    first = comparing(tmp_path, str(folder_with_model(tmp_path)))
    first.train()
    first.save_model()
    second = comparing(tmp_path, str(tmp_path / "out"), output_dir=str(tmp_path / "second"))
    second.train()
    assert step_logs(second)[0]["retain/kl"] == pytest.approx(0, abs=1e-6)
    second.save_model()
    assert first.record.model.earlier_run is None
    assert load_record(tmp_path / "second").model.earlier_run == "out"
    card = (tmp_path / "second" / "README.md").read_text(encoding="utf-8")
    assert "an earlier unlearning run (out)" in card


def test_an_adapter_of_another_base_is_refused(tmp_path):
    """PEFT warns of layers that get no weights, says nothing of weights that get no layer, and goes on."""
    adapted = perturbed(get_peft_model(tiny_model(), lora(target_modules=["q_proj", "down_proj"])))
    config = adapted.get_base_model().config
    bases = {
        "its own": tiny_model(),
        "deeper": LlamaForCausalLM(LlamaConfig(**config.to_dict() | {"num_hidden_layers": 3})),
        "shallower": LlamaForCausalLM(LlamaConfig(**config.to_dict() | {"num_hidden_layers": 1})),
        "of another class": tiny_model("opt"),
        "wider": LlamaForCausalLM(LlamaConfig(**config.to_dict() | {"hidden_size": 64})),
    }
    for name, base in bases.items():
        base.save_pretrained(tmp_path / name)
        adapted.peft_config["default"].base_model_name_or_path = str(tmp_path / name)
        adapted.save_pretrained(tmp_path / f"adapter, {name}")
    trainer = make_trainer(tmp_path, str(tmp_path / "adapter, its own"))
    torch.testing.assert_close(logits(trainer.model), logits(adapted))
    for name in ("deeper", "shallower", "of another class"):
        words = ("not of the base model", f"adapter, {name}")
        refused(lambda name=name: make_trainer(tmp_path, str(tmp_path / f"adapter, {name}")), *words)
    refused(lambda: make_trainer(tmp_path, str(tmp_path / "adapter, wider")), "size mismatch")
