"""Surfaces against the function they show, and planes asked for from outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gradwatch.probe.landscape_rows import LandscapeRows
from torch import Tensor

from tests.client_hook.probe.training import Bowl, BowlTraining, only


@pytest.fixture(scope="module")
def training() -> BowlTraining:
    def ask(step: int, training: BowlTraining) -> None:
        if step == 300:
            training.ask(plane="trajectory", levels=5, seed=0, id="path")
            training.ask(plane="random", levels=9, seed=7, id="abc")

    return BowlTraining(steps=600, at_step=ask)


def of_plane(training: BowlTraining, name: str) -> list[LandscapeRows]:
    return [rows for rows in training.rows("surface", "plane") if rows.about["plane"] == name]


def points_of(training: BowlTraining, probe: int) -> dict[tuple[int, int], float]:
    found: dict[tuple[int, int], float] = {}
    for rows in training.rows("surface", "points"):
        if rows.probe == probe:
            cells = zip(rows.values["i"], rows.values["j"], strict=True)
            found |= dict(zip(cells, rows.values["loss"], strict=True))
    return found


def places(plane: LandscapeRows, cells: Any) -> list[tuple[float, float]]:
    low_u, high_u, low_v, high_v = (only(plane, name) for name in ("low_u", "high_u", "low_v", "high_v"))
    return [(low_u + i * (high_u - low_u) / 32, low_v + j * (high_v - low_v) / 32) for i, j in cells]


def test_the_update_plane_is_the_quadratic_over_update_and_gradient(training: BowlTraining) -> None:
    planes = of_plane(training, "update")
    assert planes
    for plane in planes:
        anchor, old = training.weights[plane.step], training.weights[plane.step - 1]
        along, uphill = anchor - old, training.gradients[plane.step]
        across = uphill - along * (uphill @ along) / (along @ along)
        across *= np.linalg.norm(along) / np.linalg.norm(across)
        found = points_of(training, plane.probe)
        expected = [training.loss(anchor + u * along + v * across) for u, v in places(plane, found)]
        np.testing.assert_allclose(list(found.values()), expected, rtol=1e-9)
        assert only(plane, "unit_u") == pytest.approx(np.linalg.norm(along), rel=1e-12)
    first = points_of(training, planes[0].probe)
    assert len(first) >= 25 and first[8, 16] == pytest.approx(training.loss(training.weights[planes[0].step]))


def test_the_path_behind_a_plane_lies_where_the_weights_were(training: BowlTraining) -> None:
    plane = of_plane(training, "update")[0]
    paths = [rows for rows in training.rows("surface", "path") if rows.probe == plane.probe]
    assert list(paths[0].values["step"]) == [plane.step - 1, plane.step]
    assert list(paths[0].values["u"]) == [-1, 0] and list(paths[0].values["off"]) == [0, 0]
    anchor, old = training.weights[plane.step], training.weights[plane.step - 1]
    along, uphill = anchor - old, training.gradients[plane.step]
    across = uphill - along * (uphill @ along) / (along @ along)
    across *= np.linalg.norm(along) / np.linalg.norm(across)
    assert len(paths) > 3
    for rows in paths[1:]:
        step = int(only(rows, "step"))
        moved = training.weights[step] - anchor
        u, v = moved @ along / (along @ along), moved @ across / (across @ across)
        off = np.linalg.norm(moved - u * along - v * across)
        assert only(rows, "u") == pytest.approx(u, rel=1e-8, abs=1e-9)
        assert only(rows, "v") == pytest.approx(v, rel=1e-8, abs=1e-9)
        assert only(rows, "off") == pytest.approx(off, rel=1e-6, abs=1e-7)
        assert only(rows, "loss") == pytest.approx(training.loss(training.weights[step]), rel=1e-12)


def test_the_trajectory_plane_holds_the_path_it_was_made_from(training: BowlTraining) -> None:
    planes = of_plane(training, "trajectory")
    assert planes
    plane = planes[-1]
    path = next(rows for rows in training.rows("surface", "path") if rows.probe == plane.probe)
    steps = [int(step) for step in path.values["step"]]
    moved = np.array([training.weights[step] - training.weights[plane.step] for step in steps])
    flat = np.array([path.values["u"], path.values["v"]]).T
    # Coordinates in an orthonormal plane and the distance off it: together they are the whole length.
    off = np.array(path.values["off"])
    np.testing.assert_allclose((flat**2).sum(1) + off**2, (moved**2).sum(1), rtol=1e-6, atol=1e-9)
    _, singular, axes = np.linalg.svd(moved - moved.mean(0))
    spread = np.linalg.norm(moved - moved.mean(0) - (moved - moved.mean(0)) @ axes[:2].T @ axes[:2])
    centred = flat - flat.mean(0)
    assert (centred**2).sum() == pytest.approx((singular[:2] ** 2).sum(), rel=1e-6)
    assert spread == pytest.approx(np.sqrt((singular[2:] ** 2).sum()), abs=1e-6)
    assert (only(plane, "unit_u"), only(plane, "unit_v")) == pytest.approx((1, 1))


def test_a_random_plane_is_filter_normalised_and_named_by_its_seed(training: BowlTraining) -> None:
    plane = next(plane for plane in of_plane(training, "random") if plane.about["request"] == "abc")
    assert plane.about["normalisation"] == "filter" and plane.about["seed"] == 7
    weights = training.weights[plane.step]
    # One parameter is a vector, which a filter-normalised direction leaves out: the other's rows give the length.
    assert only(plane, "unit_u") == pytest.approx(np.linalg.norm(weights[:8]), rel=1e-9)
    assert points_of(training, plane.probe)[16, 16] == pytest.approx(training.loss(weights), rel=1e-12)


def test_planes_asked_for_come_next_and_carry_the_name_of_the_request(training: BowlTraining) -> None:
    asked = [rows for rows in training.rows("surface", "plane") if rows.about["request"] == "abc"]
    assert len(asked) == 1 and asked[0].about["levels"] == 9 and asked[0].about["seed"] == 7
    assert len(points_of(training, asked[0].probe)) == 81
    (path,) = [plane for plane in of_plane(training, "trajectory") if plane.about["request"] == "path"]
    assert 300 <= path.step < 310
    assert path.step + 25 < asked[0].step < 400  # one after the other


@pytest.mark.parametrize(
    "nonsense",
    [
        {},
        {"plane": "flat", "levels": 9, "seed": 0},
        {"plane": "random", "levels": 10**9, "seed": 0},
        {"plane": "random"},
        {"plane": "random", "levels": 9, "seed": 1 << 63},
    ],
)
def test_what_cannot_be_asked_is_left_unanswered(nonsense: dict[str, Any]) -> None:
    def ask(step: int, training: BowlTraining) -> None:
        if step == 50:
            training.ask(id="abc", **nonsense)

    training = BowlTraining(steps=300, at_step=ask)
    assert training.prober.is_active
    assert not [rows for rows in training.rows("surface", "plane") if rows.about["request"]]


def test_a_random_plane_that_cannot_be_is_not_opened_for_ever() -> None:
    class Biases(Bowl):
        """Of filters there are none, so no direction has any length."""

        def __init__(self) -> None:
            super().__init__()
            self.first.requires_grad_(False)

    def ask(step: int, training: BowlTraining) -> None:
        if step == 20:
            training.ask(plane="random", levels=5, seed=0, id="abc")

    training = BowlTraining(steps=200, model=Biases(), at_step=ask)
    assert max(rows.step for rows in training.rows("trajectory", "points")) > 150


def test_cells_that_are_not_finite_are_sent_as_they_are() -> None:
    first: list[float] = []

    def cliff(model: Any) -> Tensor:
        loss: Tensor = model()
        first.append(float(loss))
        return loss if loss < 0.8 * first[0] else loss / torch.zeros_like(loss)

    training = BowlTraining(steps=300, closures=(cliff,))
    losses = [loss for rows in training.rows("surface", "points") for loss in rows.values["loss"]]
    assert np.isinf(losses).any() and np.isfinite(losses).any() and training.prober.is_active
