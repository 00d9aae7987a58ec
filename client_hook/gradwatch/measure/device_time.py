"""How long a device worked on something, told without waiting for it."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch


class DeviceTime:
    """Pairs of CUDA events around queued work, read once they have happened. Other devices are not timed."""

    def __init__(self) -> None:
        self._begun: Any = None
        self._pairs: deque[tuple[Any, Any]] = deque()

    def begin(self, device: torch.device) -> None:
        """Work for ``device`` is queued from here on."""
        self._begun = _mark(device) if device.type == "cuda" else None

    def end(self, device: torch.device) -> None:
        """The work is queued."""
        if self._begun is not None:
            self._pairs.append((self._begun, _mark(device)))
            self._begun = None

    def take(self) -> float | None:
        """Seconds of device work since the last call; None while some of it is still to come."""
        if any(not end.query() for _, end in self._pairs):
            return None
        seconds = sum(float(begin.elapsed_time(end)) for begin, end in self._pairs) / 1e3
        self._pairs.clear()
        return seconds


def _mark(device: torch.device) -> Any:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event
