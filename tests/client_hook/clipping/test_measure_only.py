"""Measuring without clipping."""

from __future__ import annotations

import math

import pytest
import torch
from gradwatch.clipping.measure_only import MeasureOnly

from tests.client_hook.clipping.stepping import clip


def test_nothing_changes_even_when_the_norm_overflows() -> None:
    gradients = [torch.full((100,), math.inf)]
    measurement, decision = clip(MeasureOnly(), gradients)
    assert measurement.total.item() == math.inf and decision.clipped is False
    assert torch.equal(gradients[0], torch.full((100,), math.inf))


def test_it_has_no_threshold_to_set() -> None:
    with pytest.raises(ValueError, match="clip=1.0"):
        MeasureOnly().threshold = 1.0
