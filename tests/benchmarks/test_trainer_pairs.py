"""Both trainers of a pair train on the same tokens in the same batches, pass after pass; what their memory is."""

import pytest
import torch

from benchmarks.common.synthetic import Sizes
from benchmarks.cost.scaling import asked_memory, asked_time, kept
from benchmarks.cost.trainer_memory import kept_mib, memory_of_step
from benchmarks.cost.trainer_pairs import BATCHES, Method, build_pair, paired_times, steps_of, time_figures

SIZES = Sizes(vocabulary=4096, hidden=32, layers=1, shortest=16, longest=32, batch=2)


def inputs_of(trainer, count):
    """`input_ids` of the first steps after the one of `train()`."""
    seen = []
    own = trainer.training_step

    def keep(model, inputs, counts=None):
        seen.append(inputs["input_ids"].clone())
        return own(model, inputs, counts)

    trainer.training_step = keep
    steps = steps_of(trainer)
    for _ in range(count):
        next(steps)
    return seen[1:]


def test_a_method_beside_another_has_its_rows_and_those_that_it_adds(tmp_path):
    method = Method("simnpo", arguments={"anchor_loss": "kl", "anchor_ratio": 0.5}, beside=Method("simnpo"))
    ours, others = (inputs_of(trainer, 3) for trainer in build_pair(method, SIZES, str(tmp_path)))
    for batch, other in zip(ours, others, strict=True):
        assert (len(batch), len(other)) == (5, 4)
        width = min(batch.shape[1], other.shape[1])
        assert torch.equal(batch[:4, :width], other[:, :width])


@pytest.mark.parametrize("architecture", ["llama", "opt"])
@pytest.mark.parametrize("method", [Method("npo"), Method("random_mismatch", lora=True)])
def test_a_pair_trains_on_the_same_tokens(tmp_path, architecture, method):
    sizes = Sizes(architecture, **{key: value for key, value in vars(SIZES).items() if key != "architecture"})
    ours, plain = build_pair(method, sizes, str(tmp_path))
    count = 2 * BATCHES  # the second pass too, for which the pairing would be drawn anew
    batches, plain_batches = inputs_of(ours, count), inputs_of(plain, count)
    for batch, other in zip(batches, plain_batches, strict=True):
        assert torch.equal(batch, other)
    assert not torch.equal(batches[0], batches[1])


def test_memory_is_what_stands_above_weights_gradients_and_optimizer(tmp_path):
    ours, plain = build_pair(Method("npo", "kl"), SIZES, str(tmp_path))
    memory, plain_memory = (memory_of_step(trainer, steps_of(trainer)) for trainer in (ours, plain))
    weights = sum(parameter.numel() for parameter in plain.model.parameters()) * 4 / 2**20
    assert plain_memory["weights_mib"] == plain_memory["gradients_mib"] == pytest.approx(weights)
    # Two moments, and one step count of fp32 for each tensor.
    counts = len(list(plain.model.parameters())) * 4 / 2**20
    assert plain_memory["optimizer_mib"] == pytest.approx(2 * weights + counts)
    assert memory["frozen_copy_mib"] == pytest.approx(weights)
    assert plain_memory["frozen_copy_mib"] == 0
    # Logits in fp32 of every position, twice: as they come, and their gradient.
    longest = max(len(row) for row in plain.train_dataset["input_ids"][:4])
    assert plain_memory["peak_above_mib"] > 2 * 4 * longest * SIZES.vocabulary * 4 / 2**20
    assert memory["peak_above_mib"] - memory["frozen_copy_mib"] < plain_memory["peak_above_mib"]
    assert kept_mib(ours)["weights_mib"] == pytest.approx(weights)


def test_pairs_take_turns_and_give_medians(monkeypatch):
    order = []

    def steps(name):
        while True:
            order.append(name)
            yield

    pairs = paired_times(steps("ours"), steps("plain"), 1, 3)
    assert order == ["ours", "plain", "plain", "ours", "ours", "plain", "plain", "ours"]
    assert len(pairs) == 3
    figures = time_figures([((2, 4), (1, 1)), ((3, 1), (1, 1)), ((10, 9), (5, 3))])
    assert (figures["wall_ratio"], figures["cpu_ratio"]) == (2, 3)
    assert (figures["wall_ms"], figures["plain_cpu_ms"]) == (3000, 1000)


def test_what_is_asked_stands_beside_what_is_measured():
    row = {"axis": "vocabulary", "value": 131072, "method": "simnpo + nll"}
    assert kept(1.0, asked_time(row)) == "< 1.00 NO"
    assert kept(0.5, asked_memory(row)) == "<= 0.50 yes"
    kl = row | {"method": "npo + kl (adapter off), LoRA"}
    assert kept(1.39, asked_time(kl)) == "<= 1.40 yes"
    assert kept(1.06, asked_time(row | {"value": 8192})) == "<= 1.05 NO"
    assert kept(9.0, asked_time(row | {"axis": "batch", "value": 8})) == ""
