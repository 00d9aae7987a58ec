"""Clipping through time against a backward pass written out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.clipping.through_time import ThroughTime
from torch import Tensor, nn

from tests.client_hook.conftest import KeepingSink, monitor_of

STEPS = 5


def by_hand(weight: float, limit: float) -> tuple[float, list[float]]:
    """h[t+1] = weight * h[t], loss = h[STEPS]: the weight's gradient and each hidden state's before clipping."""
    hidden = [weight**time for time in range(STEPS + 1)]
    flow, total, seen = 1.0, 0.0, []
    for time in range(STEPS, 0, -1):
        seen.append(abs(flow))
        flow = max(-limit, min(limit, flow))
        total += flow * hidden[time - 1]
        flow *= weight
    return total, seen


@pytest.mark.parametrize("argument", ["clip_value", "max_norm"])
@pytest.mark.parametrize("weight", [1.5, 0.5])
def test_each_time_step_is_clipped_and_recorded(argument: str, weight: float, sink: KeepingSink) -> None:
    cell = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        cell.weight.fill_(weight)
    monitor = monitor_of(cell, [], GlobalNorm(100.0), sink)
    limits: dict[str, Any] = {argument: 1.2}
    through_time = monitor.through_time(**limits)
    hidden = torch.ones(1, 1)
    for _ in range(STEPS):
        hidden = through_time(cell(hidden))
    torch.autograd.backward(hidden.sum())
    monitor.clip()
    expected, seen = by_hand(weight, 1.2)
    assert cell.weight.grad is not None and cell.weight.grad.item() == pytest.approx(expected, rel=1e-5)
    ((step, values),) = sink.values
    assert step == 0
    assert float(values["hidden_clipped"]) == pytest.approx(sum(norm > 1.2 for norm in seen) / STEPS)
    assert float(values["hidden_norm"]) == pytest.approx(max(seen), rel=1e-5)


def test_a_step_without_hidden_states_records_nothing(sink: KeepingSink) -> None:
    monitor = monitor_of(nn.Linear(1, 1), [], GlobalNorm(1.0), sink)
    through_time = monitor.through_time(max_norm=1.0)
    assert isinstance(through_time(torch.ones(1)), Tensor)
    monitor.clip()
    assert sink.values == []


@pytest.mark.parametrize(
    "limits", [{}, {"clip_value": 1.0, "max_norm": 1.0}, {"clip_value": 0}, {"max_norm": float("nan")}]
)
def test_wrong_limits_say_what_to_write(limits: Any) -> None:
    with pytest.raises(ValueError, match=r"clip_value=0\.1"):
        ThroughTime(**limits)
