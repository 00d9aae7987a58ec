"""What the pyramid keeps of a bucket beside an aggregate: sums of squares and of logarithms, and what was NaN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .aggregate import Counts, column_starts, reduce_at
from .decode import Floats, Mask, Steps


@dataclass(frozen=True, slots=True)
class Moments:
    """Columns x series, over the finite values; logarithms (base 2) over those above 0 alone, ``positive`` of them."""

    squares: Floats
    logs: Floats
    positive: Counts
    nan: Counts

    @classmethod
    def none(cls, columns: int, series: int) -> Moments:
        """Moments of nothing."""
        shape = (columns, series)
        return cls(np.zeros(shape), np.zeros(shape), np.zeros(shape, np.uint32), np.zeros(shape, np.uint32))

    def fields(self) -> list[NDArray[Any]]:
        return [self.squares, self.logs, self.positive, self.nan]

    def series(self, index: Any) -> Moments:
        """Some of the series."""
        return Moments(*(values[:, index] for values in self.fields()))

    def columns(self, index: Any) -> Moments:
        """Some of the columns."""
        return Moments(*(values[index] for values in self.fields()))


def reduce_moments(steps: Steps, values: NDArray[Any], present: Mask | None, width: int) -> Moments:
    """Rows in increasing step order to the columns of ``aggregate.reduce_rows``."""
    starts = column_starts(steps // width)
    finite = np.isfinite(values)
    nan = np.isnan(values)
    if present is not None:
        finite &= present
        nan &= present
    some = values if finite.all() else np.where(finite, values, values.dtype.type(0))
    positive = some > 0
    with np.errstate(over="ignore"):
        squares = reduce_at(np.add, np.square(some, dtype=np.float64), starts)
    # In the type of the values: of float32 the sum is rounded to 12 bits when it is stored.
    logs = np.log2(some) if positive.all() else np.log2(some, where=positive, out=np.zeros_like(some))
    return Moments(
        squares,
        reduce_at(np.add, logs, starts, np.float64),
        reduce_at(np.add, positive, starts, np.uint32),
        reduce_at(np.add, nan, starts, np.uint32),
    )


def merge_moments(columns: Steps, parts: Moments) -> Moments:
    """Moments of columns that fall into the same one put together, as ``aggregate.merge`` does."""
    starts = column_starts(columns)
    if len(starts) == len(columns):
        return parts
    with np.errstate(over="ignore", invalid="ignore"):
        return Moments(*(reduce_at(np.add, values, starts, values.dtype) for values in parts.fields()))
