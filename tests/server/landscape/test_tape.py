from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from gradwatch_server.landscape import tape
from gradwatch_server.landscape.tape import ALPHAS, Line
from gradwatch_server.store.landscape_frames import ProbeRows
from hypothesis import given
from hypothesis import strategies as st

from .pieces import piece

NAN, INF = math.nan, math.inf


def summary(probe: int = 0, step: int = 0, attempt: int = 1, **told: float) -> ProbeRows:
    names = ("base", "taken", "best_alpha", "critical_low", "critical_high", "learning_rate", "stability_threshold")
    values = dict.fromkeys((*names, "update_norm", "spent", "elapsed"), 0.0) | told
    return piece("line summary", values, probe=probe, step=step, attempt=attempt)


def points(probe: int = 0, step: int = 0, attempt: int = 1, **losses: float) -> ProbeRows:
    """Points by names such as a1 and am0_5 (alpha -0.5)."""
    at = {float(name[1:].replace("m", "-").replace("_", ".")): loss for name, loss in losses.items()}
    columns = {"alpha": list(at), "loss": list(at.values()), "seconds": [0.0] * len(at)}
    return piece("line points", columns, probe=probe, step=step, attempt=attempt)


def test_points_find_their_place_on_the_grid_and_others_only_on_the_line() -> None:
    (line,) = tape.lines([points(a0=2.0, a1=1.5, a1_625=9.0), points(a4=INF, a0_5=NAN, am0_5=3.0)])
    losses, missing = line.on_grid()
    there = {alpha: loss for alpha, loss, gone in zip(ALPHAS, losses, missing, strict=True) if not gone}
    assert there.keys() == {-0.5, 0, 0.5, 1, 4} and there[4] == INF and math.isnan(there[0.5]) and there[1] == 1.5
    alphas, curve = line.curve()
    assert alphas.tolist() == [-0.5, 0, 0.5, 1, 1.625, 4] and curve[4] == 9
    assert (line.base, line.taken, line.summary, line.critical_alpha, line.sharpness) == (2, 1.5, None, None, None)
    assert len(ALPHAS) == 13 and list(ALPHAS) == sorted(ALPHAS)


@given(st.permutations(range(4)))
def test_lines_are_told_apart_by_attempt_and_number_and_ordered_by_step(order: list[int]) -> None:
    pieces = [
        points(probe=1, step=9, a0=1),
        points(probe=0, step=3, a0=2),
        points(probe=0, step=5, attempt=2, a0=3),
        summary(probe=1, step=9),
    ]
    found = tape.lines([pieces[at] for at in order])
    assert [(line.attempt, line.probe, line.step, line.points[0.0]) for line in found] == [
        (1, 0, 3, 2),
        (1, 1, 9, 1),
        (2, 0, 5, 3),
    ]
    assert [line.summary is None for line in found] == [True, False, True]


def test_what_is_said_later_wins() -> None:
    (line,) = tape.lines([points(a0=1, a1=1), summary(base=1), points(a1=2), summary(base=5)])
    assert line.points == {0: 1, 1: 2} and line.base == 5


def measured(low: float, high: float, rate: float = 0.1) -> Line:
    return tape.lines([summary(critical_low=low, critical_high=high, learning_rate=rate)])[0]


@pytest.mark.parametrize(
    ("low", "high", "rate", "alpha", "sharpness"),
    [
        (1.5, 1.6, 0.1, 1.55, 2 / 0.155),
        (0.0, 0.25, 0.1, 0.25, 80.0),  # it rises at once
        (4.0, INF, 0.1, None, None),  # not bracketed
        (NAN, NAN, 0.1, None, None),  # not measured
        (1.5, 1.6, 0.0, 1.55, None),
        (1.5, 1.6, NAN, 1.55, None),
    ],
)
def test_sharpness(low: float, high: float, rate: float, alpha: float | None, sharpness: float | None) -> None:
    line = measured(low, high, rate)
    assert line.critical_alpha == (None if alpha is None else pytest.approx(alpha))
    assert line.sharpness == (None if sharpness is None else pytest.approx(sharpness))


@given(st.floats(0.01, 100), st.floats(0.001, 10))
def test_of_a_parabola_the_sharpness_is_its_curvature_within_the_bracket(curvature: float, rate: float) -> None:
    """Plain gradient descent on a x^2 / 2: the loss rises for alpha * rate > 2 / a, so the sharpness is a."""
    critical = 2 / (curvature * rate)
    for share in np.linspace(0, 1, 5):
        low = critical / (1 + share / 15)
        line = measured(low, low * 16 / 15, rate)
        assert line.sharpness == pytest.approx(curvature, rel=1 / 16)


def test_the_cost_adds_up_over_attempts_by_their_newest_summaries() -> None:
    pieces = [
        summary(probe=0, step=1, spent=1.0, elapsed=10.0),
        summary(probe=5, step=9, spent=3.0, elapsed=100.0),
        summary(probe=1, step=12, attempt=2, spent=1.0, elapsed=300.0),
    ]
    for order in itertools.permutations(pieces):
        assert tape.cost(order) == (4.0, 0.01)
    assert tape.cost([]) == (None, None) == tape.cost([points(a0=1)])
    assert tape.cost([summary()]) == (0.0, None)
