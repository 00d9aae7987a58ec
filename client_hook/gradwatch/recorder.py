"""Steps on their way from the training thread to the spool: rows on the host, no wait, no lock, no per-layer Python.

The training thread writes rows into blocks; one other thread takes them. Each side writes only its own counter, so the
interpreter's own atomicity is enough.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# The NaN that says "not given at this step", told apart from a NaN that the training made by its payload ("miss").
MISSING: Final[float] = struct.unpack("<d", struct.pack("<Q", 0x7FF80000_6D697373))[0]

SCALARS: Final = (
    "loss",
    "total_norm",
    "clip_coefficient",
    "threshold",
    "clipped",
    "learning_rate",
    "loss_scale",
    "step_seconds",
    "skipped",
    "clip_cosine",
    "sample_seconds",
)
_HOST_PART: Final = struct.Struct(f"<qd{len(SCALARS)}d")
_BLOCK_BYTES: Final = 1 << 20
MEMORY_CAP: Final = 256 << 20  # bytes of rows that may wait for the spool before steps are dropped and counted


Bitmap = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive steps on the host: ``scalars`` (n, len(SCALARS)), ``norms`` (n, layers), ``absent`` (n, bytes)."""

    step: npt.NDArray[np.int64]
    time: npt.NDArray[np.float64]
    scalars: npt.NDArray[np.float64]
    norms: npt.NDArray[Any]
    absent: npt.NDArray[np.uint8]


class _Block:
    """A fixed number of rows, filled by the training thread and emptied by the taker."""

    def __init__(self, capacity: int, layers: int, dtype: torch.dtype) -> None:
        self.capacity = capacity
        # Step, time and scalars of a row are packed in one go: each NumPy assignment would cost a microsecond.
        self.packed = bytearray(capacity * _HOST_PART.size)
        words = np.frombuffer(self.packed, np.float64).reshape(capacity, -1)
        self.step = words[:, 0].view(np.int64)
        self.time = words[:, 1]
        self.scalars = words[:, 2:]
        self.norms = torch.empty(capacity, layers, dtype=dtype, device="cpu").numpy()
        self.absent = np.zeros((capacity, (layers + 7) // 8), np.uint8)
        self.filled = 0
        self.taken = 0

    def rows(self, part: slice) -> Rows:
        return Rows(self.step[part], self.time[part], self.scalars[part], self.norms[part], self.absent[part])


class Recorder:
    """Rows of one table of ``layers`` norms of ``dtype`` (float32 or float64), from the CPU."""

    def __init__(self, layers: int, dtype: torch.dtype = torch.float32) -> None:
        self.layers = layers
        self.dtype = dtype
        self._dropped: list[int] = []
        row = layers * dtype.itemsize + _HOST_PART.size
        self._capacity = min(max(_BLOCK_BYTES // row, 8), 512)
        self._most_blocks = max(MEMORY_CAP // (self._capacity * row), 2)
        self._blocks: deque[_Block] = deque()
        self._block = self._new_block()

    def _new_block(self) -> _Block:
        block = _Block(self._capacity, self.layers, self.dtype)
        self._blocks.append(block)
        return block

    def write(self, step: int, scalars: tuple[float, ...], norms: Tensor, absent: Bitmap | None) -> None:
        """One step. ``norms``: (layers,) on the CPU, copied; ``absent``: bitmap of layers without gradient, or None."""
        block = self._block
        if block.filled == block.capacity:
            if len(self._blocks) >= self._most_blocks:
                self._dropped.append(step)
                return
            block = self._block = self._new_block()
        row = block.filled
        block.norms[row] = norms.numpy()
        _HOST_PART.pack_into(block.packed, row * _HOST_PART.size, step, time.time(), *scalars)
        if absent is not None:
            block.absent[row] = absent
        block.filled = row + 1

    def take(self, most: int) -> Iterator[Rows]:
        """Rows not taken before, in order, at most ``most`` at a time. For one thread other than the training's."""
        while self._blocks:
            block = self._blocks[0]
            while block.taken < block.filled:
                part = slice(block.taken, min(block.filled, block.taken + most))
                yield block.rows(part)
                block.taken = part.stop
            if block.taken < block.capacity:
                return
            self._blocks.popleft()

    @property
    def empty(self) -> bool:
        """Whether every row written so far has been taken."""
        return all(block.taken == block.filled for block in list(self._blocks))

    def take_dropped(self) -> list[int]:
        """Steps, since the last call, that found no room."""
        count = len(self._dropped)
        steps, self._dropped[:count] = self._dropped[:count], []
        return steps
