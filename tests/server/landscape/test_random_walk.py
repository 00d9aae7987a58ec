from __future__ import annotations

import math

import numpy as np
import pytest
from gradwatch_server.landscape import principal_plane, random_walk


@pytest.mark.parametrize("steps", [2, 3, 4, 7, 50, 400])
def test_the_closed_form_is_that_of_the_matrix(steps: int) -> None:
    walk = np.tril(np.ones((steps, steps)))
    centred = walk - walk.mean(axis=0)
    values = np.sort(np.linalg.eigvalsh(centred @ centred.T))[::-1]
    shares = random_walk.explained(steps)
    assert shares is not None
    np.testing.assert_allclose(shares, (values / values.sum())[:2], atol=1e-12)


def test_long_walks_tend_to_61_and_15_percent() -> None:
    shares = random_walk.explained(100_000)
    assert shares is not None
    np.testing.assert_allclose(shares, [6 / math.pi**2, 6 / math.pi**2 / 4], rtol=1e-6)
    assert [round(100 * share, 1) for share in shares] == [60.8, 15.2]


def test_walks_that_were_really_walked() -> None:
    chance = np.random.default_rng(11)
    found = [principal_plane.fit(np.cumsum(chance.normal(size=(100, 4000)), axis=0)).explained or () for _ in range(5)]
    np.testing.assert_allclose(np.mean(found, axis=0), random_walk.explained(100) or (0, 0), rtol=0.03)


def test_a_single_point_walks_nowhere() -> None:
    assert random_walk.explained(0) is None is random_walk.explained(1)
    np.testing.assert_allclose(random_walk.explained(2) or (), [1, 0])
