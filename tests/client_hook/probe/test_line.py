"""Lines through losses whose critical steps and minima are known."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

import numpy as np
import pytest
from gradwatch.probe.line import FARTHEST, GRID, NEAREST, PRECISION, Line, LineSummary
from hypothesis import given, settings
from hypothesis import strategies as st

MOST_POINTS = 22


def probed(loss: Callable[[float], float]) -> Line:
    """A whole line; what it asks for on the way is checked."""
    line = Line()
    while (alpha := line.next()) is not None:
        assert alpha not in line.points and line.next() == alpha
        line.add(alpha, loss(alpha))
        assert len(line.points) <= MOST_POINTS
    return line


def quadratic(critical: float, base: float = 3.0, height: float = 1.0) -> Callable[[float], float]:
    """Rises above ``base`` at ``critical``, least at half of it."""
    return lambda alpha: base + height * alpha * (alpha - critical)


def bracketed(summary: LineSummary, critical: float) -> bool:
    return summary.critical_low <= critical <= summary.critical_high


def test_the_grid_is_asked_for_first_its_ends_and_middle_before_the_rest() -> None:
    line, asked = Line(), list[float]()
    while len(asked) < len(GRID):
        alpha = line.next()
        assert alpha is not None
        asked.append(alpha)
        line.add(alpha, alpha**2)
    assert sorted(asked) == list(GRID) and asked[:6] == [0.0, 1.0, 2.0, 4.0, 0.5, -0.5]


@settings(max_examples=200)
@given(st.floats(NEAREST * 1.01, FARTHEST * 0.99), st.floats(-5, 5), st.floats(0.01, 100))
def test_the_critical_step_of_a_quadratic_is_bracketed(critical: float, base: float, height: float) -> None:
    line = probed(quadratic(critical, base, height))
    summary = line.summary()
    assert bracketed(summary, critical * (1 + 1e-9)) or bracketed(summary, critical * (1 - 1e-9))
    assert summary.critical_low > 0 and 1 - summary.critical_low / summary.critical_high < PRECISION
    assert summary.base == line.points[0.0] and summary.taken == line.points[1.0]


@settings(max_examples=100)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_a_quadratic_of_many_weights_has_the_critical_step_of_its_closed_form(size: int, seed: int) -> None:
    """2 g.D / D'AD along an update of -D, whatever D."""
    random = np.random.default_rng(seed)
    root = random.normal(size=(size, size))
    hessian = root @ root.T + 0.1 * np.eye(size)
    weights = random.normal(size=size)
    gradient = hessian @ weights
    down = gradient + 0.3 * random.normal(size=size)
    if gradient @ down <= 0:
        down = -down
    down *= random.uniform(0.2, 2) / np.abs(down).max()
    expected = float(2 * gradient @ down / (down @ hessian @ down))

    def loss(alpha: float) -> float:
        there = weights - alpha * down
        return float(there @ hessian @ there) / 2

    summary = probed(loss).summary()
    if expected < NEAREST:
        assert summary.critical_low == 0 and summary.critical_high == NEAREST
    elif expected > FARTHEST:
        assert summary.critical_low == FARTHEST and summary.critical_high == math.inf
    else:
        assert bracketed(summary, expected)
        assert summary.best_alpha == pytest.approx(expected / 2, rel=1e-6)


@given(st.floats(-0.3, 3.5), st.floats(0.1, 100))
def test_the_best_step_of_a_quadratic_is_exact(best: float, height: float) -> None:
    line = probed(lambda alpha: height * (alpha - best) ** 2)
    assert line.summary().best_alpha == pytest.approx(best, abs=1e-9)


def test_the_best_step_lies_between_the_neighbours_of_the_least_point() -> None:
    line = Line()
    for alpha, loss in [(0.0, 5.0), (1.0, 1.0), (2.0, 1.0 + 1e-9), (4.0, 9.0)]:
        line.add(alpha, loss)
    # numpy's parabola through the three points around it.
    a, b, _ = np.polyfit([0.0, 1.0, 2.0], [5.0, 1.0, 1.0 + 1e-9], 2)
    assert line.summary().best_alpha == pytest.approx(-b / (2 * a), rel=1e-9)
    uneven = Line()
    for alpha, loss in [(0.0, 3.0), (0.5, 1.0), (2.0, 1.5)]:
        uneven.add(alpha, loss)
    a, b, _ = np.polyfit([0.0, 0.5, 2.0], [3.0, 1.0, 1.5], 2)
    assert uneven.summary().best_alpha == pytest.approx(-b / (2 * a), rel=1e-9)


