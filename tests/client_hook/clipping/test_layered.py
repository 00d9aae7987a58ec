"""Scaling layers to limits of their own, against gradients that are really scaled."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gradwatch.clipping.layered import scale_layers
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client_hook.clipping import adapting

layers = st.lists(st.tuples(st.floats(0, 1e3), st.floats(1e-3, 1e3) | st.just(math.inf)), min_size=1, max_size=8)


@settings(max_examples=100, deadline=None)
@given(layers, st.floats(1e-2, 1e3) | st.just(math.inf), st.integers(0, 2**31))
def test_factors_coefficient_and_cosine(pairs: list[tuple[float, float]], cap: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    norms, limits = np.array(pairs).T
    directions = [direction / np.linalg.norm(direction) for direction in rng.normal(size=(len(pairs), 4))]
    before = [norm * direction for norm, direction in zip(norms, directions, strict=True)]
    after = [min(norm, limit) * direction for norm, limit, direction in zip(norms, limits, directions, strict=True)]
    total = float(np.linalg.norm(np.concatenate(after)))
    if total > 0 and abs(total - cap) < 1e-6 * total:
        return
    part = cap / (total + 1e-6) if total > cap else 1.0
    decision, left, _ = scale_layers(torch.from_numpy(norms), torch.from_numpy(limits), cap)
    np.testing.assert_allclose(left.numpy(), np.minimum(norms, limits), rtol=1e-12)
    assert decision.clipped is (bool((norms > limits).any()) or total > cap)
    assert decision.threshold == pytest.approx(min(float(np.linalg.norm(limits)), cap))
    if decision.factors is None:
        assert not decision.clipped and (decision.coefficient, decision.cosine) == (1.0, 1.0)
        return
    raw, clipped = np.concatenate(before), np.concatenate(after) * part
    assert decision.coefficient == pytest.approx(np.linalg.norm(clipped) / np.linalg.norm(raw), rel=1e-9)
    cosine = raw @ clipped / (np.linalg.norm(raw) * np.linalg.norm(clipped))
    assert decision.cosine == pytest.approx(cosine, rel=1e-9)
    np.testing.assert_allclose(decision.factors.numpy() * norms, np.minimum(norms, limits) * part, rtol=1e-9)


def scaled(norms: list[float], limits: list[float], cap: float) -> list[float]:
    decision, _, _ = scale_layers(
        torch.tensor(norms, dtype=torch.float64), torch.tensor(limits, dtype=torch.float64), cap
    )
    factors = torch.ones(len(norms)) if decision.factors is None else decision.factors
    with adapting.as_on_a_device():
        there, _, _ = scale_layers(
            torch.tensor(norms, dtype=torch.float64), torch.tensor(limits, dtype=torch.float64), cap
        )
    assert there.factors is not None
    np.testing.assert_array_equal(there.factors.numpy(), factors.numpy())
    np.testing.assert_allclose(adapting.numbers(there), adapting.numbers(decision), rtol=1e-12)
    return [float(factor) for factor in factors]


def test_what_is_not_finite_spoils_its_own_layer_and_a_nan_all_under_a_cap() -> None:
    factors = scaled([math.nan, math.inf, 4.0, 1.0], [1.0, 1.0, 2.0, 2.0], math.inf)
    assert math.isnan(factors[0]) and factors[1:] == [0.0, 0.5, 1.0]
    assert all(math.isnan(factor) for factor in scaled([math.nan, 4.0], [1.0, 2.0], 1.0))
    assert scaled([math.inf, 4.0], [1.0, 2.0], 1.0) == pytest.approx([0.0, 0.25], rel=1e-6)
    assert scaled([math.inf, 4.0], [math.inf, 2.0], 1.0) == [0.0, 0.0]
    assert scaled([math.inf, 1.0], [math.inf, 2.0], math.inf) == [1.0, 1.0]
    assert scaled([0.0, 0.0], [1.0, math.inf], 1.0) == [1.0, 1.0]
