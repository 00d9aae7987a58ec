"""The coefficient of the total norm, against torch's own, to the last bit."""

from __future__ import annotations

import math

import pytest
import torch
from gradwatch.clipping.norms import Measurement
from gradwatch.clipping.scaling import coefficient_of, scale_down
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

norms = st.floats(0, 2.0**100, width=32) | st.sampled_from([math.nan, math.inf, 1.0, 0.5])
thresholds = st.floats(1e-6, 1e6) | st.sampled_from([math.inf, 1.0, 0.5])


def measured(total: float, dtype: torch.dtype = torch.float32) -> Measurement:
    norm = torch.tensor(total, dtype=dtype)
    return Measurement(norm.reshape(1), norm, 2.0)


def torchs(total: Tensor, max_norm: float) -> Tensor:
    """What torch's clipping multiplies by, read off a gradient of ones."""
    parameter = torch.zeros(1, dtype=total.dtype, requires_grad=True)
    parameter.grad = torch.ones(1, dtype=total.dtype)
    torch.nn.utils.clip_grads_with_norm_([parameter], max_norm, total)
    return parameter.grad[0]


@settings(max_examples=300, deadline=None)
@given(norms, thresholds, st.sampled_from([torch.float32, torch.float64]))
def test_the_coefficient_has_torchs_bits(norm: float, threshold: float, dtype: torch.dtype) -> None:
    measurement = measured(norm, dtype)
    expected = torchs(measurement.total, threshold)
    torch.testing.assert_close(coefficient_of(measurement.total, threshold), expected, rtol=0, atol=0, equal_nan=True)
    decision = scale_down(measurement, threshold)
    applied = torch.ones((), dtype=dtype) if decision.multiplier is None else decision.multiplier
    torch.testing.assert_close(applied, expected, rtol=0, atol=0, equal_nan=True)
    assert decision.coefficient == expected.item() or math.isnan(expected.item())
    assert decision.clipped is (measurement.total.item() > threshold)
    assert decision.threshold == threshold


def test_a_factor_of_one_is_not_applied() -> None:
    for total, threshold in ((0.5, 1.0), (0.0, 1e-3), (0.9999, 1.0), (3.0, math.inf)):
        decision = scale_down(measured(total), threshold)
        assert (decision.coefficient, decision.clipped, decision.multiplier) == (1.0, False, None)
    exact = scale_down(measured(1.0), 1.0)
    assert exact.clipped is False and isinstance(exact.coefficient, float) and exact.coefficient < 1
    assert exact.multiplier is not None


def test_a_threshold_in_a_tensor_is_read_on_the_cpu() -> None:
    decision = scale_down(measured(4.0), torch.tensor(1.0, dtype=torch.float64), torch.tensor(True))
    assert decision.threshold == 1.0 and decision.skip is True and decision.clipped is True
    assert decision.multiplier is not None and decision.multiplier.dtype is torch.float32


@pytest.mark.parametrize("wide", [False, True])
def test_on_a_device_everything_stays_there_in_the_norms_dtype(wide: bool) -> None:
    with FakeTensorMode():
        total = torch.empty((), device="cuda")
        threshold = torch.empty((), device="cuda", dtype=torch.float64) if wide else 1.0
        decision = scale_down(Measurement(total.reshape(1), total, 2.0), threshold)
        assert isinstance(decision.multiplier, Tensor) and isinstance(decision.clipped, Tensor)
        assert decision.multiplier.dtype is torch.float32 and decision.multiplier.device.type == "cuda"
        assert decision.clipped.dtype is torch.bool
