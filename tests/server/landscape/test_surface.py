from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from gradwatch_server.landscape import surface
from gradwatch_server.store.landscape_frames import ProbeRows
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from .pieces import piece

INF = math.inf


def plane(size: int = 5, probe: int = 3, **changed: float) -> ProbeRows:
    extent = {"low_u": -1.0, "high_u": 1.0, "low_v": -2.0, "high_v": 6.0, "unit_u": 0.5, "unit_v": 0.25, "base": 7.0}
    return piece("surface plane", extent | changed, probe=probe, step=20, size=size, plane="update")


def points(i: ArrayLike, j: ArrayLike, loss: ArrayLike, seconds: float = 0.5) -> ProbeRows:
    count = len(np.atleast_1d(np.asarray(i)))
    columns: dict[str, Any] = {"i": np.array(i, "u4"), "j": np.array(j, "u4"), "loss": loss}
    return piece("surface points", columns | {"seconds": np.full(count, seconds)}, probe=3, step=20, size=5)


def test_the_grid_of_a_formula_with_i_along_u_and_j_along_v() -> None:
    i, j = (grid.ravel() for grid in np.meshgrid(np.arange(5), np.arange(5), indexing="ij"))
    u, v = -1 + i * 0.5, -2 + j * 2.0
    found = surface.assemble([plane(), points(i, j, (1 - u) ** 2 + 100 * (v - u**2) ** 2)])
    assert found is not None and found.computed.all() and found.nonfinite == 0
    assert found.u.tolist() == [-1, -0.5, 0, 0.5, 1] and found.v.tolist() == [-2, 0, 2, 4, 6]
    np.testing.assert_allclose(found.loss, (1 - found.u) ** 2 + 100 * (found.v[:, None] - found.u**2) ** 2)
    assert (found.unit_u, found.unit_v, found.base, found.seconds) == (0.5, 0.25, 7, 12.5)
    assert (found.attempt, found.probe, found.step, found.about["plane"]) == (1, 3, 20, "update")


def test_what_was_not_computed_is_told_from_what_is_not_finite() -> None:
    found = surface.assemble([points([0, 4], [1, 4], [INF, np.nan]), plane(), points([2], [2], [1.0])])
    assert found is not None and int(found.computed.sum()) == 3 and found.nonfinite == 2
    assert found.loss[1, 0] == INF and found.computed[4, 4] and np.isnan(found.loss[4, 4]) and not found.computed[0, 1]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.floats(-9, 9)), min_size=1, max_size=60), st.data())
def test_the_last_word_on_a_cell_wins_within_and_across_frames(cells: list[tuple[int, int, float]], data: Any) -> None:
    cut = data.draw(st.integers(0, len(cells)))
    parts = [part for part in (cells[:cut], cells[cut:]) if part]
    found = surface.assemble([plane(), *(points(*np.array(part).T) for part in parts)])
    wanted = {(j, i): loss for i, j, loss in cells}
    assert found is not None and int(found.computed.sum()) == len(wanted)
    assert {tuple(at): float(found.loss[*at]) for at in np.argwhere(found.computed).tolist()} == wanted


def test_points_beyond_the_side_are_left_out_and_a_newer_plane_replaces_the_older() -> None:
    found = surface.assemble([plane(), points([4, 1], [0, 1], [1.0, 2.0]), plane(size=3, low_u=0.0)])
    assert found is not None and found.loss.shape == (3, 3) and found.loss[1, 1] == 2 and found.computed.sum() == 1
    assert found.u.tolist() == [0, 0.5, 1]
    assert surface.assemble([points([0], [0], [1.0])]) is None is surface.assemble([])


def test_the_path_is_in_step_order_and_each_step_once() -> None:
    def path(step: list[int], u: list[float]) -> ProbeRows:
        rest = {name: np.array(u) * k for k, name in enumerate(("v", "off", "loss"), 2)}
        return piece("surface path", {"step": np.array(step), "u": u, **rest}, probe=3, step=20)

    found = surface.assemble([plane(), path([20, 30, 25], [0.0, 3.0, 1.0]), path([30, 40], [5.0, np.nan])])
    assert found is not None and found.path["step"].tolist() == [20, 25, 30, 40]
    assert found.path["u"].tolist() == pytest.approx([0, 1, 5, np.nan], nan_ok=True)
    assert found.path["loss"].tolist() == pytest.approx([0, 4, 20, np.nan], nan_ok=True)
    empty = surface.assemble([plane()])
    assert empty is not None and empty.path["step"].tolist() == [] and not empty.computed.any() and empty.seconds == 0
