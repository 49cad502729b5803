"""Ranks that wait for each other have as many forwards of a micro-batch each. Not that the trajectory is the same."""

from types import SimpleNamespace

import torch

from hf_unlearn.data.batch import parts_of
from hf_unlearn.training.step.parts_in_step import agree_on_parts, is_idle


def part(tokens: int) -> dict[str, torch.Tensor]:
    return {"labels": torch.zeros(1, tokens)}


def test_a_rank_with_fewer_parts_takes_its_smallest_again_for_nothing():
    """This rank has 1, 3 and 2 parts where the other has 2, 2 and 2; a step may have four micro-batches."""
    other = torch.tensor([[2, 2, 2, 0]])
    accelerator = SimpleNamespace(device="cpu", gather=lambda own: torch.cat([own, other]))
    batches = [part(5), part(9) | {"parts": [part(4), part(3), part(2)]}, part(6) | {"parts": [part(4), part(2)]}]
    agree_on_parts(batches, accelerator, 4)
    sizes = [[(each["labels"].numel(), is_idle(each)) for each in parts_of(batch)] for batch in batches]
    assert sizes == [[(5, True), (5, False)], [(4, False), (3, False), (2, False)], [(4, False), (2, False)]]
    assert "parts" not in batches[0]["parts"][1]
    other[0, 1] = 5
    agree_on_parts(batches, accelerator, 4)
    assert [is_idle(each) for each in parts_of(batches[1])] == [True, True, False, False, False]
    assert parts_of(batches[1])[0]["labels"].numel() == 2
