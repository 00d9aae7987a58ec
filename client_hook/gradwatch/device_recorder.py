"""Rows of a model on another device than the CPU: a ring of rows there, emptied by the recording thread.

The training thread only queues small kernels: a row into the ring at the place that a counter on the device names, then
the counter one up. Because the place is known on the device alone, a replayed CUDA graph, which runs no Python, writes
every step into a row of its own. The recording thread copies new rows to the host on a stream of its own, so it waits
for its copies and never for the training.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradwatch.recorder import MISSING, SCALARS, Bitmap, Rows

_RING_BYTES: Final = 4 << 20  # on the device; at 1,000 layers about a thousand steps until they are overwritten
_TICKETS: Final = 1 << 20  # tickets start anew here; a float32 holds each exactly
_REPLAYED: Final = -1.0  # the ticket of rows that a graph writes when it is replayed


@dataclass(frozen=True, slots=True)
class _HostPart:
    """What of a step is known on the host when it is queued."""

    step: int
    time: float
    scalars: tuple[float, ...]
    on_device: tuple[int, ...]
    """Which of SCALARS stand in the device's row instead, in the order they stand there."""
    absent: Bitmap | None
    ticket: float


_UNKNOWN: Final = _HostPart(0, 0.0, (MISSING,) * len(SCALARS), (), None, _REPLAYED)


def is_captured(device: torch.device) -> bool:
    """Whether what is queued on ``device`` now goes into a CUDA graph, to run when that is replayed."""
    if device.type != "cuda" or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    return torch.cuda.is_current_stream_capturing()


