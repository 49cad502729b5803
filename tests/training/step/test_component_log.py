"""Whether losses were finite: asked for early or late, each answer is of its own steps alone."""

import pytest
import torch
from accelerate import Accelerator

from hf_unlearn.training.step.component_log import ComponentLog


@pytest.mark.parametrize("early", [False, True])
def test_each_answer_is_of_the_losses_since_the_last(early):
    accelerator, log = Accelerator(cpu=True), ComponentLog(["forget/npo"], torch.device("cpu"))
    answers = []
    for loss in (1.0, float("nan"), 2.0, float("inf"), 3.0):
        log.add({"forget/npo": torch.tensor([loss, 1.0])}, torch.tensor(loss))
        if early:
            log.send(accelerator)
        answers.append(log.finite(accelerator))
    assert answers == [True, False, True, False, True]


def test_the_mean_is_over_the_steps_that_had_the_component():
    accelerator, log = Accelerator(cpu=True), ComponentLog(["a", "b", "c"], torch.device("cpu"))
    for value, share in ((1.0, 0.25), (3.0, 0.75), (6.0, 1.0)):  # two steps, the first in two parts
        log.add({"a": torch.tensor([value, share])}, torch.tensor(0.0))
    log.add({"b": torch.tensor([4.0, 1.0])}, torch.tensor(0.0))
    assert log.read(accelerator) == {"a": 5.0, "b": 4.0}
    assert log.read(accelerator) == {}
