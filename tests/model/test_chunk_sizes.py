"""Sizes of chunks by hand, and that what is computed in place, kept or computed again has the same numbers."""

from types import SimpleNamespace

import pytest
import torch

from hf_unlearn.model.chunk_sizes import MIB, ChunkSizes, DeviceMemory, chunk_sizes, device_memory
from hf_unlearn.model.chunked_logits import read_positions
from hf_unlearn.model.head_backward import LMHead
from hf_unlearn.model.head_query import HeadQuery
from hf_unlearn.model.logit_transform import LogitTransform

GIB = 1024 * MIB


@pytest.mark.parametrize(
    ("vocabulary", "itemsize", "memory", "expected"),
    [
        # 64 MiB of rows of 512 KiB and of 32 KiB; pieces of 8 MiB; 3 x 64 - 8 MiB stay.
        (131072, 4, None, (128, 16, 184 * MIB)),
        (8192, 4, None, (2048, 256, 184 * MIB)),
        (8192, 8, None, (1024, 128, 184 * MIB)),
        # 80 GiB / 256 is above 256 MiB; of 40 GiB free an eighth stays.
        (131072, 4, DeviceMemory(80 * GIB, 40 * GIB), (512, 512, 5 * GIB)),
        # 24 GiB / 256 = 96 MiB.
        (131072, 4, DeviceMemory(24 * GIB, 0), (192, 192, 0)),
        (1 << 30, 4, None, (1, 1, 184 * MIB)),
        (1 << 30, 4, DeviceMemory(24 * GIB, 8 * GIB), (1, 1, GIB)),
    ],
)
def test_sizes_follow_vocabulary_and_memory(vocabulary, itemsize, memory, expected):
    sizes = chunk_sizes(vocabulary, itemsize, memory)
    assert (sizes.rows, sizes.piece, sizes.kept_bytes) == expected
    assert sizes.reuse == (memory is None)


@pytest.mark.parametrize(
    ("tokens", "kept", "first"),
    [
        (25, 0, 20),  # the last chunk always
        (25, 14, 20),
        (25, 15, 10),  # room for 15 of chunks of 10: 5 and 10
        (25, 24, 10),
        (25, 25, 0),
        (25, 1000, 0),
        (20, 19, 10),
        (8, 0, 0),
    ],
)
def test_whole_chunks_are_kept_from_the_end(tokens, kept, first):
    assert ChunkSizes(rows=10, piece=10, kept_bytes=4 * kept + 3, reuse=True).kept_from(tokens, 4) == first


def test_what_torch_holds_unused_is_free(monkeypatch):
    """Of 80 GiB 30 are free, and of the 44 that torch holds it uses 40."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80 * GIB))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (30 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 44 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 40 * GIB)
    assert device_memory(torch.device("cuda"), keeps=True) == DeviceMemory(80 * GIB, 34 * GIB)
    assert device_memory(torch.device("cuda"), keeps=False) == DeviceMemory(80 * GIB, 0)
    assert device_memory(torch.device("cpu"), keeps=True) is None


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("kept", [0, 15, 100])
def test_numbers_do_not_depend_on_what_is_kept_and_where(kept, reuse, trained, bias):
    torch.manual_seed(0)
    tokens, width, vocabulary = 25, 4, 30
    head = torch.nn.Linear(width, vocabulary, bias=bias, dtype=torch.float64).requires_grad_(trained)
    hidden = torch.randn(tokens, width, dtype=torch.float64, requires_grad=True)
    targets, upstream = torch.randint(vocabulary, (tokens,)), torch.randn(tokens, dtype=torch.float64)
    weights = [hidden, *head.parameters()] if trained else [hidden]
    expected = head(hidden).log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    sizes = ChunkSizes(rows=10, piece=4, kept_bytes=8 * vocabulary * kept, reuse=reuse)
    provider = LMHead(head, head.forward, LogitTransform())
    got = read_positions(hidden, HeadQuery(targets, targets), provider, weights[1:], vocabulary, sizes)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    for _ in range(2):  # of a graph that stays, whose logits are computed again the second time
        gradients = [torch.autograd.grad(each, weights, upstream, retain_graph=True) for each in (got, expected)]
        for one, other in zip(*gradients, strict=True):
            assert other.abs().max() > 1e-2
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
