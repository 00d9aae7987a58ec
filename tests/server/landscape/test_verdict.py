from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from gradwatch_server.landscape import verdict
from gradwatch_server.landscape.verdict import Event
from gradwatch_server.store.landscape_frames import ProbeRows
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from .pieces import piece

NAN, INF = math.nan, math.inf
# Two-sided 5 % points by degrees of freedom, from a printed table.
POINTS = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 7: 2.365, 11: 2.201}


def rows(raw: ArrayLike, clipped: ArrayLike = 0.0, probe: int = 0, step: int = 0, attempt: int = 1) -> ProbeRows:
    raws = np.atleast_1d(np.asarray(raw, float))
    held = np.broadcast_to(np.asarray(clipped, float), raws.shape)
    columns = {"base": np.zeros_like(raws), "clipped": held, "raw": raws, "seconds": np.zeros_like(raws)}
    return piece("verdict points", columns, probe=probe, step=step, attempt=attempt)


def one(raw: ArrayLike, clipped: ArrayLike = 0.0) -> Event:
    (event,) = verdict.events([rows(raw, clipped)])
    return event


def event(difference: float, outcome: verdict.Outcome = "inconclusive") -> Event:
    return Event(1, 0, 0, difference, None, 1, outcome)


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=2, max_size=12))
def test_mean_and_error_are_those_of_the_paired_differences(pairs: list[tuple[float, float]]) -> None:
    found = one([raw for raw, _ in pairs], [clipped for _, clipped in pairs])
    differences = [raw - clipped for raw, clipped in pairs]
    assert found.difference == pytest.approx(statistics.fmean(differences), abs=1e-9)
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    assert found.standard_error == pytest.approx(error, abs=1e-9) and found.batches == len(pairs)


@pytest.mark.parametrize("freedom", POINTS)
def test_the_outcome_turns_at_students_point(freedom: int) -> None:
    shape = np.linspace(-1, 1, freedom + 1)
    error = float(shape.std(ddof=1) / math.sqrt(freedom + 1))
    for factor, sign in ((0.999, 1), (1.001, 1), (0.999, -1), (1.001, -1)):
        found = one(shape + sign * factor * POINTS[freedom] * error)
        wanted = "inconclusive" if factor < 1 else "helped" if sign > 0 else "hurt"
        assert found.outcome == wanted, (freedom, factor, sign)


def test_a_common_level_of_the_batches_cancels() -> None:
    level = np.array([1.0, 50.0, 3.0, 20.0])
    assert one(level + [0.1, 0.12, 0.11, 0.09], level).outcome == "helped"


def test_a_single_micro_batch_has_no_error_and_decides_nothing() -> None:
    for raw in (7.0, INF, NAN):
        found = one(raw)
        assert (found.standard_error, found.batches, found.outcome) == (None, 1, "inconclusive")


def test_equal_differences_are_certain_and_none_is_none() -> None:
    assert one([2.0, 2.0]).outcome == "helped" and one([-2.0, -2.0]).outcome == "hurt"
    assert one([0.0, 0.0]).outcome == "inconclusive"


@pytest.mark.parametrize(
    ("raw", "clipped", "difference", "outcome"),
    [
        ([INF, NAN], [1, 1], INF, "helped"),
        ([INF, 1, INF], [1, 1, 1], INF, "helped"),
        ([INF, 1, 1], [1, 1, 1], INF, "inconclusive"),
        ([1, 1], [INF, NAN], -INF, "hurt"),
        ([NAN, NAN], [NAN, INF], NAN, "inconclusive"),
        ([INF, 1], [1, INF], NAN, "inconclusive"),
        ([-INF, -INF], [1, 1], INF, "helped"),  # a loss of minus infinity is no good loss
    ],
)
def test_losses_that_are_not_finite(raw: list[float], clipped: list[float], difference: float, outcome: str) -> None:
    found = one(raw, clipped)
    assert found.difference == pytest.approx(difference, nan_ok=True) and found.standard_error is None
    assert found.outcome == outcome


def test_events_are_told_apart_and_a_later_frame_replaces_the_same_rows() -> None:
    pieces = [rows([1.0, 2.0], step=5, probe=2), rows([9.0], step=3, probe=1), rows([4.0], step=5, probe=2)]
    pieces.append(rows([7.0], step=4, probe=1, attempt=2))
    found = verdict.events(pieces)
    assert [(e.attempt, e.probe, e.step, e.difference, e.batches) for e in found] == [
        (1, 1, 3, 9, 1),
        (1, 2, 5, 3, 2),
        (2, 1, 4, 7, 1),
    ]


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=40))
def test_overall_is_the_test_over_events(differences: list[float]) -> None:
    found = verdict.overall([event(value) for value in differences])
    assert found is not None and found.count == len(differences) == found.inconclusive
    assert found.mean == pytest.approx(statistics.fmean(differences), abs=1e-9)
    spread = statistics.stdev(differences)
    assert found.standard_error == pytest.approx(spread / math.sqrt(len(differences)), abs=1e-9)
    if spread > 1e-6:
        assert found.standardised == pytest.approx((found.mean or 0) / spread, rel=1e-6, abs=1e-9)


def test_overall_wants_five_events_and_counts_outcomes() -> None:
    sure = [event(1.0 + n / 100, "helped") for n in range(4)]
    few, enough = verdict.overall(sure), verdict.overall([*sure, event(1.0, "hurt")])
    assert few is not None and few.outcome == "inconclusive" and few.helped == 4
    assert enough is not None and enough.outcome == "helped" and (enough.helped, enough.hurt) == (4, 1)
    against = verdict.overall([event(-1.0 - n / 100) for n in range(6)])
    assert against is not None and against.outcome == "hurt"
    assert verdict.overall([]) is None
    alone = verdict.overall([event(3.0)])
    assert alone is not None and (alone.mean, alone.standard_error, alone.standardised) == (3, None, None)


@pytest.mark.parametrize(
    ("finite", "lost", "outcome"),
    [
        ([1.0, 1.1, 1.2, 0.9, 1.0], [INF], "helped"),
        ([0.1, -0.1, 0.1, -0.1, 0.0], [INF] * 5, "helped"),
        ([0.1, -0.1, 0.1, -0.1, 0.0], [INF] * 4, "inconclusive"),
        ([-1.0, -1.1, -1.2, -0.9, -1.0], [INF] * 9, "inconclusive"),  # small harm as a rule, rescue at times
        ([1.0, 1.1, 1.2, 0.9, 1.0], [INF, -INF], "inconclusive"),
        ([], [-INF] * 5, "hurt"),
        ([], [NAN] * 9, "inconclusive"),
    ],
)
def test_infinite_differences_must_not_speak_against_the_others(
    finite: list[float], lost: list[float], outcome: str
) -> None:
    found = verdict.overall([event(value) for value in [*finite, *lost]])
    assert found is not None and found.outcome == outcome
    assert (found.count, found.nonfinite) == (len(finite) + len(lost), len(lost))
    assert found.mean == (pytest.approx(statistics.fmean(finite)) if finite else None)