class DeviceRecorder:
    """Rows of one table of ``layers`` norms of ``dtype`` (float32 or float64), from ``device``.

    A step counts as produced once its row is on the host. Rows that the training overwrites before that (the recording
    thread was kept from running for about a thousand steps) are counted as dropped.
    """

    def __init__(self, layers: int, dtype: torch.dtype, device: torch.device) -> None:
        self.layers = layers
        self.dtype = dtype
        self._device = device
        width = layers + 1 + len(SCALARS)
        self.capacity = max(64, min(4096, _RING_BYTES // (width * dtype.itemsize)))
        self._ring = torch.zeros(self.capacity, width, dtype=dtype, device=device)
        self._written = torch.zeros(1, dtype=torch.int64, device=device)
        self._host: deque[_HostPart] = deque()
        self._template: _HostPart | None = None
        self._queued = 0  # tickets given out, by the training thread
        self._taken = 0  # rows of the ring that are on the host, by the recording thread
        self._step = -1
        self._ahead = 0
        self._dropped: list[int] = []
        self._rows: list[Rows] = []
        self._stream: Any = None

    # The training thread's side.

    def write(
        self,
        step: int,
        scalars: Sequence[float | Tensor],
        norms: Tensor,
        absent: npt.NDArray[np.uint8] | None,
        captured: bool | None = None,
    ) -> None:
        """Queue one step.

        ``scalars``: one for each of SCALARS, numbers or 0-dimensional tensors on the device; ``norms``: (layers,), on
        the device. ``captured``: a CUDA graph is being captured; by default the current stream is asked.
        """
        if captured is None:
            captured = is_captured(norms.device)
        ticket = _REPLAYED if captured else float(self._queued % _TICKETS)
        on_device = tuple(place for place, scalar in enumerate(scalars) if isinstance(scalar, Tensor))
        known = tuple(MISSING if isinstance(scalar, Tensor) else float(scalar) for scalar in scalars)
        part = _HostPart(step, time.time(), known, on_device, absent, ticket)
        if captured:
            self._template = part
        else:
            self._queued += 1
            self._host.append(part)
        try:
            self.queue(norms, [scalar for scalar in scalars if isinstance(scalar, Tensor)], ticket)
        except Exception:
            if not captured:
                self._host.pop()  # no row will come for it
            raise

    def queue(self, norms: Tensor, scalars: Sequence[Tensor], ticket: float) -> None:
        """The device's part of a step: this alone is what a replayed graph repeats."""
        tail = [self._beside(scalar, norms).reshape(1) for scalar in scalars]
        row = torch.cat([norms.to(self.dtype), norms.new_full((1,), ticket, dtype=self.dtype), *tail])
        self._ring.narrow(1, 0, len(row)).index_copy_(0, self._written % self.capacity, row.unsqueeze(0))
        self._written.add_(1)

    def _beside(self, scalar: Tensor, norms: Tensor) -> Tensor:
        if scalar.device != norms.device:  # a loss on the last of several devices, say
            scalar = scalar.to(norms.device, non_blocking=True)
        return scalar.to(self.dtype)

    # The recording thread's side.

    def take(self, most: int) -> Iterator[Rows]:
        """Rows not taken before, in order, at most ``most`` at a time."""
        self._fetch()
        rows, self._rows = self._rows, []
        for piece in rows:
            for start in range(0, len(piece.step), most):
                part = slice(start, start + most)
                yield Rows(
                    piece.step[part], piece.time[part], piece.scalars[part], piece.norms[part], piece.absent[part]
                )

    @property
    def empty(self) -> bool:
        """Whether every step queued so far has been taken."""
        if self._host:
            self._fetch()
        return not self._host and not self._rows

    def take_dropped(self) -> list[int]:
        """Steps, since the last call, that were overwritten before they could be taken."""
        steps, self._dropped = self._dropped, []
        return steps

    def _fetch(self) -> None:
        """Bring new rows to the host."""
        written = int(self._to_host(self._written)[0])
        first = max(self._taken, written - self.capacity)
        if written == self._taken:
            return
        places = [count % self.capacity for count in range(first, written)]
        cut = next((at for at in range(1, len(places)) if places[at] == 0), len(places))
        pieces = [self._ring[places[0] : places[0] + cut], self._ring[: len(places) - cut]]
        values = np.concatenate([self._to_host(piece) for piece in pieces if len(piece)])
        # What was written meanwhile may have gone over the oldest of these rows; the next one may be half written.
        safe = max(first, int(self._to_host(self._written)[0]) + 1 - self.capacity)
        kept = values[safe - first :]
        self._drop(safe - self._taken, kept)
        self._taken = written
        if len(kept):
            self._keep(kept)

    def _to_host(self, tensor: Tensor) -> npt.NDArray[Any]:
        if tensor.device.type != "cuda":
            return tensor.to("cpu", copy=True).numpy()
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._stream):
            host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            host.copy_(tensor, non_blocking=True)
            self._stream.synchronize()
        return host.numpy()

    def _drop(self, count: int, kept: npt.NDArray[Any]) -> None:
        """Count the ``count`` rows before ``kept`` as dropped: those the host knows of, and for the rest replays."""
        tickets = kept[:, self.layers].tolist()
        next_known = next((ticket for ticket in tickets if ticket != _REPLAYED), None)
        for _ in range(count):
            known = self._host[0].ticket if self._host else next_known
            self._dropped.append(self._part(_REPLAYED if known == next_known else float(known or 0.0)).step)

    def _keep(self, values: npt.NDArray[Any]) -> None:
        """Join the device's rows with what the host knew of their steps."""
        tickets = values[:, self.layers].astype(np.float64)
        parts = [self._part(float(ticket)) for ticket in tickets]
        scalars = np.array([part.scalars for part in parts], np.float64)
        for row, part in enumerate(parts):
            tail = values[row, self.layers + 1 : self.layers + 1 + len(part.on_device)]
            scalars[row, list(part.on_device)] = tail
        nothing = np.zeros((self.layers + 7) // 8, np.uint8)
        absent = np.stack([nothing if part.absent is None else part.absent for part in parts])
        steps = np.array([part.step for part in parts], np.int64)
        times = np.array([part.time for part in parts], np.float64)
        self._rows.append(Rows(steps, times, scalars, values[:, : self.layers], absent))

    def _part(self, ticket: float) -> _HostPart:
        """What the host knew of the step whose row carries ``ticket``, under the step's number."""
        while ticket != _REPLAYED and self._host:
            part = self._host.popleft()
            if part.ticket == ticket:  # else: of a step whose row was never written, because its queueing failed
                # Replays count steps that the training thread has not heard of; later ones follow them.
                self._ahead = max(self._ahead, self._step + 1 - part.step)
                self._step = part.step + self._ahead
                return replace(part, step=self._step)
        self._step += 1
        return replace(self._template or _UNKNOWN, step=self._step, time=time.time())
