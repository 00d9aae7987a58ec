"""A step on its way into a row: chosen layers, and from another device than the CPU nothing is read back."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import gradwatch
import numpy as np
import numpy.typing as npt
import pytest
import torch
from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.clipping.strategy import Strategy
from gradwatch.clipping.value import Value
from gradwatch.device_recorder import DeviceRecorder
from gradwatch.globs import Globs
from gradwatch.recorder import SCALARS
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.client_hook.conftest import KeepingSink, monitor_of

ON_DEVICE = {"loss", "total_norm", "clip_coefficient", "clipped"}


class NotingRecorder(DeviceRecorder):
    """Also notes which of the scalars are known to the device alone."""

    def __init__(self, layers: int, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(layers, dtype, device)
        self.noted: list[tuple[int, set[str], torch.Size]] = []

    def write(
        self,
        step: int,
        scalars: Sequence[float | Tensor],
        norms: Tensor,
        absent: npt.NDArray[np.uint8] | None,
        captured: bool | None = False,
    ) -> None:
        on_device = {name for name, scalar in zip(SCALARS, scalars, strict=True) if isinstance(scalar, Tensor)}
        self.noted.append((step, on_device, norms.shape))
        super().write(step, scalars, norms, absent, captured)


STRATEGIES = [
    GlobalNorm(1.0),
    Value(0.5),
    gradwatch.PerLayer(1.0),
    gradwatch.PerGroup({"0": 1.0, "*": 0.5}),
    gradwatch.AGC(),
    gradwatch.AutoClip(cap=1.0),
    gradwatch.ZClip(),
    gradwatch.AdaGC(),
    gradwatch.EMARatio(per_layer=True),
    gradwatch.SkipSpikes(action="clip"),
    gradwatch.Normalize(),
]


@pytest.mark.parametrize("make", STRATEGIES, ids=lambda strategy: type(strategy).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_whole_clip_reads_nothing_from_the_device(
    make: Strategy, dtype: torch.dtype, sink: KeepingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradwatch.step_writer.DeviceRecorder", NotingRecorder)
    strategy = copy.deepcopy(make)
    # Under this mode every read of a device's value raises; the monitor would fall back, and the sink would hear it.
    with FakeTensorMode(allow_non_fake_inputs=True):
        shapes = [(4, 3), (4,), (2, 4), (2,)]
        model = nn.ParameterList([nn.Parameter(torch.empty(shape, device="cuda", dtype=dtype)) for shape in shapes])
        monitor = monitor_of(model, [], strategy, sink, sample_budget=0.5)
        for step in range(3):
            for place, parameter in enumerate(model.parameters()):
                parameter.grad = None if step == 2 and place == 1 else torch.empty_like(parameter)
            monitor.clip(torch.empty((), device="cuda", requires_grad=True))
    assert sink.events == []
    (recorder,) = sink.recorders
    assert isinstance(recorder, NotingRecorder)
    assert [(step, shape) for step, _, shape in recorder.noted] == [(step, torch.Size([4])) for step in range(3)]
    assert all(on_device >= ON_DEVICE for _, on_device, _ in recorder.noted)
    assert recorder.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)


def test_only_chosen_layers_are_recorded_and_all_are_clipped(sink: KeepingSink) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    monitor = monitor_of(model, [], GlobalNorm(0.1), sink, layers=Globs(["*.weight", "!0.*"]))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    total = monitor.clip()
    model[1].weight.grad = None
    monitor.clip()
    assert [layer[0] for layer in sink.tables[0]] == ["1.weight"]
    (rows,) = sink.rows()
    assert total.item() == pytest.approx(12**0.5)
    assert rows.norms[:, 0].tolist() == [2.0, 0.0] and rows.absent[:, 0].tolist() == [0, 1]
    assert all(p.grad is None or p.grad.max().item() < 0.1 for p in model.parameters())
