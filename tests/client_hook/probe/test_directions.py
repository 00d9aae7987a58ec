"""Directions against NumPy in double precision, and what filter normalisation promises."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from gradwatch.probe.directions import (
    NOTHING_LEFT,
    filter_normalised,
    inner,
    norm,
    rejected,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.client_hook.measure.device import NoWaiting

SHAPES = [(3, 4), (5,), (), (2, 3, 2)]
Matrix = npt.NDArray[np.float64]


def drawn(seed: int, dtype: torch.dtype = torch.float32, shapes: list[tuple[int, ...]] | None = None) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes or SHAPES]


def flat(tensors: list[Tensor]) -> Matrix:
    whole: Matrix = torch.cat([tensor.detach().double().reshape(-1) for tensor in tensors]).numpy()
    return whole


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_inner_products_are_numpys(dtype: torch.dtype) -> None:
    a, b = drawn(1, dtype), drawn(2, dtype)
    found = inner(a, b)
    assert found.dtype is torch.float64 and found.dim() == 0
    assert found.item() == pytest.approx(flat(a) @ flat(b), rel=1e-13)
    assert norm(a).item() == pytest.approx(np.linalg.norm(flat(a)), rel=1e-13)


def test_a_long_inner_product_is_summed_up_in_double_precision() -> None:
    """Of numbers whose sum in single precision is off by a part in a thousand."""
    a, b = [torch.full((3_000_000,), 0.1), torch.ones(2)], [torch.full((3_000_000,), 0.1), torch.ones(2)]
    assert inner(a, b).item() == pytest.approx(flat(a) @ flat(b), rel=1e-10)
    tiny = [torch.full((10,), 1e-30)]
    assert norm(tiny).item() == pytest.approx(math.sqrt(10) * 1e-30, rel=1e-6)


def test_a_device_is_not_waited_for() -> None:
    with FakeTensorMode():
        weights = [torch.empty(shape, device="cuda") for shape in SHAPES]
        with NoWaiting():  # type: ignore[no-untyped-call]
            assert inner(weights, weights).device.type == "cuda"
            rest, share = rejected(weights, weights)
    assert share.device.type == "cuda" and [tensor.shape for tensor in rest] == [torch.Size(shape) for shape in SHAPES]


def test_every_filter_is_as_long_as_that_of_the_weights_and_vectors_stay() -> None:
    weights = [nn.Parameter(tensor) for tensor in drawn(3)]
    direction = filter_normalised(weights, 7)
    for weight, along in zip(weights, direction, strict=True):
        assert along.shape == weight.shape and along.dtype is weight.dtype and not along.requires_grad
        if weight.dim() <= 1:
            assert torch.equal(along, torch.zeros_like(weight))
        else:
            lengths = [np.linalg.norm(flat([part])) for part in along]
            assert lengths == pytest.approx([np.linalg.norm(flat([part])) for part in weight], rel=1e-6)


def test_a_seed_gives_the_same_direction_and_leaves_the_global_generator_alone() -> None:
    weights = drawn(4)
    state = torch.get_rng_state()
    one, same, other = (filter_normalised(weights, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])
    # Two tensors of one shape do not get the same numbers.
    twice = filter_normalised([torch.ones(4, 4), torch.ones(4, 4)], 1)
    assert not torch.equal(twice[0], twice[1])


def test_half_precision_and_empty_filters() -> None:
    weights = [torch.randn(4, 6).to(torch.bfloat16), torch.zeros(3, 2)]
    direction = filter_normalised(weights, 1)
    assert direction[0].dtype is torch.bfloat16 and torch.equal(direction[1], torch.zeros(3, 2))
    lengths = [np.linalg.norm(flat([part])) for part in direction[0]]
    assert lengths == pytest.approx([np.linalg.norm(flat([part])) for part in weights[0]], rel=1e-2)


def surface(scale: float, normalised: bool) -> list[float]:
    """Losses on a random plane through a ReLU network, one layer of which is scaled up and the next one down."""
    network: Any = nn.Sequential(nn.Linear(5, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False)).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        network[0].weight.mul_(scale)
        network[2].weight.div_(scale)
        x = torch.randn(20, 5, generator=generator, dtype=torch.float64)
        y = torch.randn(20, 3, generator=generator, dtype=torch.float64)
        anchor = [parameter.detach().clone() for parameter in network.parameters()]
        plain = [drawn(seed, torch.float64, [(8, 5), (3, 8)]) for seed in (1, 2)]
        u, v = (filter_normalised(anchor, seed) for seed in (1, 2)) if normalised else plain
        losses = []
        for a in np.linspace(-1, 1, 5):
            for b in np.linspace(-1, 1, 5):
                for parameter, weight, along, across in zip(network.parameters(), anchor, u, v, strict=True):
                    parameter.copy_(weight + a * along + b * across)
                losses.append(float(((network(x) - y) ** 2).mean()))
    return losses


def test_rescaled_layers_have_the_same_surface_under_filter_normalisation_only() -> None:
    assert surface(10.0, normalised=True) == pytest.approx(surface(1.0, normalised=True), rel=1e-9)
    assert surface(10.0, normalised=False) != pytest.approx(surface(1.0, normalised=False), rel=0.1)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 100), st.sampled_from([torch.float32, torch.float64]))
def test_what_is_rejected_is_the_residual_of_least_squares(seed: int, dtype: torch.dtype) -> None:
    direction, other = drawn(seed, dtype), drawn(1000 + seed, dtype)
    kept = [tensor.clone() for tensor in direction]
    rest, share = rejected(direction, other)
    basis = flat(other)[:, None]
    expected = flat(direction) - basis @ np.linalg.lstsq(basis, flat(direction))[0]
    exact = 1e-12 if dtype is torch.float64 else 1e-5
    assert flat(rest) == pytest.approx(expected, abs=exact)
    assert share.item() == pytest.approx(np.linalg.norm(expected) / np.linalg.norm(flat(direction)), abs=exact)
    assert all(torch.equal(a, b) for a, b in zip(direction, kept, strict=True))
    assert abs(inner(rest, other).item()) < exact * 10


def test_of_a_parallel_direction_nothing_is_left() -> None:
    direction = drawn(5)
    for factor in (3.0, -1e-4, 1e6):
        assert rejected(direction, [factor * tensor for tensor in direction]).share.item() < NOTHING_LEFT


def test_zeros_reject_nothing_and_leave_nothing() -> None:
    zeros = [torch.zeros(shape) for shape in SHAPES]
    direction = drawn(8)
    rest, share = rejected(direction, zeros)
    assert share.item() == pytest.approx(1.0) and torch.equal(rest[0], direction[0])
    assert rejected(zeros, direction).share.item() == 0.0
