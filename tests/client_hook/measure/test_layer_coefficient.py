"""Factors of layers, whatever form a decision gives them in."""

from __future__ import annotations

import pytest
import torch
from gradwatch.clipping.strategy import Decision
from gradwatch.measure.layer_coefficient import layer_coefficients

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_factors_are_picked_by_gradient_and_copied(dtype: torch.dtype) -> None:
    factors = torch.tensor([0.5, 1.0, 0.25], dtype=dtype)
    decision = Decision(0.5, True, 1.0, factors=factors)
    some, all_of_them = layer_coefficients(decision, [2, 0], CPU), layer_coefficients(decision, [0, 1, 2], CPU)
    factors.zero_()
    assert some.tolist() == [0.25, 0.5] and all_of_them.tolist() == [0.5, 1.0, 0.25]
    assert some.dtype is all_of_them.dtype is torch.float32


def test_a_common_factor_is_that_of_every_layer() -> None:
    factor = torch.tensor(0.125)
    values = layer_coefficients(Decision(0.125, True, 1.0, multiplier=factor), [1, 5], CPU)
    factor.zero_()
    assert values.tolist() == [0.125, 0.125]


def test_no_factors_are_ones() -> None:
    assert layer_coefficients(Decision(1.0, False, 1.0), [0, 3], CPU).tolist() == [1.0, 1.0]
