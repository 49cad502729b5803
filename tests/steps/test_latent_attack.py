"""The latent attack seen from outside: where its perturbation lies, what it does, whom it leaves alone. In fp64.

The models are OPT: Llama's norms are in fp32 whatever the model is in, and the attack's steps double what they round.
"""

import math
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor

from fixtures.models import item_at, make_trainer, step_logs, tiny_model, train_sets, weights
from hf_unlearn import DataCollatorForUnlearning, UnlearningTrainer
from hf_unlearn.data import Role
from hf_unlearn.data.batch import Batch
from hf_unlearn.model.hidden_states import decoder_blocks
from hf_unlearn.model.scoring import Likelihoods, Scores
from hf_unlearn.steps import LatentAdversarial
from hf_unlearn.training.step.forward import UnlearningForward

LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
EPSILON = 0.7
ATTACK = LatentAdversarial(epsilon=EPSILON, steps=4, layer=1)


@pytest.fixture(scope="module")
def trainer(tmp_path_factory) -> UnlearningTrainer:
    """An untrained trainer, for its model, its objective and paired items with rows of every role."""
    return make_trainer(
        tmp_path_factory.mktemp("attack"),
        tiny_model("opt").double(),
        forget_loss=["dpo", {"name": "random_mismatch", "k": 2}],
        retain_loss=["nll", "answer_preservation"],
    )


def seen(trainer: UnlearningTrainer, batch: Batch, *wrappers: LatentAdversarial) -> tuple[Scores, Tensor]:
    """Scores of a batch inside wrappers, and the hidden states [B, L, H] that the second block is given at last."""
    inputs: list[Tensor] = []
    block = decoder_blocks(trainer.model)[1]
    handle = block.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
    policy = UnlearningForward(trainer.model, trainer.unlearning_objective, wrappers, Likelihoods.TRAINED)
    scores, _ = policy(trainer.model, batch, {})
    handle.remove()
    return scores, inputs[-1]


def items(trainer: UnlearningTrainer, count: int = 4) -> list[dict[str, Any]]:
    return [item_at(trainer, position) for position in range(count)]


@pytest.mark.parametrize("side", ["right", "left"])
def test_what_is_added_lies_in_the_ball_on_the_tokens_of_forget_rows(trainer, side):
    batch = DataCollatorForUnlearning(0, pad_to_multiple_of=32, padding_side=side)(items(trainer))
    _, plain = seen(trainer, batch)
    scores, attacked = seen(trainer, batch, ATTACK)
    length = (attacked - plain).norm(dim=-1)
    forget, tokens = batch["role"] == Role.FORGET, batch["attention_mask"].bool()
    assert int((~forget).sum()) > 8 and bool((~tokens[forget]).any())
    assert not bool(length[~forget].any())
    assert not bool(length[forget][~tokens[forget]].any())
    assert float(length.max()) <= EPSILON * (1 + 1e-12)
    # Steps of 2.5 epsilon / 4 leave a position on the sphere, but for the last token, on which no answer depends.
    assert int((length > 0.9 * EPSILON).sum()) > 0.8 * int(tokens[forget].sum())
    assert int((length[forget][tokens[forget]] == 0).sum()) == int(forget.sum())
    assert scores.retain_alternate is not None


def test_it_lowers_the_nll_of_every_forget_answer_and_of_no_other(trainer):
    batch = DataCollatorForUnlearning(0)(items(trainer))
    plain, _ = seen(trainer, batch)
    attacked, _ = seen(trainer, batch, ATTACK)
    harder, _ = seen(trainer, batch, LatentAdversarial(epsilon=3 * EPSILON, steps=4, layer=1))
    first, second, third = (scores.rows(Role.FORGET).nll_sum() for scores in (plain, attacked, harder))
    assert bool((third < second).all()) and bool((second < first - 0.1).all())
    for role in set(Role) - {Role.FORGET, Role.HOLDOUT}:
        # The attacked batch is of the same shape, so not even the rounding differs.
        assert torch.equal(plain.rows(role).logps, attacked.rows(role).logps)


def test_it_leaves_no_gradient_and_no_hook(trainer):
    batch = DataCollatorForUnlearning(0)(items(trainer))
    before, _ = seen(trainer, batch)
    seen(trainer, batch, ATTACK)
    assert all(weight.grad is None for weight in trainer.model.parameters())
    after, _ = seen(trainer, batch)
    assert torch.equal(before.rows(Role.FORGET).logps, after.rows(Role.FORGET).logps)


