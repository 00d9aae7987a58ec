"""The principal plane of a path against a singular value decomposition of the whole."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from gradwatch.probe.directions import inner, norm
from gradwatch.probe.principal import gram, principal, spanned
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.client_hook.probe.test_directions import SHAPES, Matrix, drawn, flat


def walk(seed: int, count: int, dtype: torch.dtype = torch.float64) -> list[list[Tensor]]:
    """A random walk."""
    path = [drawn(seed, torch.float64)]
    for step in range(1, count):
        path.append([a + b for a, b in zip(path[-1], drawn(seed * 100 + step, torch.float64), strict=True)])
    return [[tensor.to(dtype) for tensor in point] for point in path]


def by_svd(path: list[list[Tensor]]) -> tuple[Matrix, Matrix]:
    """The two principal directions of a path and its coordinates relative to its last point."""
    points = np.stack([flat(point) for point in path])
    directions = np.linalg.svd(points - points.mean(0), full_matrices=False)[2][:2]
    moved = points[:-1] - points[-1]
    coordinates = moved @ directions.T
    off = np.linalg.norm(moved - coordinates @ directions, axis=1)
    turned = np.where(coordinates[0] > 0, -1.0, 1.0)
    return directions * turned[:, None], np.column_stack([coordinates * turned, off])


class Plane(NamedTuple):
    """All that is known of a path's plane."""

    first: list[Tensor]
    second: list[Tensor]
    coordinates: Tensor


def found(path: list[list[Tensor]]) -> Plane:
    plane = principal(gram(path[:-1], path[-1]))
    assert plane is not None
    return Plane(*spanned(plane, path[:-1], path[-1]), plane.coordinates)


def is_none(snapshots: list[list[Tensor]], anchor: list[Tensor]) -> bool:
    return principal(gram(snapshots, anchor)) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("count", [3, 4, 10, 40])
def test_the_principal_plane_is_that_of_a_singular_value_decomposition(count: int, dtype: torch.dtype) -> None:
    path = walk(count, count, dtype)
    plane = found(path)
    directions, coordinates = by_svd(path)
    exact = 1e-8 if dtype is torch.float64 else 1e-5
    assert plane.coordinates.numpy() == pytest.approx(coordinates, abs=exact)
    assert flat(plane.first) == pytest.approx(directions[0], abs=exact)
    assert flat(plane.second) == pytest.approx(directions[1], abs=exact)
    assert [tensor.dtype for tensor in plane.first] == [dtype] * len(SHAPES)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(3, 12))
def test_the_plane_is_orthonormal_and_holds_what_its_coordinates_say(seed: int, count: int) -> None:
    path = walk(seed, count)
    first, second, coordinates = found(path)
    assert norm(first).item() == pytest.approx(1) and norm(second).item() == pytest.approx(1)
    assert inner(first, second).item() == pytest.approx(0, abs=1e-9)
    for point, (u, v, off) in zip(path[:-1], coordinates.tolist(), strict=True):
        left = [p - a - u * x - v * y for p, a, x, y in zip(point, path[-1], first, second, strict=True)]
        assert norm(left).item() == pytest.approx(off, abs=1e-5)
    assert coordinates[0, 0] <= 0 and coordinates[0, 1] <= 0


def test_a_path_far_from_zero_loses_no_digits() -> None:
    """A Gram matrix of the weights themselves, not of their differences, would hold nothing but rounding here."""
    path = [[tensor * 1e-6 + 1000 for tensor in point] for point in walk(3, 6)]
    assert found(path).coordinates.numpy() == pytest.approx(by_svd(path)[1], rel=1e-3, abs=1e-9)


def test_many_pieces_give_the_same() -> None:
    shapes: list[tuple[int, ...]] = [(300, 200), (70_001,), (3, 3)]
    path = [drawn(seed, torch.float32, shapes) for seed in range(6)]
    plane = found(path)
    directions, coordinates = by_svd(path)
    assert plane.coordinates.numpy() == pytest.approx(coordinates, rel=1e-8, abs=1e-5)
    assert flat(plane.first) == pytest.approx(directions[0], abs=1e-7)


def test_a_straight_path_or_none_spans_no_plane() -> None:
    start = drawn(1)
    line = [[tensor * factor for tensor in start] for factor in (1.0, 2.0, 4.0, 3.0)]
    assert is_none([], start) and is_none([start], start)
    assert is_none([start, start], start)
    assert is_none([drawn(2)], start)
    assert is_none(line[:-1], line[-1])
    assert is_none([drawn(2), [tensor * math.nan for tensor in start]], start)
    assert not is_none([drawn(2), drawn(3)], start)


def test_snapshots_are_only_read() -> None:
    path = [[nn.Parameter(tensor) for tensor in point] for point in walk(2, 5, torch.float32)]
    before = [[(tensor.detach().clone(), tensor._version) for tensor in point] for point in path]
    found([list[Tensor](point) for point in path])
    for point, kept in zip(path, before, strict=True):
        for tensor, (value, version) in zip(point, kept, strict=True):
            assert torch.equal(tensor, value) and tensor._version == version
