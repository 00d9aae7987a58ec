"""Many steps to few columns: min, max, sum, last, counts. The same results whatever order the steps arrived in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .decode import Floats, Mask, Steps

Counts = NDArray[np.uint32]

_FEW: Final = 4  # rows of a column, as many as a bucket of the pyramid has children


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Columns x series. Where ``count`` is 0, minimum is inf, maximum -inf, total 0; ``last_step`` -1: nothing came.

    Minima and maxima keep the type of the values; sums are float64. ``last`` is None where nobody asks for it.
    """

    minimum: NDArray[Any]
    maximum: NDArray[Any]
    total: Floats
    count: Counts
    nonfinite: Counts
    last: NDArray[Any] | None
    last_step: Steps | None

    @classmethod
    def empty(cls, columns: int, series: int, dtype: Any = np.float64, *, last: bool = True) -> Aggregate:
        """An aggregate of nothing."""
        shape = (columns, series)
        return cls(
            np.full(shape, np.inf, dtype),
            np.full(shape, -np.inf, dtype),
            np.zeros(shape),
            np.zeros(shape, np.uint32),
            np.zeros(shape, np.uint32),
            np.full(shape, np.nan, dtype) if last else None,
            np.full(shape, -1, np.int64) if last else None,
        )

    def fields(self) -> list[NDArray[Any] | None]:
        return [self.minimum, self.maximum, self.total, self.count, self.nonfinite, self.last, self.last_step]

    def series(self, index: Any) -> Aggregate:
        """Some of the series."""
        return Aggregate(*(None if values is None else values[:, index] for values in self.fields()))  # type: ignore[arg-type]

    def columns(self, index: Any) -> Aggregate:
        """Some of the columns."""
        return Aggregate(*(None if values is None else values[index] for values in self.fields()))  # type: ignore[arg-type]

    def latest(self) -> tuple[NDArray[Any], Steps]:
        """Last values and their steps, of an aggregate that has them."""
        assert self.last is not None and self.last_step is not None
        return self.last, self.last_step

    def mean(self) -> Floats:
        """Means over the finite values; NaN where there are none."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.count > 0, self.total / self.count, np.nan)

    def merge_at(self, columns: Any, series: Any, other: Aggregate) -> None:
        """Add to some columns and series what ``other`` holds of them; each is named once.

        Both indices are slices, or arrays; slices are several times as fast.
        """
        at = (
            np.ix_(columns, series)
            if isinstance(columns, np.ndarray) and isinstance(series, np.ndarray)
            else (columns, series)
        )
        self.minimum[at] = np.minimum(self.minimum[at], other.minimum)
        self.maximum[at] = np.maximum(self.maximum[at], other.maximum)
        with np.errstate(over="ignore", invalid="ignore"):
            self.total[at] += other.total
        self.count[at] += other.count
        self.nonfinite[at] += other.nonfinite
        if self.last is not None:
            (last, last_step), (others, others_step) = self.latest(), other.latest()
            newer = others_step >= last_step[at]
            last[at] = np.where(newer, others, last[at])
            last_step[at] = np.where(newer, others_step, last_step[at])


def reduce_rows(
    steps: Steps, values: NDArray[Any], present: Mask | None, width: int, *, last: bool = True
) -> tuple[Steps, Aggregate]:
    """Rows in increasing step order to columns of ``width`` steps: the columns' indices (step // width), and them."""
    buckets = steps // width
    starts = column_starts(buckets)
    finite = np.isfinite(values)
    if present is not None:
        finite &= present
    if finite.all():
        low = high = add = values
        rows = np.diff(np.append(starts, len(steps))).astype(np.uint32)
        count = np.repeat(rows[:, None], values.shape[1], axis=1)
        nonfinite = np.zeros_like(count)
    else:
        low, high = np.where(finite, values, np.inf), np.where(finite, values, -np.inf)
        low, high = low.astype(values.dtype, copy=False), high.astype(values.dtype, copy=False)
        add = np.where(finite, values, values.dtype.type(0))
        count = reduce_at(np.add, finite, starts, np.uint32)
        other = ~finite if present is None else present & ~finite
        nonfinite = reduce_at(np.add, other, starts, np.uint32)
    with np.errstate(over="ignore"):
        # In float64 and one row after the other, so that a column comes out the same whatever rows stand around it.
        total = reduce_at(np.add, add, starts, np.float64)
    latest, latest_step = _last(steps, values, present, starts) if last else (None, None)
    return buckets[starts], Aggregate(
        reduce_at(np.minimum, low, starts),
        reduce_at(np.maximum, high, starts),
        total,
        count,
        nonfinite,
        latest,
        latest_step,
    )


