"""Many steps to few columns: min, max, sum, last, counts. The same results whatever order the steps arrived in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .decode import Floats, Mask, Steps

Counts = NDArray[np.uint32]

# One packed series of one bucket, in this order; see pack().
_FIELDS: Final = (
    ("minimum", "<f8"),
    ("maximum", "<f8"),
    ("total", "<f8"),
    ("last", "<f8"),
    ("last_step", "<i8"),
    ("count", "<u4"),
    ("nonfinite", "<u4"),
)
BYTES_PER_SERIES: Final = sum(np.dtype(kind).itemsize for _, kind in _FIELDS)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Columns x series. Where ``count`` is 0, minimum is inf, maximum -inf, total 0; ``last_step`` -1: nothing came."""

    minimum: Floats
    maximum: Floats
    total: Floats
    last: Floats
    last_step: Steps
    count: Counts
    nonfinite: Counts

    @classmethod
    def empty(cls, columns: int, series: int) -> Aggregate:
        """An aggregate of nothing."""
        shape = (columns, series)
        return cls(
            np.full(shape, np.inf),
            np.full(shape, -np.inf),
            np.zeros(shape),
            np.full(shape, np.nan),
            np.full(shape, -1, np.int64),
            np.zeros(shape, np.uint32),
            np.zeros(shape, np.uint32),
        )

    def fields(self) -> list[NDArray[Any]]:
        return [getattr(self, name) for name, _ in _FIELDS]

    def put(self, columns: Any, series: Any, other: Aggregate) -> None:
        """Write ``other`` over the given columns and series."""
        for mine, theirs in zip(self.fields(), other.fields(), strict=True):
            mine[np.ix_(columns, series)] = theirs

    def series(self, index: Any) -> Aggregate:
        """Some of the series."""
        return Aggregate(*(values[:, index] for values in self.fields()))

    def columns(self, index: Any) -> Aggregate:
        """Some of the columns."""
        return Aggregate(*(values[index] for values in self.fields()))

    def mean(self) -> Floats:
        """Means over the finite values; NaN where there are none."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.count > 0, self.total / self.count, np.nan)


def concatenate(parts: list[Aggregate]) -> Aggregate:
    """Columns of several aggregates, one after the other."""
    return Aggregate(*(np.concatenate(values) for values in zip(*(part.fields() for part in parts), strict=True)))


def reduce_rows(steps: Steps, values: NDArray[Any], present: Mask | None, width: int) -> tuple[Steps, Aggregate]:
    """Rows in increasing step order to columns of ``width`` steps: the columns' indices (step // width), and them."""
    buckets = steps // width
    starts = _starts(buckets)
    # In float64 before any sum, so that a column comes out the same whatever rows stand around it.
    exact = np.ascontiguousarray(values, np.float64)
    finite = np.isfinite(exact)
    if present is not None:
        finite &= present
    everything = bool(finite.all())
    low, high, add = (
        (exact, exact, exact)
        if everything
        else (np.where(finite, exact, np.inf), np.where(finite, exact, -np.inf), np.where(finite, exact, 0.0))
    )
    with np.errstate(over="ignore"):
        total = np.add.reduceat(add, starts, axis=0)
    count = np.add.reduceat(finite, starts, axis=0, dtype=np.uint32)
    nonfinite = np.zeros_like(count)
    if not everything:
        other = ~finite if present is None else present & ~finite
        nonfinite = np.add.reduceat(other, starts, axis=0, dtype=np.uint32)
    last, last_step = _last(steps, exact, present, starts)
    return buckets[starts], Aggregate(
        np.minimum.reduceat(low, starts, axis=0),
        np.maximum.reduceat(high, starts, axis=0),
        total,
        last,
        last_step,
        count,
        nonfinite,
    )


def _starts(buckets: Steps) -> NDArray[np.intp]:
    return np.flatnonzero(np.append(True, buckets[1:] != buckets[:-1]))


def _last(steps: Steps, values: Floats, present: Mask | None, starts: NDArray[np.intp]) -> tuple[Floats, Steps]:
    if present is None:
        ends = np.append(starts[1:], len(steps)) - 1
        return values[ends], np.repeat(steps[ends][:, None], values.shape[1], axis=1)
    rows = np.maximum.reduceat(np.where(present, np.arange(len(steps))[:, None], -1), starts, axis=0)
    there = rows >= 0
    last = np.where(there, np.take_along_axis(values, np.maximum(rows, 0), axis=0), np.nan)
    return last, np.where(there, steps[np.maximum(rows, 0)], -1)


def merge(buckets: Steps, parts: Aggregate) -> tuple[Steps, Aggregate]:
    """Columns that fall into the same bucket become one; ``buckets`` does not fall, and names each column's."""
    if not len(buckets):
        return buckets, parts
    starts = _starts(buckets)
    if len(starts) == len(buckets):
        return buckets, parts
    rows = np.arange(len(buckets))[:, None]
    latest = np.maximum.reduceat(parts.last_step, starts, axis=0)
    groups = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(buckets))))
    winner = np.maximum.reduceat(np.where(parts.last_step == latest[groups], rows, -1), starts, axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.add.reduceat(np.ascontiguousarray(parts.total), starts, axis=0)
    return buckets[starts], Aggregate(
        np.minimum.reduceat(parts.minimum, starts, axis=0),
        np.maximum.reduceat(parts.maximum, starts, axis=0),
        total,
        np.take_along_axis(parts.last, winner, axis=0),
        latest,
        np.add.reduceat(parts.count, starts, axis=0, dtype=np.uint32),
        np.add.reduceat(parts.nonfinite, starts, axis=0, dtype=np.uint32),
    )


def pack(aggregate: Aggregate) -> list[bytes]:
    """One blob per column: the fields one after the other, each over all series."""
    fields = zip(aggregate.fields(), (kind for _, kind in _FIELDS), strict=True)
    flat = np.concatenate([np.ascontiguousarray(values, kind).view(np.uint8) for values, kind in fields], axis=1)
    return [row.tobytes() for row in flat]


def unpack(blobs: list[bytes]) -> Aggregate:
    """The columns of blobs of one and the same length."""
    series = len(blobs[0]) // BYTES_PER_SERIES
    flat = np.frombuffer(b"".join(blobs), np.uint8).reshape(len(blobs), len(blobs[0]))
    values, at = [], 0
    for _, kind in _FIELDS:
        size = series * np.dtype(kind).itemsize
        values.append(np.ascontiguousarray(flat[:, at : at + size]).view(kind))
        at += size
    return Aggregate(*values)
