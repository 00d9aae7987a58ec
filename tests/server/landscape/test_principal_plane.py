from __future__ import annotations

import numpy as np
import pytest
from gradwatch_server.landscape.principal_plane import fit
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(0, 10_000), st.integers(3, 40), st.integers(2, 60))
def test_coordinates_shares_and_distances_are_those_of_the_gram_matrix(seed: int, count: int, width: int) -> None:
    """The same by another way: eigenvectors of the matrix of inner products."""
    path = np.cumsum(np.random.default_rng(seed).normal(size=(count, width)), axis=0) + 100
    plane = fit(path)
    centred = path - path.mean(axis=0)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    values, vectors = values[::-1].clip(0), vectors[:, ::-1]
    wanted = vectors[:, :2] * np.sqrt(values[:2])
    for mine, theirs in zip((plane.x, plane.y), wanted.T, strict=True):
        assert min(np.abs(mine - theirs).max(), np.abs(mine + theirs).max()) < 1e-6 * (1 + np.abs(theirs).max())
    np.testing.assert_allclose(plane.explained or (), values[:2] / values.sum(), atol=1e-9)
    np.testing.assert_allclose(plane.off**2 + plane.x**2 + plane.y**2, (centred**2).sum(axis=1), rtol=1e-8, atol=1e-8)


def test_a_path_in_a_plane_is_drawn_as_it_is() -> None:
    along = np.linspace(-3, 5, 30)
    flat = np.stack([along, 2 - 0.1 * (along - 1) ** 2], axis=1)
    axes, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(50, 2)))
    plane = fit(flat @ axes.T + 7)
    drawn = np.stack([plane.x, plane.y], axis=1)
    distances = np.linalg.norm(flat[:, None] - flat[None], axis=2)
    np.testing.assert_allclose(np.linalg.norm(drawn[:, None] - drawn[None], axis=2), distances, atol=1e-9)
    assert plane.off.max() < 1e-9 and sum(plane.explained or (0, 0)) == pytest.approx(1)
    assert plane.x[-1] > plane.x[0] and plane.y[15] > plane.y[0] and plane.y[15] > plane.y[-1]


@given(st.integers(0, 1000), st.booleans())
def test_the_picture_does_not_flip_when_a_point_comes_or_the_directions_turn(seed: int, mirrored: bool) -> None:
    chance = np.random.default_rng(seed)
    path = np.cumsum(chance.normal(size=(60, 200)), axis=0)
    before, after = fit(path[:-1]), fit(-path if mirrored else path)
    for old, new in ((before.x, after.x[:-1]), (before.y, after.y[:-1])):
        assert np.corrcoef(old, new)[0, 1] > 0.9
    again = fit(path[:, chance.permutation(200)])
    np.testing.assert_allclose(again.x, fit(path).x, atol=1e-8)


def test_paths_that_go_nowhere_or_hardly_anywhere() -> None:
    still = fit(np.ones((4, 8)))
    assert still.explained is None and not still.x.any() and not still.y.any() and not still.off.any()
    none, one, two = fit(np.zeros((0, 8))), fit(np.ones((1, 8))), fit(np.array([[0.0, 0.0], [3.0, 4.0]]))
    assert none.explained is None and len(none.x) == 0
    assert one.x.tolist() == [0] and one.explained is None
    assert two.x.tolist() == pytest.approx([-2.5, 2.5]) and list(two.explained or ()) == pytest.approx([1, 0])
    loop = np.array([[0.0, 0.0], [1.0, 0.2], [0.0, 0.0]])
    assert fit(loop).x[1] > 0, "the end is where the beginning was: the farthest point decides"


def test_half_precision_sketches_of_huge_weights_do_not_overflow() -> None:
    path = (np.cumsum(np.ones((5, 3)), axis=0) * 1e30).astype(np.float32)
    plane = fit(path)
    assert np.isfinite(plane.x).all() and plane.explained is not None and plane.explained[0] == pytest.approx(1)
