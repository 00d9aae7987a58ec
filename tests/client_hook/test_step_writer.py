"""A step from another device than the CPU: everything is queued there, nothing is read back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.clipping.strategy import Strategy
from gradwatch.clipping.value import Value
from gradwatch.recorder import DEVICE_SCALARS, DeviceRecorder
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.client_hook.conftest import KeepingSink, monitor_of


class QueueingRecorder(DeviceRecorder):
    """Takes what would be copied to the host, without the pinned memory that only a CUDA device gives."""

    def __init__(self, layers: int, dtype: torch.dtype = torch.float32) -> None:
        self.layers, self.dtype = layers, dtype
        self.queued: list[tuple[int, Tensor, bool]] = []

    def write_from_device(
        self, step: int, scalars: tuple[float, ...], values: Tensor, absent: Any, loss_on_device: bool
    ) -> None:
        self.queued.append((step, values, loss_on_device))


@pytest.mark.parametrize("strategy", [GlobalNorm(1.0), Value(0.5)], ids=["GlobalNorm", "Value"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_whole_clip_reads_nothing_from_the_device(
    strategy: Strategy, dtype: torch.dtype, sink: KeepingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradwatch.step_writer.DeviceRecorder", QueueingRecorder)
    # Under this mode every read of a device's value raises; the monitor would fall back, and the sink would hear it.
    with FakeTensorMode(allow_non_fake_inputs=True):
        shapes = [(4, 3), (4,), (2, 4), (2,)]
        model = nn.ParameterList([nn.Parameter(torch.empty(shape, device="cuda", dtype=dtype)) for shape in shapes])
        monitor = monitor_of(model, [], strategy, sink)
        for step in range(3):
            for place, parameter in enumerate(model.parameters()):
                parameter.grad = None if step == 2 and place == 1 else torch.empty_like(parameter)
            monitor.clip(torch.empty((), device="cuda", requires_grad=True))
    assert sink.events == []
    (recorder,) = sink.recorders
    assert isinstance(recorder, QueueingRecorder)
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    for number, (step, values, loss_on_device) in enumerate(recorder.queued):
        assert (step, loss_on_device) == (number, True)
        assert (values.shape, values.device.type, values.dtype) == ((4 + len(DEVICE_SCALARS),), "cuda", wide)
    assert len(recorder.queued) == 3
