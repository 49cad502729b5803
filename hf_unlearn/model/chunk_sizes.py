"""How many positions an output head computes at one time, and of how many the logits stay for the backward pass."""

from dataclasses import dataclass

import torch

MIB = 2**20

# On a CPU, by measurement (docs/scaling.md). Matrix products want many rows, as each packs the head's whole weight
# again; softmaxes want pieces that stay in the cache, and memory that need not be mapped anew.
CPU_CHUNK_BYTES = 64 * MIB
CPU_PIECE_BYTES = 8 * MIB

# A GPU needs more rows at a time to be busy, but a small one has no room for several such tensors.
GPU_CHUNK_BYTES = 256 * MIB
GPU_SHARE_OF_CHUNK = 1 / 256  # of the whole device: free memory differs between ranks and steps, and would round sums
GPU_SHARE_KEPT = 1 / 8  # of what is free when the head runs; what follows until they are let go is the head's alone


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes of a GPU: all of it, and what is free when the head runs."""

    total: int
    free: int


@dataclass(frozen=True)
class ChunkSizes:
    """How the positions of a batch go through an output head.

    Attributes:
        rows: positions whose logits are computed at one time.
        piece: of those, positions that functions of distributions are computed of at one time.
        kept_bytes: of logits that may stay from the forward pass until the backward pass; the last chunk's always do.
        reuse: whether a chunk's memory serves the next one, and its gradient is written over its logits.
    """

    rows: int
    piece: int
    kept_bytes: int
    reuse: bool

    def kept_from(self, tokens: int, bytes_per_token: int) -> int:
        """The first of the positions whose logits stay: of whole chunks, from the end.

        Args:
            tokens: positions in all.
            bytes_per_token: of what is kept of one.
        """
        last = (tokens - 1) // self.rows * self.rows  # where the last chunk begins
        kept = tokens - self.kept_bytes // bytes_per_token
        return min(last, max(0, -(-kept // self.rows) * self.rows))


def chunk_sizes(vocabulary: int, bytes_per_logit: int, memory: DeviceMemory | None) -> ChunkSizes:
    """Chunk sizes from vocabulary and memory; pure, so that a plan and a run agree.

    rows = chunk bytes / (V x bytes per logit), at least 1.

    Args:
        vocabulary: V.
        bytes_per_logit: 4, or 8 where softmaxes are in fp64.
        memory: of the GPU; None on a CPU, whose caches decide.
    """
    row = vocabulary * bytes_per_logit
    if memory is None:
        rows, piece = (max(1, size // row) for size in (CPU_CHUNK_BYTES, CPU_PIECE_BYTES))
        # With a piece, no more than the three tensors of a chunk that computing each anew would hold: logits, those of
        # the chunk before, and a softmax.
        kept = 3 * CPU_CHUNK_BYTES - min(CPU_PIECE_BYTES, CPU_CHUNK_BYTES)
        return ChunkSizes(rows, piece, kept, reuse=True)
    chunk = min(GPU_CHUNK_BYTES, int(memory.total * GPU_SHARE_OF_CHUNK))
    rows = max(1, chunk // row)
    return ChunkSizes(rows, rows, int(memory.free * GPU_SHARE_KEPT), reuse=False)


def device_memory(device: torch.device, *, keeps: bool) -> DeviceMemory | None:
    """The memory of a GPU as it is now, what torch holds unused counted as free; None on a CPU.

    Args:
        device: that the head runs on.
        keeps: whether logits are to stay; the driver is asked for free memory only then.
    """
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        # Other accelerators do not say: chunks as on a large GPU, of which one is kept.
        return DeviceMemory(total=int(GPU_CHUNK_BYTES / GPU_SHARE_OF_CHUNK), free=0)
    total = torch.cuda.get_device_properties(device).total_memory
    if not keeps:
        return DeviceMemory(total, 0)
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return DeviceMemory(total, torch.cuda.mem_get_info(device)[0] + held)