def test_the_best_step_at_an_end_or_beside_a_loss_that_is_not_finite_is_a_point() -> None:
    assert probed(lambda alpha: -alpha).summary().best_alpha == FARTHEST
    assert probed(lambda alpha: alpha).summary().best_alpha == -0.5
    line = probed(lambda alpha: (alpha - 0.9) ** 2 if alpha < 1.2 else math.nan)
    # The least finite point has a finite neighbour on either side here, and then it has not.
    assert line.summary().best_alpha == pytest.approx(0.9)
    cliff = probed(lambda alpha: -alpha if alpha <= 1 else math.inf)
    assert cliff.summary().best_alpha == max(alpha for alpha in cliff.points if alpha <= 1)


def test_a_loss_that_never_rises_has_no_critical_step_up_to_the_farthest_point() -> None:
    line = probed(lambda alpha: -alpha)
    assert line.summary()[3:] == (FARTHEST, math.inf)
    assert sorted(line.points)[-5:] == [4.0, 8.0, 16.0, 32.0, 64.0] and len(line.points) == len(GRID) + 4


def test_a_loss_that_rises_at_once_is_said_to_rise_at_the_nearest_point() -> None:
    line = probed(lambda alpha: alpha)
    assert line.summary()[3:] == (0.0, NEAREST)
    assert len(line.points) == len(GRID) + 4


@pytest.mark.parametrize("edge", [0.02, 0.3, 1.1, 3.7, 50.0])
@pytest.mark.parametrize("beyond", [math.nan, math.inf, -math.inf])
def test_a_cliff_to_what_is_not_finite_is_a_critical_step(edge: float, beyond: float) -> None:
    summary = probed(lambda alpha: -alpha if alpha < edge else beyond).summary()
    assert bracketed(summary, edge) and 1 - summary.critical_low / summary.critical_high < PRECISION


@pytest.mark.parametrize("base", [math.nan, math.inf, -math.inf])
def test_a_line_from_a_loss_that_is_not_finite_ends(base: float) -> None:
    line = Line()
    assert line.next() == 0.0
    line.add(0.0, base)
    assert line.next() is None
    summary = line.summary()
    assert struct.pack("d", summary.base) == struct.pack("d", base)
    assert all(math.isnan(number) for number in summary[1:])


def test_the_first_of_several_rises_counts() -> None:
    """A hump between 0.5 and 0.75, down to 2, then up again."""

    def loss(alpha: float) -> float:
        return math.sin(2 * math.pi * (alpha - 0.5)) if 0 <= alpha < 2 else alpha

    assert loss(0.0) == pytest.approx(0, abs=1e-12)
    summary = probed(lambda alpha: 0.0 if alpha == 0 else loss(alpha)).summary()
    assert bracketed(summary, 0.5 + 1e-9) or bracketed(summary, 0.5)


def test_a_line_under_way_has_no_critical_step_yet() -> None:
    line = Line()
    assert all(math.isnan(number) for number in line.summary())
    for alpha in (0.0, 1.0, 2.0, 4.0):
        line.add(alpha, (alpha - 1) ** 2)
    summary = line.summary()
    assert list(summary[:3]) == pytest.approx([1.0, 0.0, 1.0])
    assert math.isnan(summary.critical_low) and math.isnan(summary.critical_high)


def test_a_loss_that_does_not_look_at_the_weights_is_flat_and_not_searched() -> None:
    line = probed(lambda alpha: 0.125)
    assert line.flat and len(line.points) == len(GRID)
    assert line.summary() == LineSummary(0.125, 0.125, 0.0, 4.0, math.inf)
    assert not probed(lambda alpha: 0.125 if alpha else math.nextafter(0.125, 1)).flat
    single = Line()
    assert not single.flat
    single.add(0.0, 1.0)
    assert not single.flat


@settings(max_examples=300)
@given(st.randoms(use_true_random=False), st.floats(-1, 1))
def test_whatever_the_losses_the_line_ends_with_a_valid_bracket(random: object, trend: float) -> None:
    values = [math.nan, math.inf, -math.inf]

    def loss(alpha: float) -> float:
        draw = random.random()  # type: ignore[attr-defined]
        if alpha == 0:
            return 0.0
        return values[int(draw * 60)] if draw < 0.05 else draw - 0.5 + trend

    line = probed(loss)
    low, high = line.summary()[3:]
    above = [alpha for alpha, found in line.points.items() if alpha > 0 and (not math.isfinite(found) or found > 0)]
    assert high == min(above, default=math.inf)
    assert low == max((alpha for alpha in line.points if 0 <= alpha < high), default=math.nan)
    assert (low == 0 and high <= NEAREST) or (high == math.inf and low == FARTHEST) or 1 - low / high < PRECISION
