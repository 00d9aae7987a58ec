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
)
_HOST_PART: Final = struct.Struct(f"<qd{len(SCALARS)}d")
_BLOCK_BYTES: Final = 1 << 20
_MEMORY_CAP: Final = 256 << 20  # bytes of rows that may wait for the spool before steps are dropped and counted


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

    def __init__(self, capacity: int, layers: int, dtype: torch.dtype, pinned: bool) -> None:
        self.capacity = capacity
        # Step, time and scalars of a row are packed in one go: each NumPy assignment would cost a microsecond.
        self.packed = bytearray(capacity * _HOST_PART.size)
        words = np.frombuffer(self.packed, np.float64).reshape(capacity, -1)
        self.step = words[:, 0].view(np.int64)
        self.time = words[:, 1]
        self.scalars = words[:, 2:]
        width = layers + len(DEVICE_SCALARS) if pinned else layers
        self.values = torch.empty(capacity, width, dtype=dtype, device="cpu", pin_memory=pinned)
        self.norms = self.values.numpy()[:, :layers]
        self.loss_on_device = np.zeros(capacity, np.bool_)
        self.absent = np.zeros((capacity, (layers + 7) // 8), np.uint8)
        self.filled = 0  # written by the training thread (from the CPU) or by the taker (from another device)
        self.begun = 0
        self.taken = 0

    def rows(self, part: slice) -> Rows:
        return Rows(self.step[part], self.time[part], self.scalars[part], self.norms[part], self.absent[part])


class Recorder:
    """Rows of one table of ``layers`` norms of ``dtype`` (float32 or float64), from the CPU."""

    def __init__(self, layers: int, dtype: torch.dtype = torch.float32) -> None:
        self.layers = layers
        self.dropped: list[int] = []  # steps that found no room; taken with `take_dropped`
        self.dtype = dtype
        row = (layers + len(DEVICE_SCALARS)) * dtype.itemsize + 8 * len(SCALARS) + 16
        self._capacity = min(max(_BLOCK_BYTES // row, 8), 512)
        self._most_blocks = max(_MEMORY_CAP // (self._capacity * row), 2)
        self._blocks: deque[_Block] = deque()
        self._block = self._new_block()

    def _new_block(self) -> _Block:
        block = _Block(self._capacity, self.layers, self.dtype, pinned=False)
        self._blocks.append(block)
        return block

    def _room(self, step: int) -> _Block | None:
        block = self._block
        if block.begun == block.capacity:
            if len(self._blocks) >= self._most_blocks:
                self.dropped.append(step)
                return None
            block = self._block = self._new_block()
        return block

    def write(self, step: int, scalars: tuple[float, ...], norms: Tensor, absent: npt.NDArray[np.uint8] | None) -> None:
        """One step. ``norms``: (layers,) on the CPU, copied; ``absent``: bitmap of layers without gradient, or None."""
        block = self._room(step)
        if block is None:
            return
        row = block.begun
        block.norms[row] = norms.numpy()
        self._write_host_part(block, row, step, scalars, absent)
        block.begun = block.filled = row + 1

    def _write_host_part(
        self, block: _Block, row: int, step: int, scalars: tuple[float, ...], absent: npt.NDArray[np.uint8] | None
    ) -> None:
        _HOST_PART.pack_into(block.packed, row * _HOST_PART.size, step, time.time(), *scalars)
        if absent is not None:
            block.absent[row] = absent

    def settle(self) -> None:
        """Mark rows as filled whose copy to the host has ended. On the CPU they are from the start."""

    def take(self, most: int) -> Iterator[Rows]:
        """Rows not taken before, in order, at most ``most`` at a time. For one thread other than the training's."""
        self.settle()
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
        """Whether every row begun so far has been taken."""
        return all(block.taken == block.begun for block in list(self._blocks))

    def take_dropped(self) -> list[int]:
        """Steps dropped since the last call."""
        count = len(self.dropped)
        steps, self.dropped[:count] = self.dropped[:count], []
        return steps


# What only the device knows; it comes to the host behind the norms in the same copy.
DEVICE_SCALARS: Final = ("loss", "total_norm", "clip_coefficient", "clipped")


class DeviceRecorder(Recorder):
    """Rows of a model on another device: one asynchronous copy a step into pinned memory, one event to tell its end.

    The training thread only queues; the taker asks the events without waiting for them.
    """

    def __init__(self, layers: int, dtype: torch.dtype = torch.float32) -> None:
        self._copies: deque[tuple[_Block, torch.cuda.Event]] = deque()
        super().__init__(layers, dtype)

    def _new_block(self) -> _Block:
        block = _Block(self._capacity, self.layers, self.dtype, pinned=True)
        self._blocks.append(block)
        return block

    def write_from_device(
        self,
        step: int,
        scalars: tuple[float, ...],
        values: Tensor,
        absent: npt.NDArray[np.uint8] | None,
        loss_on_device: bool,
    ) -> None:
        """One step. ``values``: (layers + len(DEVICE_SCALARS),) on the device, norms first.

        ``loss_on_device``: the loss is among ``values``; else the one in ``scalars`` stands.
        """
        block = self._room(step)
        if block is None:
            return
        row = block.begun
        block.values[row].copy_(values, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record(torch.cuda.current_stream(values.device))
        self._write_host_part(block, row, step, scalars, absent)
        block.loss_on_device[row] = loss_on_device
        block.begun = row + 1
        self._copies.append((block, copied))

    def settle(self) -> None:
        while self._copies and self._copies[0][1].query():  # type: ignore[no-untyped-call]
            block, _ = self._copies.popleft()
            row = block.filled
            for place, name in enumerate(DEVICE_SCALARS, self.layers):
                if name != "loss" or block.loss_on_device[row]:
                    block.scalars[row, SCALARS.index(name)] = block.values[row, place].item()
            block.filled = row + 1
