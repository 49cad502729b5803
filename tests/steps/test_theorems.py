"""What must hold of step wrappers whatever the losses are: limits, bits that stay, orders. Not their formulas.

Most models are OPT in fp64: Llama's norms are in fp32 whatever the model is in.
"""

from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers import TrainerCallback

from fixtures.models import make_trainer, step_logs, tiny_model, weights
from hf_unlearn import UnlearningTrainer
from hf_unlearn.model.gradients import inner_product
from hf_unlearn.steps import SAM, GradientSurgery, RandomSmoothing, SaliencyMask
from hf_unlearn.steps.saliency import top_share

LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
ADAMW: dict[str, Any] = dict(optim="adamw_torch", weight_decay=0.1, learning_rate=0.01)


def ended(folder, wrappers: Any, model: nn.Module | None = None, **arguments: Any) -> UnlearningTrainer:
    """A trainer after two steps of grad_ascent and nll, accumulated from two micro-batches, unless told otherwise."""
    defaults = dict(
        forget_loss="grad_ascent",
        max_steps=2,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=0.01,
        step_wrappers=wrappers,
    )
    model = tiny_model("opt").double() if model is None else model
    before = weights(model)
    trainer = make_trainer(folder, model, **defaults | arguments)
    trainer.train()
    assert largest(before, weights(trainer.model)) > 1e-4 or "peft_config" in arguments
    return trainer


def largest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference between elements of the weights that both have."""
    return max(float((each - other[name]).abs().max()) for name, each in one.items() if name in other)


def difference(one: UnlearningTrainer, other: UnlearningTrainer) -> float:
    return largest(weights(one.model), weights(other.model))


# --- Limits ---

# Wrappers that do nothing -> the same with an effect.
NOTHING: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sam": ({"rho": 0}, {"rho": 0.1}),
    "random_smoothing": ({"sigma": 0, "samples": 2}, {"sigma": 0.01}),
    "latent_adversarial": ({"epsilon": 0}, {"epsilon": 0.1, "steps": 2}),
    "saliency": ({"keep": 1}, {"keep": 0.5}),
    "weight_averaging": ({"start": 2}, {}),  # the last step alone is its own mean
}
# Without a split the step is the plain one itself; with one, the sums are in another order.
BIT_FOR_BIT = {"latent_adversarial", "saliency", "weight_averaging"}


@pytest.mark.parametrize("name", NOTHING)
def test_a_wrapper_at_its_limit_is_none(tmp_path, name):
    nothing, something = ({"name": name, **arguments} for arguments in NOTHING[name])
    plain = ended(tmp_path / "plain", None)
    off, on = ended(tmp_path / "off", nothing), ended(tmp_path / "on", something)
    assert difference(on, plain) > 1e-5
    assert difference(off, plain) <= (0 if name in BIT_FOR_BIT else 1e-12)
    assert step_logs(off)[0]["loss"] == pytest.approx(step_logs(plain)[0]["loss"], rel=1e-12)


@pytest.mark.parametrize("wrapper", ["sam", "surgery", ["sam", "surgery"]], ids=["sam", "surgery", "both"])
def test_with_every_row_at_the_bound_there_is_no_way_up(tmp_path, wrapper):
    # The forget gradient is zero: its length must not be divided by.
    plain = ended(tmp_path / "plain", None, forget_nll_bound=1e-3)
    wrapped = ended(tmp_path / "wrapped", wrapper, forget_nll_bound=1e-3)
    assert step_logs(wrapped)[0]["bound_share"] == 1 and step_logs(wrapped)[0]["grad_norm"] > 1e-3
    assert difference(wrapped, plain) <= 1e-12


def test_an_average_of_one_step_is_that_step(tmp_path):
    plain = ended(tmp_path / "plain", None, max_steps=1)
    averaged = ended(tmp_path / "averaged", "weight_averaging", max_steps=1)
    assert difference(averaged, plain) == 0


def test_a_run_that_ends_before_the_average_begins_keeps_its_last_weights(tmp_path):
    plain = ended(tmp_path / "plain", None)
    assert difference(ended(tmp_path / "late", {"name": "weight_averaging", "start": 5}), plain) == 0


@pytest.mark.parametrize("wrapper", [{"name": "sam", "rho": 0}, "surgery"])
def test_what_no_loss_reaches_is_not_decayed_either(tmp_path, wrapper):
    # Blocks above RMU's layer have no gradient; a zero in its place would let weight decay move them.
    hidden = dict(forget_loss="rmu", retain_loss="hidden", **ADAMW)
    start = weights(tiny_model("opt").double())
    runs = [ended(tmp_path / name, each, **hidden) for name, each in (("plain", None), ("split", wrapper))]
    moved = [
        {name for name, weight in weights(run.model).items() if not torch.equal(weight, start[name])} for run in runs
    ]
    assert moved[0] == moved[1] and 0 < len(moved[0]) < len(start)
    if wrapper != "surgery":
        assert difference(*runs) <= 1e-9  # AdamW divides by gradients near zero


# --- Weights come back ---


class Watching(UnlearningTrainer):
    """Keeps the weights of every forward in training."""

    def compute_loss(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        self.forwards.append(weights(self.model))
        return super().compute_loss(model, *args, **kwargs)


class BeforeTheStep(TrainerCallback):
    """Keeps the weights right before each optimizer step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def on_pre_optimizer_step(self, *args: Any, model: Any = None, **kwargs: Any) -> None:
        self.seen.append(weights(model))


