"""Measuring without clipping."""

from __future__ import annotations

import math

import pytest
import torch
from gradwatch.clipping.measure_only import MeasureOnly


def test_nothing_changes_even_when_the_norm_overflows() -> None:
    gradients = [torch.full((100,), 1e20)]
    strategy = MeasureOnly()
    measurement = strategy.measure(gradients, True)
    decision = strategy.decide(measurement, gradients)
    strategy.apply(measurement, gradients, decision)
    assert measurement.total.item() == math.inf and decision.clipped is False
    assert torch.equal(gradients[0], torch.full((100,), 1e20))


def test_it_has_no_threshold_to_set() -> None:
    with pytest.raises(ValueError, match="clip=1.0"):
        MeasureOnly().threshold = 1.0
