"""The reference by its likeliest tokens: the KL of k + 1 events, below the exact one and within the bound of it."""

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file

from fixtures.models import make_trainer, step_logs, tiny_model
from fixtures.scores import random_logits
from hf_unlearn.losses import RetainJSD, RetainKL
from hf_unlearn.model.reference_logits import TopKLogits, log_remainder, tail_bound

T, V = 9, 40


def likeliest(reference: torch.Tensor, k: int) -> TopKLogits:
    logps, ids = reference.log_softmax(-1).topk(k)
    return TopKLogits(ids, logps)


def pair(scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    reference = random_logits(T, V, scale=scale).double()
    return reference, reference + random_logits(T, V, scale=0.7, seed=1).double()


def events(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Probabilities of the k tokens and of all others together, [T, k + 1]."""
    p = logits.softmax(-1).gather(-1, ids)
    return torch.cat([p, 1 - p.sum(-1, keepdim=True)], dim=1)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_kl_is_that_of_k_tokens_and_the_rest(k):
    reference, policy = pair()
    top = likeliest(reference, k)
    policy.requires_grad_()
    part = slice(2, 7)
    values = RetainKL().at_positions(policy[part], top.ids[part, 0], top.at(part, policy[part]))
    p, q = events(reference[part], top.ids[part]), events(policy[part], top.ids[part])
    expected = (p * (p / q).log()).sum(-1)
    torch.testing.assert_close(values, expected, rtol=1e-10, atol=1e-12)
    # The tail's shape is the model's own: the gradient is that of the k + 1 events too.
    grad_logits = RetainKL().grad_logits(policy[part], top.ids[part, 0], top.at(part, policy[part]))
    (gradient,) = torch.autograd.grad(expected.sum(), policy)
    torch.testing.assert_close(grad_logits, gradient[part], rtol=1e-9, atol=1e-12)
    assert expected.min() > 1e-4


@pytest.mark.parametrize("loss", [RetainKL(), RetainJSD()], ids=lambda loss: loss.name)
def test_divergences_are_lower_bounds_that_rise_with_k_to_the_exact_one(loss):
    reference, policy = pair()
    exact = loss.at_positions(policy, reference.argmax(-1), reference)
    found = [
        loss.at_positions(policy, reference.argmax(-1), likeliest(reference, k).at(slice(0, T), policy))
        for k in (1, 3, 10, 30, V)
    ]
    for lower, higher in zip(found, [*found[1:], exact], strict=True):
        assert (lower <= higher + 1e-12).all()
    torch.testing.assert_close(found[-1], exact, rtol=1e-9, atol=1e-12)
    assert (found[0] < 0.9 * exact).any()


@pytest.mark.parametrize("scale", [0.5, 2.0, 6.0])
@pytest.mark.parametrize("k", [1, 4, 16])
def test_what_is_lacking_is_within_the_bound(k, scale):
    reference, policy = pair(scale)
    top = likeliest(reference, k)
    exact = RetainKL().at_positions(policy, top.ids[:, 0], reference)
    lacking = exact - RetainKL().at_positions(policy, top.ids[:, 0], top.at(slice(0, T), policy))
    bound = tail_bound(policy, top.ids, top.logps)
    assert (lacking <= bound + 1e-12).all() and (lacking > 0).all()
    # By its definition: p(tail) KL of the two tails.
    outside = torch.ones(T, V, dtype=torch.bool).scatter(-1, top.ids, False)
    p, q = (each.softmax(-1)[outside].view(T, -1) for each in (reference, policy))
    mass, own_mass = p.sum(-1, keepdim=True), q.sum(-1, keepdim=True)
    tails = (p * ((p / mass) / (q / own_mass)).log()).sum(-1)
    torch.testing.assert_close(lacking, tails, rtol=1e-7, atol=1e-12)


def test_a_reference_that_is_certain_leaves_a_tail_without_mass():
    logits = torch.zeros(1, 5)
    logits[0, 2] = 200.0
    top = likeliest(logits, 2)
    assert torch.isfinite(log_remainder(top.logps)).all()
    policy = torch.randn(1, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    value = RetainKL().at_positions(policy, top.ids[:, 0], top.at(slice(0, 1), policy))
    torch.testing.assert_close(value, -policy.log_softmax(-1)[:, 2], rtol=1e-5, atol=1e-5)
    assert torch.isfinite(RetainKL().grad_logits(policy, top.ids[:, 0], top.at(slice(0, 1), policy))).all()


@pytest.mark.parametrize("loss", ["kl", "jsd"])
@pytest.mark.parametrize("peft", [False, True], ids=["full", "lora"])
def test_a_run_with_all_tokens_is_the_run_with_a_copy(tmp_path, loss, peft):
    logs = {}
    for reference, k in (("copy", 1), ("topk", 1000), ("topk", 8)):
        trainer = make_trainer(
            tmp_path / f"{reference}{k}",
            tiny_model(),
            forget_loss="npo",
            retain_loss=loss,
            reference=reference,
            reference_top_k=k,
            peft_config=LoraConfig(r=4, target_modules=["q_proj"]) if peft else None,
            max_steps=4,
            learning_rate=0.05,
            retain_ratio=2,
        )
        trainer.train()
        logs[reference, k] = step_logs(trainer)
        assert (trainer.reference._frozen is None) == (reference == "topk")
    for copy, whole, part in zip(*logs.values(), strict=True):
        for name in ("loss", "grad_norm", f"retain/{loss}", "forget/npo"):
            assert whole[name] == pytest.approx(copy[name], rel=2e-4, abs=1e-6), name
        assert part[f"retain/{loss}"] <= copy[f"retain/{loss}"] * 1.02 + 1e-6
    assert logs["copy", 1][-1][f"retain/{loss}"] > 1e-3


def test_it_is_kept_on_disk_and_read_again(tmp_path, monkeypatch):
    options = dict(
        forget_loss="grad_ascent",
        retain_loss="kl",
        reference="topk",
        reference_top_k=6,
        max_steps=2,
        reference_cache_dir=str(tmp_path / "cache"),
    )
    runs = []
    for _ in range(2):
        trainer = make_trainer(tmp_path / "run", tiny_model(), **options)
        trainer.train()
        runs.append(step_logs(trainer))
        (file,) = (tmp_path / "cache").glob("*.safetensors")
    assert runs[0] == runs[1]
    stored = load_file(file)
    tokens = sum(sum(label != -100 for label in row["labels"][1:]) for row in trainer.train_sets.retain)
    assert stored["ids"].shape == stored["logps"].shape == (tokens, 6) and stored["ids"].dtype == torch.int32


def test_another_number_of_tokens_is_not_read_from_the_disk(tmp_path):
    for k in (6, 3):
        options = dict(forget_loss="grad_ascent", retain_loss="kl", reference="topk", reference_top_k=k)
        trainer = make_trainer(tmp_path, tiny_model(), reference_cache_dir=str(tmp_path / "cache"), **options)
        trainer.train()
        ((stored, _),) = trainer.reference._top_k.values()
        assert stored.ids.shape[1] == stored.logps.shape[1] == k


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(forget_loss="npo", retain_loss="nll"), "a loss that compares distributions"),
        (dict(forget_loss="rmu", retain_loss="hidden"), "hidden states"),
        (dict(forget_loss="npo", retain_loss="kl", reference_top_k=0), "reference_top_k must be a whole number"),
    ],
)
def test_what_it_cannot_serve_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, tiny_model(), reference="topk", **options)
