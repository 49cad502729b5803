"""The reference's distributions from hidden states on disk: the run with a copy, resumed, killed, refused."""

import shutil

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaForCausalLM

from fixtures.examples import assert_four_parts
from fixtures.models import VOCABULARY, make_trainer, perturbed, step_logs, tiny_model, train_sets
from hf_unlearn.data import Role
from hf_unlearn.losses.base import Needs
from hf_unlearn.model.score_rows import RowScorer
from hf_unlearn.training.reference import cache as reference_cache
from hf_unlearn.training.reference.plan import ReferenceContext, ReferenceMode, plan_reference

KL = dict(forget_loss="npo", retain_loss="kl", retain_ratio=2)


def capped() -> Gemma2ForCausalLM:
    """A model that caps its logits, with a tied head."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, head_dim=8)
    more = dict(num_key_value_heads=2, initializer_range=0.15, final_logit_softcapping=2.0)
    return Gemma2ForCausalLM(Gemma2Config(vocab_size=VOCABULARY, max_position_embeddings=128, **sizes, **more))


@pytest.mark.parametrize(
    ("model", "targets"),
    [
        (tiny_model, None),
        (tiny_model, ["q_proj"]),
        (tiny_model, ["q_proj", "lm_head"]),
        (capped, None),
        (lambda: tiny_model("opt"), None),
    ],
    ids=["full", "lora", "lora on the head", "capped, tied", "tied"],
)
def test_a_run_is_the_run_with_a_copy(tmp_path, model, targets):
    logs, weights = {}, {}
    for reference in ("copy", "cached"):
        trainer = make_trainer(
            tmp_path / reference,
            model(),
            reference=reference,
            peft_config=None if targets is None else LoraConfig(r=4, target_modules=targets),
            max_steps=3,
            **KL,
        )
        trainer.train()
        logs[reference] = step_logs(trainer)
        weights[reference] = {name: w.detach() for name, w in trainer.model.named_parameters() if w.requires_grad}
        assert (trainer.reference._frozen is None) == (reference == "cached")
    for copy, cached in zip(*logs.values(), strict=True):
        for name in ("loss", "retain/kl", "forget/npo"):
            assert cached[name] == pytest.approx(copy[name], rel=1e-6, abs=1e-6), name
    assert logs["copy"][-1]["retain/kl"] > 1e-3
    for name, weight in weights["copy"].items():
        torch.testing.assert_close(weights["cached"][name], weight, rtol=1e-6, atol=1e-6)


def test_a_given_reference_is_let_go_of_but_for_its_head(tmp_path):
    logs = []
    for reference in ("copy", "cached"):
        model = tiny_model()
        trainer = make_trainer(
            tmp_path / reference, model, reference=reference, ref_model=perturbed(model), max_steps=2, **KL
        )
        trainer.train()
        logs.append(step_logs(trainer))
    assert trainer.reference._frozen is None
    for copy, cached in zip(*logs, strict=True):
        assert cached["retain/kl"] == pytest.approx(copy["retain/kl"], rel=1e-6) and copy["retain/kl"] > 1e-3


def test_it_is_kept_on_disk_and_a_resumed_run_reads_it(tmp_path, monkeypatch):
    options = dict(reference="cached", save_strategy="steps", save_steps=1, max_steps=3, **KL)
    whole = make_trainer(tmp_path, tiny_model(), **options)
    whole.train()
    (file,) = (file for file in (tmp_path / "reference").glob("*.safetensors") if "states" in load_file(file))
    tokens = sum(sum(label != -100 for label in row["labels"][1:]) for row in whole.train_sets.retain)
    assert load_file(file)["states"].shape == (tokens, 32) and file.stat().st_mode & 0o077 == 0
    monkeypatch.delattr(RowScorer, "hidden_states")
    resumed = make_trainer(tmp_path, tiny_model(), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert step_logs(resumed)[-1]["retain/kl"] == step_logs(whole)[-1]["retain/kl"] > 0


def test_a_kill_while_it_is_written_leaves_no_half_of_it(tmp_path, monkeypatch):
    def cut(tensors, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    options = dict(reference="cached", **KL | dict(forget_loss="grad_ascent"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(reference_cache, "save_file", cut)
        make_trainer(tmp_path, tiny_model(), **options).train()
    assert not list((tmp_path / "reference").iterdir())
    make_trainer(tmp_path, tiny_model(), **options).train()
    assert len(list((tmp_path / "reference").glob("*.safetensors"))) == 1


def test_a_disk_without_room_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))
    monkeypatch.delattr(RowScorer, "hidden_states")
    trainer = make_trainer(tmp_path, tiny_model(), reference="cached", **KL)
    with pytest.raises(ValueError, match=r"room for .* MiB of the reference's hidden states(.|\n)*0 MiB free"):
        trainer.train()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(forget_loss="npo", retain_loss="nll"), "a loss that compares distributions, for reference='cached'"),
        (dict(forget_loss="rmu", retain_loss="hidden"), "hidden states"),
    ],
)
def test_what_it_cannot_serve_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, tiny_model(), reference="cached", **options)


def test_a_stream_is_refused(tmp_path):
    sets = train_sets()
    sets["retain"] = sets["retain"].to_iterable_dataset()
    with pytest.raises(ValueError) as error:
        make_trainer(tmp_path, tiny_model(), sets=sets, reference="cached", max_length=64, **KL)
    assert_four_parts(str(error.value), "sets with a length, for reference='cached'", "a stream")


def test_a_head_that_is_split_over_ranks_is_refused():
    whole = dict(peft=False, trained_adapter=False, given=False, stream=False)
    needs = Needs(reference_logits=frozenset([Role.RETAIN]))
    with pytest.raises(ValueError) as error:
        plan_reference(needs, "cached", ReferenceContext(**whole, sharded=True))
    assert_four_parts(str(error.value), "every rank holds whole", "ZeRO-3 or FSDP")
    plan = plan_reference(needs, "cached", ReferenceContext(**whole, sharded=False))
    assert plan.live is ReferenceMode.HIDDEN_STATES


class Barred(LlamaForCausalLM):
    """Bars some tokens after its head, so that its logits are no function of each of the head's alike."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits.index_fill(-1, torch.arange(60, 80), -1e4)
        return output


def test_a_model_that_changes_its_logits_in_another_way_is_refused_before_a_step(tmp_path):
    model = tiny_model()
    barred = Barred(model.config)
    barred.load_state_dict(model.state_dict())
    trainer = make_trainer(tmp_path, barred, reference="cached", **KL)
    with pytest.raises(ValueError) as error:
        trainer.train()
    assert_four_parts(str(error.value), "scaled or capped at most", "Barred", "reference='copy'")
    stored = [load_file(file) for file in (tmp_path / "reference").glob("*.safetensors")]
    assert trainer.state.global_step == 0 and not [each for each in stored if "states" in each]
