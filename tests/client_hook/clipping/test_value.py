"""Clipping by value against torch's own function."""

from __future__ import annotations

import math

import gradwatch
import numpy as np
import pytest
import torch
from gradwatch.clipping.value import Value
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.client_hook.clipping.stepping import clip

elements = st.floats(width=32) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0])


@given(st.lists(st.lists(elements, min_size=1, max_size=6), min_size=1, max_size=5), st.floats(1e-3, 1e3))
def test_results_are_torchs(rows: list[list[float]], clip_value: float) -> None:
    gradients = [torch.tensor(row, dtype=torch.float32) for row in rows]
    expected = [torch.zeros_like(gradient, requires_grad=True) for gradient in gradients]
    for parameter, gradient in zip(expected, gradients, strict=True):
        parameter.grad = gradient.clone()
    torch.nn.utils.clip_grad_value_(expected, clip_value)
    above = any(abs(element) > clip_value for gradient in gradients for element in gradient.tolist())
    _, decision = clip(Value(clip_value), gradients)
    some_nan = any(math.isnan(element) for row in rows for element in row)
    assert decision.clipped is above or some_nan
    for gradient, parameter in zip(gradients, expected, strict=True):
        assert parameter.grad is not None
        assert torch.equal(gradient.nan_to_num(9e9), parameter.grad.nan_to_num(9e9))


def test_the_coefficient_is_the_share_of_the_norm_that_is_left() -> None:
    gradients = [torch.tensor([3.0, 4.0])]
    _, decision = clip(Value(3.0), gradients)
    assert decision.clipped is True
    assert decision.coefficient == pytest.approx(math.sqrt(18) / 5)


@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=20), st.floats(0.1, 50))
def test_the_cosine_says_how_far_clamping_bends_the_direction(elements: list[float], clip_value: float) -> None:
    before = np.array(elements, np.float64)
    after = before.clip(-clip_value, clip_value)
    _, decision = clip(Value(clip_value), [torch.tensor(elements)])
    if np.linalg.norm(after) > 1e-3:
        expected = before @ after / (np.linalg.norm(before) * np.linalg.norm(after))
        assert decision.cosine == pytest.approx(expected, abs=1e-5)


def test_sparse_gradients_are_added_up_before_they_are_clamped() -> None:
    model = nn.Embedding(4, 2, sparse=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    monitor = gradwatch.watch(model, optimizer, clip=Value(1.5), mode="disabled")
    (3 * model(torch.tensor([1, 1])) - model(torch.tensor([2, 2]))).sum().backward()
    monitor.clip()
    gradient = model.weight.grad
    assert gradient is not None
    assert gradient.to_dense().tolist() == [[0.0, 0.0], [1.5, 1.5], [-1.5, -1.5], [0.0, 0.0]]


@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_wrong_arguments_say_what_to_write(value: float) -> None:
    with pytest.raises(ValueError, match="clip=None"):
        Value(value)