@pytest.mark.parametrize("padding", [{"pad_to_multiple_of": 64}, {"padding_side": "left"}])
def test_neither_padding_nor_neighbours_change_it(trainer, padding):
    together, _ = seen(trainer, DataCollatorForUnlearning(0, **padding)(items(trainer)), ATTACK)
    alone = [seen(trainer, DataCollatorForUnlearning(0)([item]), ATTACK)[0] for item in items(trainer)]
    expected = torch.cat([scores.rows(Role.FORGET).logps for scores in alone])
    torch.testing.assert_close(together.rows(Role.FORGET).logps, expected, rtol=1e-9, atol=1e-9)


# --- In training ---


def trained(folder, **arguments: Any) -> UnlearningTrainer:
    """Two steps with the attack, unless `step_wrappers` says otherwise."""
    defaults = dict(step_wrappers=ATTACK, max_steps=2, forget_loss="npo", learning_rate=0.01)
    trainer = make_trainer(folder, tiny_model("opt").double(), **defaults | arguments)
    trainer.train()
    return trainer


def assert_same(one: UnlearningTrainer, other: UnlearningTrainer, tolerance: float) -> None:
    after = weights(other.model)
    for name, weight in weights(one.model).items():
        torch.testing.assert_close(weight, after[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("forget", "retain"), [("npo", "kl"), ("undial", "hidden")])
def test_the_reference_never_sees_it(tmp_path, forget, retain):
    # With the adapter switched off the reference runs through the very blocks that are attacked; a copy does not.
    runs = [
        trained(
            tmp_path / reference,
            forget_loss=forget,
            retain_loss=retain,
            peft_config=LORA,
            reference=reference,
            learning_rate=0.5,
        )
        for reference in ("adapter", "copy")
    ]
    assert runs[0].reference.source(runs[0].model) is runs[0].model
    assert runs[1].reference.source(runs[1].model) is not runs[1].model
    assert_same(*runs, tolerance=1e-9)
    plain = trained(
        tmp_path, forget_loss=forget, retain_loss=retain, peft_config=LORA, learning_rate=0.5, step_wrappers=None
    )
    logs = [step_logs(each)[0] for each in (*runs, plain)]
    assert logs[0][f"forget/{forget}"] == pytest.approx(logs[1][f"forget/{forget}"], rel=1e-6)
    assert logs[0][f"forget/{forget}"] != pytest.approx(logs[2][f"forget/{forget}"], rel=1e-3)


def test_against_a_reference_at_the_same_weights_npo_is_above_its_value_there(tmp_path):
    # The answers' NLL under attack is below the reference's: softplus(-b (NLL - NLL_ref)) > ln 2.
    (log, *_) = step_logs(trained(tmp_path, max_steps=1, reference="copy"))
    assert log["forget/npo"] > 2 / 0.1 * math.log(2) * 1.05


def test_the_retain_side_and_evaluations_never_see_it(tmp_path):
    sets = {name: rows.select(range(5)) for name, rows in train_sets().items() if name != "holdout"}
    attacked, plain = (
        trained(tmp_path / name, step_wrappers=wrappers, max_steps=1, eval_dataset=sets, learning_rate=1e-9)
        for name, wrappers in (("attacked", ATTACK), ("plain", None))
    )
    one, other = step_logs(attacked)[0], step_logs(plain)[0]
    assert one["retain/nll"] == pytest.approx(other["retain/nll"], rel=1e-6)
    assert one["forget_nll"] < other["forget_nll"] - 0.1
    evaluated = [
        {name: value for name, value in each.evaluate().items() if name.endswith("nll")} for each in (attacked, plain)
    ]
    assert len(evaluated[0]) == 2 and evaluated[0] == pytest.approx(evaluated[1], rel=1e-6)


@pytest.mark.parametrize("kind", ["checkpointing", "padding"])
def test_a_run_does_not_depend_on(tmp_path, kind):
    arguments = {"checkpointing": {"activation_checkpointing": True}, "padding": {"pad_to_multiple_of": 64}}[kind]
    plain = trained(tmp_path / "plain")
    other = trained(tmp_path / kind, **arguments)
    assert_same(plain, other, tolerance=0 if kind == "checkpointing" else 1e-9)
    assert step_logs(plain)[0]["loss"] != step_logs(plain)[1]["loss"]
