"""Update probes against the quadratic they walk on, and against steps that were really taken."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gradwatch.clipping.measure_only import MeasureOnly
from gradwatch.probe.plane import update_plane
from gradwatch.probe.probing import Probing
from gradwatch.probe.training_state import _norms
from gradwatch.probe.update_probe import distance
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import SGD, AdamW, Optimizer, RMSprop

from tests.client_hook.conftest import KeepingSink, monitor_of
from tests.client_hook.probe.training import Bowl, BowlTraining, only


def sgd(model: nn.Module) -> Optimizer:
    return SGD(model.parameters(), lr=0.02)


def momentum(model: nn.Module) -> Optimizer:
    return SGD(model.parameters(), lr=0.02, momentum=0.8, nesterov=True)


def adamw(model: nn.Module) -> Optimizer:
    return AdamW(model.parameters(), lr=0.001, fused=True)


@pytest.fixture(scope="module")
def plain() -> BowlTraining:
    return BowlTraining(500)


def test_a_line_is_the_loss_along_the_step_taken() -> None:
    training = BowlTraining(200, optimizer=momentum)
    points = training.rows("line", "points")
    assert len(points) > 5
    for rows in points:
        old, new = training.weights[rows.step], training.weights[rows.step + 1]
        expected = [training.loss(old + alpha * (new - old)) for alpha in rows.values["alpha"]]
        np.testing.assert_allclose(rows.values["loss"], expected, rtol=1e-12)
        assert all(seconds >= 0 for seconds in rows.values["seconds"])


def test_the_summary_has_the_best_and_the_critical_step_of_the_quadratic(plain: BowlTraining) -> None:
    training = plain
    summaries = training.rows("line", "summary")
    assert len(summaries) > 3
    for rows in summaries:
        old, new = training.weights[rows.step], training.weights[rows.step + 1]
        update, slope = old - new, training.matrix @ old
        best = slope @ update / (update @ training.matrix @ update)
        assert only(rows, "base") == pytest.approx(training.loss(old), rel=1e-13)
        assert only(rows, "taken") == pytest.approx(training.loss(new), rel=1e-13)
        # Beyond the last point of the grid the best step is only known to lie at it or further on.
        if best <= 3:
            assert only(rows, "best_alpha") == pytest.approx(best, rel=1e-9)
        low, high = only(rows, "critical_low"), only(rows, "critical_high")
        assert low * (1 - 1e-12) < 2 * best <= high * (1 + 1e-12)
        assert 1 - low / high < 1 / 16 or (low, high) == (64, np.inf)
        assert only(rows, "learning_rate") == 0.02
        assert only(rows, "stability_threshold") == pytest.approx(2 / 0.02)
        assert only(rows, "update_norm") == pytest.approx(np.linalg.norm(update), rel=1e-12)
        assert 0 < only(rows, "spent") < only(rows, "elapsed")


@pytest.mark.parametrize("make", [sgd, momentum, adamw])
def test_the_verdict_compares_with_the_step_that_was_not_taken(make: Callable[[nn.Module], Optimizer]) -> None:
    raw: dict[int, Any] = {}

    def take_it_unclipped(step: int, training: BowlTraining) -> None:
        model, optimizer = copy.deepcopy((training.model, training.optimizer))
        for mine, theirs in zip(model.parameters(), training.model.parameters(), strict=True):
            mine.grad = theirs.grad.clone()
        optimizer.step()
        raw[step] = model.weights()

    closures = (lambda model: model(), lambda model: 2 * model() + 1)
    training = BowlTraining(500, optimizer=make, threshold=0.02, closures=closures, at_step=take_it_unclipped)
    verdicts = training.rows("verdict", "points")
    assert len(verdicts) > 3 and not training.rows("verdict", "unsupported")
    for rows in verdicts:
        places = {
            "base": training.weights[rows.step],
            "clipped": training.weights[rows.step + 1],
            "raw": raw[rows.step],
        }
        for name, weights in places.items():
            loss = training.loss(weights)
            np.testing.assert_allclose(rows.values[name], [loss, 2 * loss + 1], rtol=1e-10)
        assert rows.about["batches"] == 2
        # Only at clip events is there anything to compare.
        assert np.linalg.norm(training.gradients[rows.step]) > 0.02


def test_other_optimizers_are_not_supported_and_still_have_lines() -> None:
    training = BowlTraining(250, optimizer=lambda model: RMSprop(model.parameters(), lr=0.001), threshold=0.02)
    (rows,) = training.rows("verdict", "unsupported")
    assert "RMSprop" in str(rows.about["reason"])
    assert training.rows("line", "summary") and not training.rows("verdict", "points")


def test_a_rate_changed_behind_the_clip_gives_verdicts_up() -> None:
    def make(model: nn.Module) -> Optimizer:
        optimizer = SGD(model.parameters(), lr=0.02)
        # Between clip and step: what the hook has seen is not what happens.
        optimizer.register_step_pre_hook(lambda own, args, kwargs: own.param_groups[0].update(lr=0.01))
        optimizer.register_step_post_hook(lambda own, args, kwargs: own.param_groups[0].update(lr=0.02))
        return optimizer

    training = BowlTraining(150, optimizer=make, threshold=0.02)
    assert not training.rows("verdict", "points")
    (rows,) = training.rows("verdict", "unsupported")
    assert "formula" in str(rows.about["reason"])


def test_short_steps_of_half_precision_have_their_length() -> None:
    old = [torch.full((1000,), 1.0, dtype=torch.float16), torch.zeros(3, dtype=torch.bfloat16)]
    new = [old[0] + torch.finfo(torch.float16).eps, old[1] + 1e-6]
    expected = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(old, new, strict=True)) ** 0.5
    assert float(distance(new, old)) == pytest.approx(expected, rel=1e-6)


def test_lengths_are_kept_in_what_the_device_has() -> None:
    with FakeTensorMode():
        there = [torch.empty(3, 4, device="mps"), torch.empty(3, device="mps")]
        assert distance(there, there).dtype is torch.float32
        old, new, gradient = ([torch.empty(3, 4, device="mps")] for _ in range(3))
        assert update_plane(old, new, gradient, 1).units.dtype is torch.float32
        assert [norm.dtype for norm in _norms(there)] == [torch.float32]


def test_a_step_that_moves_nothing_has_no_line() -> None:
    training = BowlTraining(100, optimizer=lambda model: SGD(model.parameters(), lr=0.0))
    assert not training.rows("line", "points") and training.prober.is_active


def test_steps_that_were_left_out_say_nothing_of_the_formula() -> None:
    def make(model: nn.Module) -> Optimizer:
        optimizer = SGD(model.parameters(), lr=0.02)
        step: Any = optimizer.step
        calls = iter(range(10_000))
        one: Any = optimizer
        one.step = lambda: step() if next(calls) > 250 else None
        return optimizer

    training = BowlTraining(500, optimizer=make, threshold=0.02)
    assert not training.rows("verdict", "unsupported") and training.rows("verdict", "points")


def test_of_several_optimizers_nobody_knows_whose_rate_it_was() -> None:
    model, sink = Bowl(), KeepingSink()
    optimizers: list[Optimizer] = [SGD([model.first], lr=0.02), SGD([model.second], lr=0.001)]
    probing = Probing(weakref.ref(model), [lambda model: model()], 0.95)
    monitor = monitor_of(model, optimizers, MeasureOnly(), sink, probing=probing)
    for step in range(200):
        optimizer = optimizers[step % 2]
        model.zero_grad()
        model().backward()
        monitor.clip(optimizer=optimizer)
        optimizer.step()
    summaries = [rows for rows in sink.found if (rows.what, rows.part) == ("line", "summary")]
    assert summaries
    for rows in summaries:
        assert np.isnan([only(rows, "learning_rate"), only(rows, "stability_threshold")]).all()


def test_measuring_only_asks_for_no_verdict(plain: BowlTraining) -> None:
    assert not [rows for rows in plain.sink.found if rows.what == "verdict"]


def test_about_says_what_was_looked_at(plain: BowlTraining) -> None:
    about = plain.rows("line", "summary")[0].about
    assert about["mode"] == "eval" and about["dtype"] == "float64" and about["optimizer"] == "SGD"
    assert about["rule"] and about["batches"] == 1 and about["hooks_left_out"] == 0
    assert isinstance(about["memory"], int) and about["memory"] >= 8 * 12 * 8  # eight copies of twelve float64
