"""The window over the last norms, against plain lists and numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gradwatch.clipping.window import filled, mean_and_deviation, percentile, push
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client_hook.clipping import adapting

norms = st.lists(st.floats(1e-3, 1e6) | st.sampled_from([1.0, 1e30]), max_size=30)


def window_of(pushed: list[float], size: int) -> torch.Tensor:
    window = torch.full((size,), math.nan, dtype=torch.float64)
    for norm in pushed:
        push(window, norm, True)
        push(window, 77.0, False)
    return window


@settings(max_examples=100, deadline=None)
@given(norms, st.integers(1, 12), st.floats(0.1, 100))
def test_the_newest_norms_are_kept_and_asked(pushed: list[float], size: int, percent: float) -> None:
    window, kept = window_of(pushed, size), pushed[-size:]
    count = filled(window)
    assert count == len(kept) and window[size - len(kept) :].tolist() == kept
    if kept:
        assert percentile(window, percent, count) == pytest.approx(np.percentile(kept, percent), rel=1e-12)
    else:
        assert math.isnan(float(percentile(window, percent, count)))
    mean, deviation = mean_and_deviation(window, count)
    if len(kept) > 1:
        assert mean == pytest.approx(np.mean(kept), rel=1e-12)
        assert deviation == pytest.approx(np.std(kept, ddof=1), rel=1e-9, abs=1e-12 * max(kept))
    else:
        assert math.isnan(float(mean)) and math.isnan(float(deviation))


@settings(max_examples=50, deadline=None)
@given(norms, st.integers(2, 12), st.floats(0.1, 100))
def test_a_device_gives_the_same(pushed: list[float], size: int, percent: float) -> None:
    expected = window_of(pushed, size)
    window = torch.full((size,), math.nan, dtype=torch.float64)
    for norm in pushed:
        push(window, torch.tensor(norm, dtype=torch.float64), torch.tensor(True))
        push(window, torch.tensor(77.0, dtype=torch.float64), torch.tensor(False))
    assert torch.equal(window.nan_to_num(-1), expected.nan_to_num(-1))
    count = float(filled(expected))
    with adapting.as_on_a_device():
        there = filled(window)
    assert isinstance(there, torch.Tensor) and there.item() == count
    assert float(percentile(window, percent, there)) == pytest.approx(
        float(percentile(expected, percent, count)), rel=1e-12, nan_ok=True
    )
    if count > 1:
        for one, other in zip(mean_and_deviation(window, there), mean_and_deviation(expected, count), strict=True):
            assert float(one) == pytest.approx(float(other), rel=1e-9, abs=1e-12 * max(pushed))
