"""Coordinates in a plane whose directions need not stand at right angles, against least squares."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gradwatch.probe.plane import Plane, random_plane, solve, update_plane
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor


def drawn(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in ((3, 4), (5,))]


def flat(tensors: list[Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


@given(st.integers(0, 1000))
def test_coordinates_are_those_of_least_squares(seed: int) -> None:
    plane = Plane("random", drawn(seed), drawn(seed + 1), drawn(seed + 2), (0, 0), (0, 0), torch.ones(2), {})
    weights = drawn(seed + 3)
    basis = np.stack([flat(plane.first).numpy(), flat(plane.second).numpy()], 1)
    moved = (flat(weights) - flat(plane.anchor)).numpy()
    (u, v), residual, *_ = np.linalg.lstsq(basis, moved)
    found = solve(*(float(product) for product in plane.coordinates(weights)))
    assert found == pytest.approx((u, v, math.sqrt(residual[0])), rel=1e-9)


def test_directions_that_fall_together_have_no_coordinates() -> None:
    assert all(map(math.isnan, solve(1, 1, 1, 2, 2, 2)))


def test_corners_and_the_anchor_are_points_of_the_grid() -> None:
    plane = update_plane(drawn(0), drawn(1), drawn(2), step=5)
    assert plane.at((0, 0), 33) == (-2, -4) and plane.at((32, 32), 33) == (6, 4)
    assert plane.at((8, 16), 33) == (0, 0) and plane.at((4, 16), 33) == (-1, 0)
    assert plane.path == [(4, -1, 0, 0), (5, 0, 0, 0)]


def test_the_gradient_along_the_update_leaves_no_plane() -> None:
    old, new = drawn(0), drawn(1)
    along = [3 * (end - start) for start, end in zip(old, new, strict=True)]
    units = update_plane(old, new, along, step=5).units
    assert not (units > 0).all()
    still = update_plane(drawn(1), drawn(1), drawn(2), step=5).units
    assert not (torch.isfinite(still) & (still > 0)).all()


def test_a_seed_names_one_random_plane() -> None:
    first, again, other = (random_plane(drawn(0), seed, 0) for seed in (1, 1, 2))
    assert torch.equal(flat(first.second), flat(again.second))
    assert not torch.equal(flat(first.first), flat(other.first))
    assert not torch.equal(flat(first.first), flat(first.second))
