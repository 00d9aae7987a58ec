"""Numbers in JSON: non-finite ones are strings, missing ones null."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..store.aggregate import Aggregate
from ..store.decode import MISSING_BITS


def listed(values: NDArray[Any], missing: NDArray[np.bool_] | None = None) -> list[Any]:
    """An array as nested lists, null where ``missing``."""
    exact = values.astype(np.float64)
    items: list[Any] = exact.ravel().tolist()
    for at in np.flatnonzero(~np.isfinite(exact.ravel())).tolist():
        items[at] = spelled(items[at])
    for at in np.flatnonzero(missing.ravel()).tolist() if missing is not None else []:
        items[at] = None
    if values.ndim == 1:
        return items
    width = values.shape[1]
    return [items[row * width : (row + 1) * width] for row in range(values.shape[0])]


def listed_raw(values: NDArray[np.float64]) -> list[Any]:
    """Raw values of one series, null where none was given."""
    return listed(values, values.view(np.uint64) == MISSING_BITS)


def spelled(value: float) -> float | str:
    """A number, or its name where JSON has no number for it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def described(values: Aggregate, at: int) -> dict[str, list[Any]]:
    """One series of an aggregate."""
    some = values.series([at])
    count = some.count[:, 0]
    empty = count == 0
    return {
        "min": listed(some.minimum[:, 0], empty),
        "max": listed(some.maximum[:, 0], empty),
        "mean": listed(some.mean()[:, 0], empty),
        "last": listed(some.latest()[0][:, 0], empty & (some.nonfinite[:, 0] == 0)),
        "count": count.tolist(),
        "nonfinite": some.nonfinite[:, 0].tolist(),
    }
