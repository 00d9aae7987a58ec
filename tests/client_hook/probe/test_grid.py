"""The order of a surface's cells."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import perf_counter

import pytest
from gradwatch.probe.grid import Grid
from hypothesis import given, settings
from hypothesis import strategies as st

Cell = tuple[int, int]


def walked(grid: Grid, loss: Callable[[int, int], float]) -> list[Cell]:
    """The cells in the order in which they are asked for."""
    order = []
    while (cell := grid.next()) is not None:
        assert grid.next() == cell and cell not in grid.losses
        grid.add(*cell, loss(*cell))
        order.append(cell)
        assert grid.computed == len(order)
    return order


def bowl(i: int, j: int) -> float:
    return 1.0 + (i - 16) ** 2 + 4 * (j - 16) ** 2


@pytest.mark.parametrize("levels", [5, 9, 17, 33])
def test_each_level_is_finished_before_the_next_and_uses_it(levels: int) -> None:
    grid = Grid(levels)
    order = walked(grid, bowl)
    assert len(order) == len(set(order)) == levels**2 == grid.total
    done = 0
    for side, stride in [(5, 8), (9, 4), (17, 2), (33, 1)]:
        if side <= levels:
            assert set(order[: side**2]) == {(i, j) for i in range(0, 33, stride) for j in range(0, 33, stride)}
            done = side**2
    assert done == len(order)


def test_the_first_level_goes_from_the_centre_outwards() -> None:
    order = walked(Grid(5), bowl)
    distances = [math.hypot(i - 16, j - 16) for i, j in order]
    assert order[0] == (16, 16) and distances == sorted(distances)


def test_a_later_level_begins_where_the_logarithm_changes_most() -> None:
    """A loss that grows with i only, faster and faster in its logarithm."""
    order = walked(Grid(9), lambda i, j: math.exp((i / 8) ** 2))[25:]
    between = [cell for cell in order if cell[0] % 8]
    assert [i for i, _ in between] == sorted((i for i, _ in between), reverse=True)
    # Cells between two of the same i, where nothing changes, come last.
    assert order == between + [cell for cell in order if not cell[0] % 8]
    distances = [abs(j - 16) for i, j in between if i == 28]
    assert distances == sorted(distances)


def test_the_logarithm_decides_and_not_the_difference() -> None:
    """From 1e-6 to 1e-3 is more than from 1 to 10."""
    heights = {0: 1e-6, 8: 1e-3, 16: 1e-2, 24: 1.0, 32: 10.0}
    order = walked(Grid(9), lambda i, j: heights.get(i, 1.0))[25:]
    assert [i for i, _ in order if i % 8][::9] == [4, 20, 12, 28]


@pytest.mark.parametrize("edge", [math.nan, math.inf, -math.inf])
def test_the_border_of_what_is_not_finite_comes_first_and_its_inside_last(edge: float) -> None:
    order = walked(Grid(9), lambda i, j: edge if i >= 16 else bowl(i, j))[25:]
    assert {i for i, _ in order[:9]} == {12}
    # Around these all four or both are not finite.
    inside = [cell for cell in order if cell[0] >= 16]
    assert order[-len(inside) :] == inside


def test_losses_that_are_not_positive_are_compared_above_the_least() -> None:
    """The logarithm is steepest where the loss is least, which has no logarithm of its own here."""
    heights = {0: 50.0, 8: 40.0, 16: 30.0, 24: -10.0, 32: -50.0}
    order = walked(Grid(9), lambda i, j: heights.get(i, 0.0))[25:]
    assert [i for i, _ in order if i % 8][::9] == [28, 20, 12, 4]
    flat = walked(Grid(9), lambda i, j: -3.0)[25:]
    distances = [math.hypot(i - 16, j - 16) for i, j in flat]
    assert distances == sorted(distances)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_losses_are_walked_through_once_and_the_same_way(data: st.DataObject) -> None:
    values: dict[Cell, float] = {}

    def loss(i: int, j: int) -> float:
        if (i, j) not in values:
            values[i, j] = data.draw(st.floats())
        return values[i, j]

    order = walked(Grid(9), loss)
    assert sorted(order) == [(i, j) for i in range(0, 33, 4) for j in range(0, 33, 4)]
    assert walked(Grid(9), loss) == order


def test_another_size() -> None:
    assert len(walked(Grid(9, size=9), bowl)) == 81
    assert set(walked(Grid(5, size=17), bowl)) == {(i, j) for i in range(0, 17, 4) for j in range(0, 17, 4)}


@pytest.mark.parametrize("levels, size", [(4, 33), (6, 33), (65, 33), (1, 33), (9, 5), (10, 13), (2, 33)])
def test_levels_that_there_are_not(levels: int, size: int) -> None:
    with pytest.raises(ValueError, match="one of"):
        Grid(levels, size)


def test_asking_is_cheap() -> None:
    """All 1,089 cells in the time of one small forward pass or so, not quadratic in their number."""
    start = perf_counter()
    walked(Grid(33), bowl)
    assert perf_counter() - start < 1.0
