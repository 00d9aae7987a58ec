"""The columns of an answer, into which pieces from buckets and raw steps are drawn in any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .aggregate import Aggregate
from .decode import Steps
from .pyramid import Buckets


class Canvas:
    """Columns ``first`` to ``last`` (step // width) of some scalar series and, where asked for, of layers.

    ``layers``: names of layers or modules in the order of the answer, or None.
    """

    def __init__(
        self, first: int, last: int, names: Sequence[str], layers: Sequence[str] | None, dtype: Any = np.float32
    ) -> None:
        self._first = first
        count = max(0, last - first + 1)
        self._series = {name: at for at, name in enumerate(names)}
        self._seen = np.zeros(count, np.bool_)
        self.scalars = Aggregate.empty(count, len(names))
        self.layers = None if layers is None else Aggregate.empty(count, len(layers), dtype, last=False)

    def draw_named(self, piece: Buckets) -> None:
        """Scalar series; those that nobody asked for are left out."""
        columns = self._columns(piece.buckets)
        known = [(at, self._series[name]) for at, name in enumerate(piece.names or ()) if name in self._series]
        if known and len(piece.buckets):
            mine, here = (np.array(index, np.intp) for index in zip(*known, strict=True))
            self.scalars.merge_at(columns, here, piece.values.series(mine))

    def draw_numbered(self, piece: Buckets, positions: NDArray[np.intp]) -> None:
        """Layers: series i of the piece is the writer's, ``positions[i]`` the answer's; negative: left out."""
        columns = self._columns(piece.buckets)
        count = piece.values.count.shape[1]
        here = positions[piece.start : piece.start + count]
        if self.layers is None or not len(here) or not len(piece.buckets):
            return
        values = piece.values if len(here) == count else piece.values.series(slice(0, len(here)))
        if here[0] >= 0 and (np.diff(here) == 1).all():
            self.layers.merge_at(columns, slice(int(here[0]), int(here[-1]) + 1), values)
            return
        there = np.flatnonzero(here >= 0)
        if len(there):
            self.layers.merge_at(columns, here[there], values.series(there))

    def _columns(self, buckets: Steps) -> Any:
        columns: Any = buckets - self._first
        if len(columns) and columns[-1] - columns[0] + 1 == len(columns):
            columns = slice(int(columns[0]), int(columns[-1]) + 1)
        self._seen[columns] = True
        return columns

    def finished(self) -> tuple[Steps, Aggregate, Aggregate | None]:
        """The columns in which there was anything at all, and what they hold."""
        columns = np.flatnonzero(self._seen) + self._first
        if self._seen.all():
            return columns, self.scalars, self.layers
        layers = None if self.layers is None else self.layers.columns(self._seen)
        return columns, self.scalars.columns(self._seen), layers
