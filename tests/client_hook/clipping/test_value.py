"""Clipping by value against torch's own function."""

from __future__ import annotations

import math

import pytest
import torch
from gradwatch.clipping.value import Value
from hypothesis import given
from hypothesis import strategies as st

elements = st.floats(width=32) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0])


@given(st.lists(st.lists(elements, min_size=1, max_size=6), min_size=1, max_size=5), st.floats(1e-3, 1e3))
def test_results_are_torchs(rows: list[list[float]], clip_value: float) -> None:
    gradients = [torch.tensor(row, dtype=torch.float32) for row in rows]
    expected = [torch.zeros_like(gradient, requires_grad=True) for gradient in gradients]
    for parameter, gradient in zip(expected, gradients, strict=True):
        parameter.grad = gradient.clone()
    torch.nn.utils.clip_grad_value_(expected, clip_value)
    above = any(abs(element) > clip_value for gradient in gradients for element in gradient.tolist())
    strategy = Value(clip_value)
    measurement = strategy.measure(gradients, True)
    decision = strategy.decide(measurement, gradients)
    strategy.apply(measurement, gradients, decision)
    some_nan = any(math.isnan(element) for row in rows for element in row)
    assert decision.clipped is above or some_nan
    for gradient, parameter in zip(gradients, expected, strict=True):
        assert parameter.grad is not None
        assert torch.equal(gradient.nan_to_num(9e9), parameter.grad.nan_to_num(9e9))


def test_the_coefficient_is_the_share_of_the_norm_that_is_left() -> None:
    gradients = [torch.tensor([3.0, 4.0])]
    strategy = Value(3.0)
    decision = strategy.decide(strategy.measure(gradients, True), gradients)
    assert decision.clipped is True
    assert decision.coefficient == pytest.approx(math.sqrt(18) / 5)


@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_wrong_arguments_say_what_to_write(value: float) -> None:
    with pytest.raises(ValueError, match="clip=None"):
        Value(value)
