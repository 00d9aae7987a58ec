"""Device time by events, read when they have happened and never waited for."""

from __future__ import annotations

import pytest
import torch
from gradwatch.measure.device_time import DeviceTime
from gradwatch.measure.sample import Sample
from gradwatch.measure.sampler import Sampler
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.client_hook.measure.device import stand_in
from tests.client_hook.measure.training import NOTHING, Clock, gathered


def test_the_cpu_is_not_timed() -> None:
    clock = DeviceTime()
    clock.begin(torch.device("cpu"))
    clock.end(torch.device("cpu"))
    assert clock.take() == 0.0


def test_seconds_are_known_once_all_events_have_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    events = stand_in(monkeypatch)
    clock, device = DeviceTime(), torch.device("cuda", 0)
    for _ in range(2):
        clock.begin(device)
        clock.end(device)
    for event, (happened, at) in zip(events, [(True, 1.0), (True, 3.0), (True, 10.0), (False, 15.0)], strict=True):
        event.happened, event.at = happened, at
    assert clock.take() is None
    events[3].happened = True
    assert clock.take() == pytest.approx(7e-3)
    assert clock.take() == 0.0


def test_on_a_device_the_next_sample_waits_until_the_last_ones_time_is_known_and_paid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, sent, events = Clock(monkeypatch, per_layer=0.0), list[Sample](), stand_in(monkeypatch)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        parameters = [torch.empty(8, device="cuda")]
        parameters[0].grad = torch.empty(8, device="cuda")
        kept, spent = Sampler([0], 0.01, sent.append), list[float]()

        def go_on(steps: int) -> None:
            for step in range(steps):
                clock.now += 0.01
                spent.append(kept.step(gathered(parameters, step), NOTHING))

        go_on(100)
        assert len(sent) == 1 and events[0].timed
        first = [event for event in events if event.timed]
        assert len(first) == 4  # around either half of an update ratio
        for at, event in zip((0.0, 10.0, 30.0, 50.0), first, strict=True):
            event.happened, event.at = True, at
        go_on(1)
        assert spent[-1] == pytest.approx(0.03)  # 10 ms of the first half and 20 ms of the second
        # 30 ms are what three seconds of training earn at one percent; one second has passed.
        go_on(190)
        assert len(sent) == 1
        go_on(30)
        assert len(sent) == 2
