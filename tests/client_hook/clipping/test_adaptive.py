"""What the adaptive strategies share."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gradwatch.clipping.adaptive import at_least, choose, enters, in_range, read, scale_above, write
from gradwatch.clipping.norms import Measurement
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client_hook.clipping import adapting


def measured(norm: float) -> Measurement:
    total = torch.tensor(norm, dtype=torch.float64)
    return Measurement(total.reshape(1), total, 2.0)


@settings(max_examples=100, deadline=None)
@given(st.floats(0, width=32) | st.just(math.nan), st.floats(1e-30, 1e30) | st.just(math.inf), st.booleans())
def test_a_norm_is_scaled_when_it_is_above_the_limit_and_only_then(norm: float, limit: float, skip: bool) -> None:
    decision = scale_above(measured(norm), limit, skip)
    if skip:
        assert (decision.coefficient, decision.clipped, decision.multiplier, decision.skip) == (0.0, True, None, True)
    elif norm <= limit:
        assert (decision.coefficient, decision.clipped, decision.multiplier) == (1.0, False, None)
    elif math.isnan(norm):
        assert math.isnan(float(decision.coefficient)) and decision.clipped is False
    else:
        assert (
            decision.coefficient == pytest.approx(limit / (norm + 1e-6), rel=1e-9, abs=1e-320)
            and decision.clipped is True
        )
    with adapting.as_on_a_device():
        there = scale_above(measured(norm), torch.tensor(limit, dtype=torch.float64), torch.tensor(skip))
    assert adapting.numbers(there) == pytest.approx(adapting.numbers(decision), nan_ok=True, rel=1e-9, abs=1e-320)


def test_an_infinite_norm_is_scaled_to_nothing() -> None:
    assert scale_above(measured(math.inf), 2.0).coefficient == 0.0
    assert scale_above(measured(math.inf), math.inf).coefficient == 1.0


def test_choosing_between_numbers_by_a_tensor_keeps_their_precision() -> None:
    chosen = choose(torch.tensor([True, False]), 0.1, 0.3)
    assert chosen.dtype is torch.float64 and chosen.tolist() == [0.1, 0.3]
    assert choose(True, 0.1, 0.3) == 0.1 and choose(False, 0.1, 0.3) == 0.3


@pytest.mark.parametrize(
    ("norm", "plain", "squared"),
    [(1.0, True, True), (0.0, False, False), (math.nan, False, False), (math.inf, False, False), (1e200, True, False)],
)
def test_only_finite_norms_above_zero_enter(norm: float, plain: bool, squared: bool) -> None:
    tensor = torch.tensor(norm, dtype=torch.float64)
    assert enters(norm) is plain and enters(norm, squared=True) is squared
    assert bool(enters(tensor)) is plain and bool(enters(tensor, squared=True)) is squared
    assert bool(enters(torch.tensor(1e20), squared=True)) is False


def test_state_is_written_in_place() -> None:
    state = torch.tensor(1.0, dtype=torch.float64)
    for value in (2.0, torch.tensor(3.0, dtype=torch.float64), math.nan, torch.tensor(math.inf)):
        place = state.data_ptr()
        write(state, value)
        assert state.data_ptr() == place
        assert read(state) == pytest.approx(float(value), nan_ok=True)


@pytest.mark.parametrize("value", [0.0, 1.0, math.nan, -1.0, math.inf])
def test_numbers_out_of_range_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="decay must be between 0 and 1, not .*: write 0.9"):
        in_range("decay", value, 0, 1, "write 0.9")


@pytest.mark.parametrize("value", [True, "0.5", None])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="decay must be a number"):
        in_range("decay", value, 0, 1, "write 0.9")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, 1.5, True, None])
def test_counts_are_whole_numbers(value: object) -> None:
    with pytest.raises(ValueError, match="window must be a whole number of at least 1, not .*: write 5"):
        at_least("window", value, 1, "write 5")  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers() -> None:
    decay, window = in_range("decay", np.float32(0.5), 0, 1, ""), at_least("window", np.int64(3), 1, "")  # type: ignore[arg-type]
    assert (decay, window) == (0.5, 3) and type(decay) is float and type(window) is int