def reduce_at(ufunc: np.ufunc, values: NDArray[Any], starts: NDArray[np.intp], dtype: Any = None) -> NDArray[Any]:
    """``ufunc.reduceat`` over the rows, only faster.

    Columns of few rows each are always added from the first row to the last, so that their sums do not depend on the
    columns beside them: NumPy's own order does, on shape and memory.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # sums beyond float64, and signalling NaNs
        return _reduced_rows(ufunc, values, starts, dtype)


def _reduced_rows(ufunc: np.ufunc, values: NDArray[Any], starts: NDArray[np.intp], dtype: Any) -> NDArray[Any]:
    rows = np.diff(np.append(starts, len(values)))
    found: NDArray[Any]
    most, alike = int(rows.max(initial=0)), bool(len(rows)) and bool((rows == rows[0]).all())
    if most <= _FEW:
        first = values[::most] if alike else values[starts]
        found = first.astype(values.dtype if dtype is None else dtype)
        for at in range(1, most):
            if alike:  # slices, which take half the time
                ufunc(found, values[at::most], out=found, dtype=dtype)
                continue
            more = np.flatnonzero(rows > at)
            found[more] = ufunc(found[more], values[starts[more] + at], dtype=dtype)
        return found
    if alike:
        found = ufunc.reduce(values.reshape(len(starts), int(rows[0]), -1), axis=1, dtype=dtype)
        return found
    found = ufunc.reduceat(values, starts, axis=0, dtype=dtype)
    return found


def column_starts(columns: Steps) -> NDArray[np.intp]:
    """Where in columns that do not fall another one begins."""
    return np.flatnonzero(np.append(True, columns[1:] != columns[:-1])) if len(columns) else np.zeros(0, np.intp)


def _last(
    steps: Steps, values: NDArray[Any], present: Mask | None, starts: NDArray[np.intp]
) -> tuple[NDArray[Any], Steps]:
    if present is None:
        ends = np.append(starts[1:], len(steps)) - 1
        return values[ends], np.repeat(steps[ends][:, None], values.shape[1], axis=1)
    rows = reduce_at(np.maximum, np.where(present, np.arange(len(steps))[:, None], -1), starts)
    there = rows >= 0
    last = np.where(there, np.take_along_axis(values, np.maximum(rows, 0), axis=0), values.dtype.type(np.nan))
    return last, np.where(there, steps[np.maximum(rows, 0)], -1)


def merge(columns: Steps, parts: Aggregate) -> tuple[Steps, Aggregate]:
    """Columns that fall into the same one are put together; ``columns`` does not fall, and names each one's place."""
    starts = column_starts(columns)
    if len(starts) == len(columns):
        return columns, parts
    last, last_step = parts.last, parts.last_step
    if last is not None and last_step is not None:
        last, last_step = _latest(columns, starts, last, last_step)
    with np.errstate(over="ignore", invalid="ignore"):
        total = reduce_at(np.add, parts.total, starts)
    return columns[starts], Aggregate(
        reduce_at(np.minimum, parts.minimum, starts),
        reduce_at(np.maximum, parts.maximum, starts),
        total,
        reduce_at(np.add, parts.count, starts, np.uint32),
        reduce_at(np.add, parts.nonfinite, starts, np.uint32),
        last,
        last_step,
    )


def _latest(
    columns: Steps, starts: NDArray[np.intp], last: NDArray[Any], last_step: Steps
) -> tuple[NDArray[Any], Steps]:
    rows = np.arange(len(columns))[:, None]
    latest = np.maximum.reduceat(last_step, starts, axis=0)
    groups = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(columns))))
    winner = np.maximum.reduceat(np.where(last_step == latest[groups], rows, -1), starts, axis=0)
    return np.take_along_axis(last, winner, axis=0), latest
