"""Rows of steps to buckets of ``width`` steps: of the scalars, the layers, their modules, and what the user logged."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .aggregate import Aggregate, reduce_rows
from .decode import MISSING_BITS, Mask, ScalarRows, StepRows, Steps
from .modules import Modules, module_norms
from .moments import reduce_moments
from .pyramid import Buckets


def scalars_of(rows: StepRows, width: int, *, moments: bool = False) -> Buckets:
    """The scalar series of step rows."""
    names = sorted(rows.scalars)
    values = np.stack([rows.scalars[name] for name in names], axis=1) if names else np.zeros((len(rows.steps), 0))
    present = values.view(np.uint64) != MISSING_BITS
    return _reduced(rows.steps, values, present, width, names, moments=moments)


def layers_of(rows: StepRows, width: int, *, moments: bool = False) -> Buckets:
    """The layer norms of step rows."""
    return _reduced(rows.steps, rows.layers, rows.present, width, None, moments=moments)


def modules_of_rows(rows: StepRows, modules: Modules, p: float, width: int) -> Buckets:
    """The module norms of step rows, each computed step by step."""
    values, present = module_norms(rows.layers, rows.present, modules, p)
    return _reduced(rows.steps, values, present, width, None, moments=False)


def user_of(rows: ScalarRows, width: int, *, moments: bool = False) -> list[Buckets]:
    """User-logged series, one result for each; ``rows`` by series and step, as ``tiles.joined_user`` gives them."""
    found = []
    for number, name in enumerate(rows.names):
        mine = slice(*np.searchsorted(rows.series, [number, number + 1]).tolist())
        if mine.start < mine.stop:
            values = rows.values[mine][:, None]
            found.append(_reduced(rows.steps[mine], values, None, width, [name], moments=moments))
    return found


def _reduced(
    steps: Steps, values: NDArray[Any], present: Mask | None, width: int, names: list[str] | None, *, moments: bool
) -> Buckets:
    if not len(steps):
        return Buckets(steps, Aggregate.empty(0, values.shape[1], values.dtype, last=names is not None), None, names)
    buckets, reduced = reduce_rows(steps, values, present, width, last=names is not None)
    found = reduce_moments(steps, values, present, width) if moments else None
    return Buckets(buckets, reduced, found, names)
