"""Stands in for what only a CUDA device has, so that the code for one runs under FakeTensorMode."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class StandInEvent:
    """An event that happens when a test says so."""

    def __init__(self, enable_timing: bool = False) -> None:
        self.timed = enable_timing
        self.recorded = False
        self.happened = False
        self.at = 0.0  # milliseconds

    def record(self, stream: Any) -> None:
        self.recorded = True

    def query(self) -> bool:
        assert self.recorded
        return self.happened

    def elapsed_time(self, end: StandInEvent) -> float:
        assert self.timed and end.timed and end.happened
        return end.at - self.at

    def synchronize(self) -> None:
        raise AssertionError("the training would wait here")


def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[StandInEvent]:
    """From now on every event is a stand-in; the list fills with them."""
    events: list[StandInEvent] = []

    def event(enable_timing: bool = False) -> StandInEvent:
        events.append(StandInEvent(enable_timing))
        return events[-1]

    monkeypatch.setattr(torch.cuda, "Event", event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: device)
    return events


class NoWaiting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses copies between devices that make the host wait: all but those into pinned memory, not blocking."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func)
        tensors = [item for item in args if isinstance(item, Tensor)]
        if "copy_" in name and len({tensor.device.type for tensor in tensors}) > 1:
            assert kwargs.get("non_blocking") or True in args[2:], f"{name} waits for the device"
        if "_to_copy" in name and kwargs.get("device") is not None:
            assert kwargs["device"].type == tensors[0].device.type, f"{name} waits for the device"
        return func(*args, **kwargs)
