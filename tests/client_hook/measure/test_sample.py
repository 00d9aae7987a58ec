"""A sample's way to the host, with events that stand in for a CUDA device's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gradwatch.measure.sample import Sample
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.client_hook.measure.device import stand_in


def test_on_the_cpu_the_values_are_there_at_once() -> None:
    sample = Sample(7, "weight_norm", np.array([2, 0]), torch.tensor([1.5, 2.5]))
    assert sample.ready() and sample.numpy().tolist() == [1.5, 2.5]


def test_from_another_device_they_are_there_when_the_event_has_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    events = stand_in(monkeypatch)
    with FakeTensorMode():
        sample = Sample(7, "weight_norm", np.array([2]), torch.empty(1, device="cuda"))
    (event,) = events
    assert event.recorded and not sample.ready()
    event.happened = True
    assert sample.ready()