@pytest.mark.parametrize(
    ("wrappers", "moved"),
    [([SAM(rho=0.1)], 2), ([RandomSmoothing(samples=3)], 6), ([SAM(rho=0.1), RandomSmoothing(samples=2)], 8)],
    ids=["sam", "smoothing", "both"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moved_weights_come_back_to_the_last_bit(tmp_path, wrappers, moved, dtype):
    model, callback = tiny_model().to(dtype), BeforeTheStep()
    start = weights(model)
    trainer = make_trainer(
        tmp_path,
        model,
        trainer_class=Watching,
        callbacks=[callback],
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        step_wrappers=wrappers,
    )
    trainer.forwards = []
    trainer.train()
    # Both micro-batches of the forget side at each of the moved weights, and nothing else away from the start.
    away = [each for each in trainer.forwards if largest(each, start) > 0]
    assert len(away) == moved
    (before_the_step,) = callback.seen
    assert largest(before_the_step, start) == 0
    assert largest(weights(trainer.model), start) > 0


def test_moved_weights_come_back_after_an_error():
    weight = nn.Parameter(torch.randn(5))
    start = weight.detach().clone()

    def fails() -> list[Tensor]:
        if not torch.equal(weight.detach(), start):
            raise RuntimeError("out of memory")
        return [torch.ones(5)]

    for wrapper in (SAM(rho=0.1), RandomSmoothing(sigma=0.1)):
        with pytest.raises(RuntimeError, match="out of memory"):
            wrapper.forget_gradient(fails, [weight], 0)
        assert torch.equal(weight.detach(), start)


# --- Masks ---


@pytest.mark.parametrize("score", ["grad", "wagle"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_masked_out_weights_stay_to_the_last_bit(tmp_path, score, lora):
    model = tiny_model("opt")
    keep = 0.13
    trainer = make_trainer(
        tmp_path,
        model,
        max_steps=4,
        forget_loss="npo",
        step_wrappers={"name": "saliency", "score": score, "keep": keep},
        peft_config=LORA if lora else None,
        **ADAMW,
    )
    trainable = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    start = weights(trainer.model)
    trainer.train()
    moved = {name: weight != start[name] for name, weight in weights(trainer.model).items()}
    total = sum(start[name].numel() for name in trainable)
    # AdamW moves every weight that it is let to: the sign of a gradient does not depend on its size.
    assert sum(int(each.sum()) for each in moved.values()) == round(keep * total)
    assert not any(bool(moved[name].any()) for name in moved.keys() - trainable)
    partly = [name for name, each in moved.items() if 0 < int(each.sum()) < each.numel()]
    assert len(partly) > 2, "whole matrices were taken or left"


def test_a_mask_is_of_the_top_share_of_all_weights_together():
    scores = [torch.tensor([[3.0, 1.0], [2.0, 9.0]]), torch.tensor([8.0, 0.5, 7.0])]
    first, second = top_share(scores, 3 / 7)
    assert first.tolist() == [[False, False], [False, True]] and second.tolist() == [True, False, True]
    assert sum(int(mask.sum()) for mask in top_share(scores, 1e-9)) == 1
    assert all(bool(mask.all()) for mask in top_share(scores, 1))


def test_scores_by_hand():
    weight, forget, retain = [nn.Parameter(torch.tensor([2.0, -1.0]))], [torch.tensor([-3.0, 4.0])], [torch.ones(2)]
    assert SaliencyMask("grad").scores(weight, forget, retain)[0].tolist() == [3.0, 4.0]
    # (2 - 1 / 0.5) * -3 = 0 and (-1 - 1 / 0.5) * 4 = -12
    assert SaliencyMask("wagle", mu=0.5).scores(weight, forget, retain)[0].tolist() == [0.0, 12.0]


def test_the_mask_does_not_depend_on_what_came_before_it(tmp_path):
    # Measuring takes no random number from the run and adds nothing to its log.
    torch.manual_seed(7)
    plain = ended(tmp_path / "plain", None, tiny_model("opt", dropout=0.2).double(), disable_dropout=False)
    all_kept = ended(
        tmp_path / "kept",
        {"name": "saliency", "keep": 1},
        tiny_model("opt", dropout=0.2).double(),
        disable_dropout=False,
    )
    assert difference(all_kept, plain) == 0
    for one, other in zip(step_logs(all_kept), step_logs(plain), strict=True):
        assert one == other


# --- Surgery ---


def gradients(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((3, 4), (5,))]


@pytest.mark.parametrize("seed", range(8))
def test_after_surgery_the_sides_no_longer_conflict(seed):
    forget, retain = gradients(seed), gradients(100 + seed)
    conflict = float(inner_product(forget, retain))
    found = GradientSurgery().reconciled(forget, retain)
    if conflict >= 0:
        assert all(torch.equal(one, other) for one, other in zip(found, forget, strict=True))
        return
    assert float(inner_product(found, retain)) == pytest.approx(0, abs=1e-12)
    # What is left of the forget gradient is what stood across the retain gradient.
    removed = [f - each for f, each in zip(forget, found, strict=True)]
    assert float(inner_product(removed, found)) == pytest.approx(0, abs=1e-12)
    assert float(inner_product(removed, retain)) == pytest.approx(conflict)


def test_the_seeds_hold_both_cases():
    signs = {float(inner_product(gradients(seed), gradients(100 + seed))) < 0 for seed in range(8)}
    assert signs == {True, False}


# --- The order of the list ---


def test_the_order_of_the_list_does_not_matter(tmp_path):
    wrappers = [
        {"name": "sam", "rho": 0.05},
        "surgery",
        {"name": "latent_adversarial", "epsilon": 0.5, "steps": 2},
        {"name": "saliency", "keep": 0.4},
        "weight_averaging",
    ]
    one, other = ended(tmp_path / "one", wrappers), ended(tmp_path / "other", wrappers[::-1])
    assert difference(one, other) == 0
    assert step_logs(one)[-1]["loss"] == step_logs(other)[-1]["loss"]
    for left_out in range(len(wrappers)):
        some = wrappers[:left_out] + wrappers[left_out + 1 :]
        assert difference(ended(tmp_path / f"{left_out}", some), one) > 1e-6
