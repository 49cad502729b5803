"""Sophia against a loop over single elements, alone and inside UnlearningTrainer. Not whether it unlearns well."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fixtures.models import item_at, tiny_model, tiny_tokenizer, train_sets, weights
from hf_unlearn import UnlearningConfig, UnlearningTrainer
from hf_unlearn.optimizers import Sophia
from oracles import naive

PARTS = ("Expected ", "\nGot: ", "\nWhy it matters: ", "\nWhat to do: ")
BETAS, EPS = (0.8, 0.7), 1e-12


class NaiveSophia:
    """The formula for one weight, element by element, in Python floats (fp64)."""

    def __init__(self, weight: Tensor) -> None:
        self.shape, self.values = weight.shape, weight.detach().double().flatten().tolist()
        self.m, self.h = [0.0] * len(self.values), [0.0] * len(self.values)
        self.quotients: list[float] = []

    def step(self, gradient: Tensor, lr: float, rho: float, decay: float = 0.0, betas=BETAS, eps=EPS) -> Tensor:
        """The weight after a step; `quotients` holds m / max(rho h, eps) before clipping."""
        self.quotients = []
        for i, g in enumerate(gradient.double().flatten().tolist()):
            self.m[i] = betas[0] * self.m[i] + (1 - betas[0]) * g
            self.h[i] = betas[1] * self.h[i] + (1 - betas[1]) * g * g
            quotient = self.m[i] / max(rho * self.h[i], eps)
            self.quotients.append(quotient)
            decayed = self.values[i] - lr * decay * self.values[i]
            self.values[i] = decayed - lr * max(-1.0, min(1.0, quotient))
        return torch.tensor(self.values, dtype=torch.float64).reshape(self.shape)

    @property
    def clipped(self) -> float:
        return sum(abs(q) > 1 for q in self.quotients) / len(self.quotients)


def random_weights(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in shapes]


def random_gradients(parameters: list[nn.Parameter], step: int, scale: float = 1.0) -> None:
    """Gradients of many sizes, new in every step."""
    generator = torch.Generator().manual_seed(100 + step)
    for weight in parameters:
        gradient = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        weight.grad = (scale * gradient**3).to(weight.dtype)


# The formula


def test_steps_computed_by_hand():
    # Betas .9 and .95. m = .1 * 2 = .2, h = .05 * 4 = .2, decay 1 * (1 - .1 * .5) = .95.
    clipped, free = (nn.Parameter(torch.tensor([1.0], dtype=torch.float64)) for _ in range(2))
    optimizer = Sophia([{"params": [clipped], "rho": 0.04}, {"params": [free], "rho": 2.0}], lr=0.1, weight_decay=0.5)
    clipped.grad, free.grad = torch.full_like(clipped, 2.0), torch.full_like(free, 2.0)
    optimizer.step()
    assert clipped.item() == pytest.approx(0.85, rel=1e-14)  # .2 / .008 = 25, clipped to 1
    assert free.item() == pytest.approx(0.90, rel=1e-14)  # .2 / .4 = .5
    # m = .18 - .2 = -.02, h = .19 + .2 = .39; rho h = .0156 gives -1, rho h = .78 gives -.02 / .78.
    clipped.grad, free.grad = torch.full_like(clipped, -2.0), torch.full_like(free, -2.0)
    optimizer.step()
    assert clipped.item() == pytest.approx(0.85 * 0.95 + 0.1, rel=1e-14)
    assert free.item() == pytest.approx(0.90 * 0.95 + 0.1 * 0.02 / 0.78, rel=1e-14)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_every_element_follows_the_naive_loop(decay):
    first, second = random_weights((3, 5), (7,)), random_weights((2, 2, 3), ())
    other = {"params": second, "lr": 0.003, "rho": 3.0, "betas": [0.5, 0.2], "weight_decay": 2 * decay}
    optimizer = Sophia([{"params": first}, other], lr=0.01, betas=BETAS, rho=0.8, eps=EPS, weight_decay=decay)
    loops = [NaiveSophia(weight) for weight in first + second]
    clipped = []
    for step in range(5):
        before = [weight.detach().clone() for weight in first + second]
        random_gradients(first + second, step)
        optimizer.step()
        for i, (weight, loop) in enumerate(zip(first + second, loops, strict=True)):
            lr, rho, decays, betas = (0.01, 0.8, decay, BETAS) if i < 2 else (0.003, 3.0, 2 * decay, (0.5, 0.2))
            expected = loop.step(weight.grad, lr, rho, decays, betas)
            assert (before[i] - expected).abs().max() > 1e-5, "a step that moves nothing shows nothing"
            torch.testing.assert_close(weight.detach(), expected, rtol=1e-12, atol=1e-14)
            clipped.append(loop.clipped)
    assert 0.2 < sum(clipped) / len(clipped) < 0.8, "both branches of the clip"


def test_weights_of_several_dtypes_in_one_group():
    parameters = [
        weight
        for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float32)
        for weight in random_weights((4, 3), dtype=dtype)
    ]
    still = nn.Parameter(torch.ones(3))  # no gradient: neither moved nor decayed
    optimizer = Sophia([*parameters, still], lr=0.02, betas=BETAS, rho=0.8, weight_decay=0.1)
    loops = [NaiveSophia(weight) for weight in parameters]
    random_gradients(parameters, 0)
    optimizer.step()
    for weight, loop in zip(parameters, loops, strict=True):
        expected = loop.step(weight.grad, 0.02, 0.8, 0.1)
        assert 0 < loop.clipped < 1
        torch.testing.assert_close(weight.detach(), expected.to(weight.dtype), rtol=1e-6, atol=1e-7)
    assert torch.equal(still, torch.ones(3)) and still not in optimizer.state


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_moved_in_fp32_and_rounded_once(dtype):
    (weight,) = random_weights((6, 5), dtype=dtype)
    # Most squares of these gradients are zero in fp16: with averages in its dtype nearly all would be clipped.
    optimizer = Sophia([weight], lr=0.02, betas=BETAS, rho=1e5, weight_decay=0.1)
    loop = NaiveSophia(weight)
    for step in range(4):
        random_gradients([weight], step, scale=1e-5)
        before = weight.detach().clone()
        optimizer.step()
        expected = loop.step(weight.grad, 0.02, 1e5, 0.1).to(dtype)
        loop.values = expected.double().flatten().tolist()  # the weight itself is kept in half precision
        assert 0.1 < loop.clipped < 0.9
        assert not torch.equal(before, expected) and torch.equal(weight.detach(), expected)
    for name, values in (("exp_avg", loop.m), ("exp_avg_sq", loop.h)):
        average = optimizer.state[weight][name]
        assert average.dtype == torch.float32 and not torch.equal(average, average.to(dtype).float())
        assert average.flatten().tolist() == pytest.approx(values, rel=1e-5)


# Ends of the formula


def test_without_a_gradient_from_the_start_no_element_moves():
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    optimizer = Sophia([weight], lr=0.1)
    for _ in range(3):
        weight.grad = torch.tensor([0.0, 0.5, -0.0])
        optimizer.step()
    assert weight[[0, 2]].tolist() == [1.0, 3.0]  # 0 / eps: not NaN
    assert weight[1].item() == pytest.approx(-2.3)


def test_a_residue_below_eps_is_not_a_step_of_full_size():
    weight = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    weight.grad = torch.tensor([1e-17, 1e-9], dtype=torch.float64)
    Sophia([weight], lr=1.0).step()
    assert weight.tolist() == pytest.approx([-1e-18 / 1e-12, -1.0])


def test_rho_leads_from_the_sign_of_the_momentum_to_standing_still():
    moved = []
    for rho in (1e-30, 1.0, 1e30):
        (weight,) = random_weights((50,))
        start = weight.detach().clone()
        random_gradients([weight], 0)
        Sophia([weight], lr=0.1, rho=rho).step()
        moved.append(weight.detach() - start)
        if rho == 1e-30:
            torch.testing.assert_close(moved[0], -0.1 * weight.grad.sign())
    assert 1e-3 < moved[1].abs().sum() < moved[0].abs().sum() * 0.99
    assert moved[2].abs().max() < 1e-20


def test_a_gradient_that_is_not_finite_shows():
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([float("nan"), 1.0])
    Sophia([weight], lr=0.1).step()
    assert weight.isnan().tolist() == [True, False]


# As any optimizer of torch


def test_a_closure_is_evaluated_with_gradients_and_its_loss_returned():
    (weight,) = random_weights((4,))
    optimizer = Sophia([weight], lr=0.1)
    start = weight.detach().clone()

    def closure() -> float:
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == pytest.approx((start**2).sum().item())
    torch.testing.assert_close(weight.detach(), start - 0.1 * start.sign())


def test_a_scaled_loss_is_unscaled_before_the_step():
    results = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
        (weight,) = random_weights((8,))
        optimizer = Sophia([weight], lr=0.1, rho=1.0)  # a loss 1024 times as large would not be clipped alike
        loss = (weight**2).sum()
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
        results.append(weight.detach())
    assert torch.equal(*results) and not torch.equal(results[0], random_weights((8,))[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_saved_state_goes_on_bit_for_bit(dtype, tmp_path):
    def run(parameters: list[nn.Parameter], optimizer: Sophia, steps: range) -> None:
        for step in steps:
            random_gradients(parameters, step)
            optimizer.step()

    whole = random_weights((5, 4), (3,), dtype=dtype)
    optimizer = Sophia(whole, lr=0.02, rho=0.8)
    run(whole, optimizer, range(3))
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    rest = copy.deepcopy(whole)
    run(whole, optimizer, range(3, 6))
    assert not torch.equal(whole[0], rest[0])

    resumed = Sophia([{"params": rest[:1]}, {"params": rest[1:]}], lr=9.0)
    with pytest.raises(ValueError, match="parameter group"):  # torch's own check still stands
        resumed.load_state_dict(torch.load(tmp_path / "optimizer.pt"))
    resumed = Sophia(rest, lr=9.0)
    resumed.load_state_dict(torch.load(tmp_path / "optimizer.pt"))
    assert resumed.param_groups[0]["lr"] == 0.02
    run(rest, resumed, range(3, 6))
    for one, other in zip(whole, rest, strict=True):
        assert torch.equal(one, other)
        for name in ("exp_avg", "exp_avg_sq"):
            average = resumed.state[other][name]
            assert torch.equal(optimizer.state[one][name], average)
            assert average.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"lr": -1e-5}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"lr": "1e-5"}, "lr"),
        ({"lr": torch.tensor(1e-5)}, "lr"),
        ({"betas": (1.0, 0.9)}, "betas"),
        ({"betas": (0.9, -0.1)}, "betas"),
        ({"betas": (0.9,)}, "betas"),
        ({"betas": 0.9}, "betas"),
        ({"rho": 0.0}, "rho"),
        ({"rho": float("inf")}, "rho"),
        ({"eps": 0}, "eps"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"weight_decay": True}, "weight_decay"),
    ],
)
def test_an_argument_outside_its_range_is_refused(arguments: dict[str, Any], name: str):
    first, second = random_weights((2,), (2,))
    optimizer = Sophia([first])
    attempts: list[Callable[[], Any]] = [
        lambda: Sophia([first], **arguments),
        lambda: Sophia([{"params": [first], **arguments}]),
        lambda: optimizer.add_param_group({"params": [second], **arguments}),
    ]
    for attempt in attempts:
        with pytest.raises(ValueError, match=rf"^{name}(\[[01]\])? of Sophia must be .*, got ") as error:
            attempt()
        assert "\n" not in str(error.value)
    assert len(optimizer.param_groups) == 1


def test_a_sparse_gradient_is_refused_before_anything_moves():
    dense, table = nn.Linear(3, 2), nn.Embedding(5, 3, sparse=True)
    optimizer = Sophia([{"params": dense.parameters()}, {"params": table.parameters()}], lr=0.1)
    before = copy.deepcopy(dense)
    dense(table(torch.tensor([1, 2]))).sum().backward()
    with pytest.raises(ValueError, match="Expected dense gradients") as error:
        optimizer.step()
    assert [part in str(error.value) for part in PARTS] == [True] * 4
    assert torch.equal(dense.weight, before.weight) and not optimizer.state
    table.weight.grad = None
    optimizer.step()
    assert not torch.equal(dense.weight, before.weight)


# Inside the trainer

LR, RHO, DECAY, BATCH = 0.02, 30.0, 0.2, 3


def sophia_trainer(folder: Path, model: nn.Module, **arguments: Any) -> UnlearningTrainer:
    """Two steps of grad_ascent + nll with Sophia under a linear schedule; Trainer decays all but the norms."""
    defaults: dict[str, Any] = dict(
        output_dir=str(folder / "out"),
        per_device_train_batch_size=BATCH,
        max_steps=2,
        learning_rate=9.0,  # Trainer leaves it out of optimizer_cls_and_kwargs: it must not matter
        lr_scheduler_type="linear",
        weight_decay=DECAY,
        max_grad_norm=1e9,
        forget_loss="grad_ascent",
        forget_nll_bound=None,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    return UnlearningTrainer(
        model=model,
        args=UnlearningConfig(**defaults | arguments),
        train_dataset=train_sets(),
        processing_class=tiny_tokenizer(),
        optimizer_cls_and_kwargs=(Sophia, {"lr": LR, "betas": BETAS, "rho": RHO}),
    )


def test_the_trainer_moves_every_weight_as_the_naive_loop(tmp_path):
    model = tiny_model().double()
    policy, start = copy.deepcopy(model), weights(model)
    trainer = sophia_trainer(tmp_path, model)
    loops = {name: NaiveSophia(weight) for name, weight in policy.named_parameters()}
    clipped: list[float] = []
    for step, lr in enumerate((LR, LR / 2)):
        items = [item_at(trainer, p) for p in range(step * BATCH, (step + 1) * BATCH)]
        retain = [row for item in items for row in item["retain"]]
        loss = naive.grad_ascent(policy, items) + naive.retain_nll(policy, retain)
        gradients = torch.autograd.grad(loss, list(policy.parameters()))
        with torch.no_grad():
            for (name, weight), gradient in zip(policy.named_parameters(), gradients, strict=True):
                weight.copy_(loops[name].step(gradient, lr, RHO, 0.0 if "norm" in name else DECAY))
                clipped.append(loops[name].clipped)
    assert 0.1 < sum(clipped) / len(clipped) < 0.9
    trainer.train()
    for name, weight in model.named_parameters():
        expected = policy.get_parameter(name).detach()
        assert (expected - start[name]).abs().max() > 1e-3, name
        # Tokens of no row have gradients of 0, and of 1e-17 in the other order of summation: eps keeps both still.
        torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_resumed_from_a_checkpoint_is_the_uninterrupted_one(tmp_path, dtype):
    saving: dict[str, Any] = dict(save_strategy="steps", save_steps=1, max_steps=3)
    whole = sophia_trainer(tmp_path, tiny_model().to(dtype), **saving)
    whole.train()
    rest = sophia_trainer(tmp_path, tiny_model().to(dtype), **saving)
    rest.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-1"))
    assert rest.state.global_step == 3 and isinstance(rest.optimizer.optimizer, Sophia)
    start, after = weights(tiny_model().to(dtype)), weights(whole.model)
    for name, weight in rest.model.named_parameters():
        assert not torch.equal(after[name], start[name]), name
        assert torch.equal(weight, after[name]), name
