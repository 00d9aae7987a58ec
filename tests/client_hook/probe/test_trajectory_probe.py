"""The path: true losses and lengths at the weights that there really were, and sketches that keep distances."""

from __future__ import annotations

import numpy as np
import pytest
from gradwatch.probe import trajectory_probe

from tests.client_hook.probe.training import BowlTraining, only


@pytest.fixture(scope="module")
def training() -> BowlTraining:
    return BowlTraining(steps=400)


def test_snapshots_carry_the_true_loss_and_length(training: BowlTraining) -> None:
    rows = training.rows("trajectory", "points")
    assert len(rows) > 10 and len({each.probe for each in rows}) == 1
    for each in rows:
        weights = training.weights[int(only(each, "step"))]
        assert only(each, "loss") == pytest.approx(training.loss(weights), rel=1e-12)
        assert only(each, "norm") == pytest.approx(np.linalg.norm(weights), rel=1e-12)
        assert each.about["parameters"] == 12 and each.about["k"] == len(each.values["sketch"][0])


def test_sketches_keep_the_shape_of_the_path(training: BowlTraining) -> None:
    rows = training.rows("trajectory", "points")
    sketches = np.array([each.values["sketch"][0] for each in rows])
    weights = np.array([training.weights[int(only(each, "step"))] for each in rows])
    # Twelve weights find room of their own among 509 places: their sketch is a rotation.
    for one in range(1, len(rows)):
        between = np.linalg.norm(sketches[one] - sketches[0])
        assert between == pytest.approx(np.linalg.norm(weights[one] - weights[0]), rel=1e-5)


def test_snapshots_grow_sparser_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trajectory_probe, "_SPARSER", 20)
    training = BowlTraining(steps=800)
    steps = np.array([only(each, "step") for each in training.rows("trajectory", "points")])
    # Busy with other pieces it may be late, never early.
    assert (np.diff(steps) >= np.maximum(1, (steps[:-1] - steps[0]) // 20)).all()
    assert np.diff(steps).max() > 2 * np.diff(steps).min()
