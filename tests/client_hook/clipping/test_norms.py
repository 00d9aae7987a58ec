"""Norms against NumPy in float64, where float32 arithmetic would overflow, and of every kind of gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.clipping.norms import measure_norms
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.client_hook.clipping.stepping import clip

powers = st.sampled_from([1.0, 1.5, 2.0, 3.0, 10.0, math.inf])


def oracle(tensors: list[Tensor], p: float) -> float:
    flat = np.concatenate([tensor.to(torch.complex128).abs().numpy().ravel() for tensor in tensors])
    largest = flat.max(initial=0.0)
    return float(largest * np.linalg.norm(flat / largest, p)) if largest else 0.0


@given(st.lists(st.floats(2.0**34, 2.0**127, width=32), min_size=1, max_size=8), powers)
def test_a_finite_norm_survives_the_overflow_of_its_powers(elements: list[float], p: float) -> None:
    gradients = [torch.tensor(elements), torch.tensor([1.0, -2.0])]
    before = [gradient.double().numpy() for gradient in gradients]
    measurement, decision = clip(GlobalNorm(2.0, p), gradients)
    expected = oracle([torch.tensor(elements, dtype=torch.float64), torch.tensor([1.0, -2.0])], p)
    assert measurement.total.item() == pytest.approx(expected, rel=2e-5)
    assert decision.clipped is True
    # What torch would have zeroed is clipped: to the threshold, in the same direction.
    after = np.concatenate([gradient.double().numpy() for gradient in gradients])
    np.testing.assert_allclose(after, np.concatenate(before) * (2.0 / expected), rtol=3e-5, atol=1e-44)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype: torch.dtype) -> None:
    gradients = [torch.full((1024,), 300.0, dtype=dtype) for _ in range(64)]
    measurement, decision = clip(GlobalNorm(1.0), gradients)
    assert measurement.total.item() == 76800.0 and decision.coefficient == pytest.approx(1 / 76800)
    assert float(gradients[0].float().norm()) == pytest.approx(1 / 8, rel=1e-2)


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_large_gradients_in_half_precision_are_measured_in_pieces(p: float) -> None:
    generator = torch.Generator().manual_seed(1)
    sizes = [(700, 500), (3, 5), (1 << 19,), (262_145,)]
    gradients = [torch.randn(size, generator=generator).bfloat16() for size in sizes]
    gradients.append(torch.randn(600, 500, generator=generator).bfloat16().T)
    measurement = measure_norms(gradients, p, True)
    np.testing.assert_allclose(measurement.norms.numpy(), [oracle([one], p) for one in gradients], rtol=2e-5)


def test_a_truly_infinite_gradient_stays_as_torch_treats_it() -> None:
    gradients = [torch.tensor([1e20, math.inf]), torch.tensor([3.0])]
    measurement, decision = clip(GlobalNorm(1.0), gradients)
    assert measurement.total.item() == math.inf and decision.coefficient == 0.0
    assert gradients[1].item() == 0.0 and gradients[0][1].isnan() and gradients[0][0] == 0.0


KINDS = {
    "complex": [torch.tensor([3 + 4j, 1j]), torch.tensor([1.0])],
    "mixed": [torch.tensor([3.0], dtype=torch.float64), torch.tensor([4.0]), torch.tensor([2.0], dtype=torch.bfloat16)],
    "empty": [torch.zeros(0), torch.tensor([7.0]), torch.zeros(2, 0)],
    "all zero": [torch.zeros(3), torch.zeros(2)],
    "scalar": [torch.tensor(5.0)],
    "not contiguous": [torch.arange(12.0).reshape(3, 4).T, torch.arange(6.0)[::2]],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_every_kind_of_gradient_is_measured_and_clipped(kind: str, p: float) -> None:
    gradients = [gradient.clone() for gradient in KINDS[kind]]
    measurement, _ = clip(GlobalNorm(0.5, p), gradients)
    assert measurement.total.item() == pytest.approx(oracle(KINDS[kind], p), rel=1e-6)
    expected = [oracle([gradient], p) for gradient in KINDS[kind]]
    np.testing.assert_allclose(measurement.norms.numpy(), expected, rtol=1e-6)
    factor = min(1.0, 0.5 / (oracle(KINDS[kind], p) + 1e-6))
    for gradient, before in zip(gradients, KINDS[kind], strict=True):
        near = 1e-2 if gradient.dtype is torch.bfloat16 else 1e-6
        torch.testing.assert_close(gradient, before * factor, rtol=near, atol=0)


def test_no_gradient_at_all() -> None:
    measurement = measure_norms([], 2.0, True)
    assert measurement.norms.shape == (0,) and measurement.total.item() == 0.0
