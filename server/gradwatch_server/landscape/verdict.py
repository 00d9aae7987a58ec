"""Did the clips help? Held-out loss after the raw step minus that after the clipped one, and whether it is chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ..store.landscape_frames import VERDICT, ProbeRows
from .student_t import LEVEL, two_sided

Outcome = Literal["helped", "hurt", "inconclusive"]

LEAST_EVENTS: Final = 5  # of a verdict over a run


@dataclass(frozen=True, slots=True)
class Event:
    """One clip, judged over ``batches`` micro-batches."""

    attempt: int
    probe: int
    step: int
    difference: float  # mean of raw - clipped; above 0: the clip helped
    standard_error: float | None
    batches: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Overall:
    """All judged clips of a run together. Mean, error and standardised mean are those of the finite differences."""

    outcome: Outcome
    count: int
    helped: int
    hurt: int
    inconclusive: int
    nonfinite: int  # events of which one of the two losses was not finite
    mean: float | None
    standard_error: float | None
    standardised: float | None  # mean / standard deviation over the events


def events(pieces: Sequence[ProbeRows]) -> list[Event]:
    """The events that frames tell of, by attempt, step and number; a later frame's rows replace the same rows."""
    found: dict[tuple[int, int], tuple[int, NDArray[np.float64]]] = {}
    for piece in pieces:
        if piece.name != VERDICT:
            continue
        mine = differences(piece.columns["raw"], piece.columns["clipped"])
        _, before = found.get(piece.key, (0, mine))
        found[piece.key] = piece.step, np.concatenate([mine, before[len(mine) :]])
    judged = [_event(*key, step, values) for key, (step, values) in found.items()]
    return sorted(judged, key=lambda event: (event.attempt, event.step, event.probe))


def differences(raw: NDArray[np.float64], clipped: NDArray[np.float64]) -> NDArray[np.float64]:
    """raw - clipped, where a loss that is not finite is above every one that is; NaN where neither is finite."""
    raw_lost, clipped_lost = ~np.isfinite(raw), ~np.isfinite(clipped)
    if not raw_lost.any() and not clipped_lost.any():
        return raw - clipped
    with np.errstate(invalid="ignore", over="ignore"):
        found = np.where(raw_lost & ~clipped_lost, np.inf, raw - clipped)
    return np.where(clipped_lost, np.where(raw_lost, np.nan, -np.inf), found)


def _event(attempt: int, probe: int, step: int, values: NDArray[np.float64]) -> Event:
    mean, error = mean_and_error(values)
    outcome = _tested(mean, error, len(values))
    lost = values[~np.isfinite(values)]
    # Twice the same infinity is no chance; NaN decides nothing.
    if len(lost) > 1 and (lost == lost[0]).all():
        outcome = "helped" if lost[0] > 0 else "hurt"
    return Event(attempt, probe, step, mean, error, len(values), outcome)


def mean_and_error(values: NDArray[np.float64]) -> tuple[float, float | None]:
    """The mean and its standard error; no error for a single value, and none where not all are finite."""
    if not len(values):
        return math.nan, None
    with np.errstate(invalid="ignore", over="ignore"):
        mean = float(values.mean())
    if len(values) < 2 or not np.isfinite(values).all():
        return mean, None
    return mean, float(values.std(ddof=1) / math.sqrt(len(values)))


def _tested(mean: float, error: float | None, count: int) -> Outcome:
    """Student's t test of the mean against 0."""
    if error is None or mean == 0 or not math.isfinite(mean):
        return "inconclusive"
    t = math.inf if error == 0 else mean / error
    if two_sided(t, count - 1) >= LEVEL:
        return "inconclusive"
    return "helped" if mean > 0 else "hurt"


def overall(judged: Sequence[Event]) -> Overall | None:
    """The verdict over all events; None where there are none."""
    if not judged:
        return None
    all_values = np.array([event.difference for event in judged])
    values = all_values[np.isfinite(all_values)]
    mean, error = mean_and_error(values)
    outcome: Outcome = _tested(mean, error, len(values)) if len(values) >= LEAST_EVENTS else "inconclusive"
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    counted = {name: sum(event.outcome == name for event in judged) for name in ("helped", "hurt", "inconclusive")}
    return Overall(
        outcome=_with_lost(outcome, all_values),
        count=len(judged),
        nonfinite=len(all_values) - len(values),
        mean=mean if len(values) else None,
        standard_error=error,
        standardised=mean / spread if spread > 0 else None,
        **counted,
    )


def _with_lost(outcome: Outcome, values: NDArray[np.float64]) -> Outcome:
    """The outcome of the finite differences, where there are infinite ones, too: they must not speak against it."""
    saved, lost = int((values == np.inf).sum()), int((values == -np.inf).sum())
    if not saved and not lost:
        return outcome
    side: Outcome = "helped" if saved else "hurt"
    if (saved and lost) or outcome not in (side, "inconclusive"):
        return "inconclusive"
    return side if outcome == side or saved + lost >= LEAST_EVENTS else "inconclusive"
