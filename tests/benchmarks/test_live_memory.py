"""Bytes alive at once, against cases worked by hand. 1000 numbers in fp32 are 4000 bytes."""

import torch

from benchmarks.memory_plan.live_memory import LiveMemory


def test_storages_count_while_a_tensor_of_theirs_lives():
    before = torch.ones(1000)
    with LiveMemory() as memory:
        first = before + 1  # 4000
        second = first * 2  # 8000
        view = second.view(10, 100)  # the same storage
        del second  # the view keeps it
        first.add_(1)  # in place
        del first  # 4000
        third = torch.empty(5000, dtype=torch.float64)  # 44000
        del third, view  # nothing
        before.mul_(2)  # was there before the block
        before.view(10, 100)
    assert memory.peak() == 44_000


def test_a_resized_storage_counts_by_its_new_size():
    with LiveMemory() as memory:
        grown = torch.empty(0)
        torch.add(torch.ones(1000), 1, out=grown)  # the ones and the sum
    assert memory.peak() == 8000


def test_tensors_made_from_python_numbers_count():
    with LiveMemory() as memory:
        made = torch.tensor([1.0] * 1000)
        del made
    assert memory.peak() == 4000


def test_meta_tensors_count():
    with LiveMemory() as memory:
        torch.empty(1000, device="meta")
    assert memory.peak() == 4000


def test_what_is_left_out_never_was():
    """y = xW, loss = sum of y^2: x [7, 100], W [100, 50]. Bytes: y 1400, gradient of W 20000, scalars 4."""
    weight = torch.randn(100, 50, requires_grad=True)
    inputs = torch.randn(7, 100)
    with LiveMemory() as memory:
        weight.register_post_accumulate_grad_hook(lambda each: memory.leave_out([each.grad]))
        y = inputs @ weight
        loss = y.square().sum()
        loss.backward()
    # In backward: y, the loss, its gradient (a scalar) and the gradients of the sum (a view), of y^2 and of y, where
    # pow's backward makes two more of that size on the way. The gradient of W comes last, beside y and that of y.
    assert memory.peak(everything=True) == 1400 + 4 + 4 + 1400 + 20_000
    assert memory.peak() == 1400 + 4 + 4 + 3 * 1400


def test_nothing_counts_after_it_is_gone():
    with LiveMemory() as memory:
        for _ in range(10):
            torch.ones(1000)
    assert memory.peak() == 4000
