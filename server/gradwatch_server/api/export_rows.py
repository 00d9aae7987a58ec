"""What an export holds: which columns, under which names, and their rows piece by piece."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, cast

import numpy as np

from ..store.decode import DTYPES, LAYER_METRIC
from ..store.queries import Queries, RawRows, RunLayer
from ..store.store import Store
from ..store.views import View

KEYS: Final = ("attempt", "rank", "step", "time")  # the first columns of every export


@dataclass(frozen=True, slots=True)
class ExportRows:
    """The rows of a view within ``steps`` (first, last), as they were when the export began."""

    queries: Queries
    view: View
    steps: tuple[int, int]
    names: list[str]
    layers: list[RunLayer]
    float_type: np.dtype[Any]  # of the norms: float64 where any came so

    @classmethod
    async def of(cls, store: Store, view: View, steps: tuple[int, int], match: str | None) -> ExportRows:
        """All series, and the layers that the glob ``match`` names (None: all)."""
        layers = await store.queries.layers(view.run)
        wanted = [layer for layer in layers if match is None or fnmatchcase(layer.name, match)]
        names = await store.queries.series_names(view)
        return cls(store.queries, view, steps, names, wanted, await _float_type(store, view))

    @property
    def most(self) -> int:
        """So many rows at most: steps may be missing in between."""
        low, high = self.steps
        spans = [min(high, s.last) - max(low, s.first) + 1 for s in self.view.segments]
        return sum(max(0, span) for span in spans)

    @property
    def layer_names(self) -> list[str]:
        return [layer.name for layer in self.layers]

    def head(self) -> list[str]:
        """The columns' names, each of its own: a logged series may be called like another column."""
        taken: dict[str, None] = {}
        for name in (*KEYS, *self.names, *(f"{LAYER_METRIC}/{name}" for name in self.layer_names)):
            free, number = name, 2
            while free in taken:
                free, number = f"{name} ({number})", number + 1
            taken[free] = None
        return list(taken)

    async def pieces(self) -> AsyncIterator[RawRows]:
        """Pieces of bounded size in step order. Between two of them nothing of the database is held."""
        found = cast(
            AsyncGenerator[tuple[int, int, RawRows]],
            self.queries.pieces(self.view, *self.steps, layers=bool(self.layers)),
        )
        async with aclosing(found):
            while True:
                # By turns with other heavy queries, but never while a slow taker makes this one wait.
                async with self.queries.heavy:
                    piece = await anext(found, None)
                if piece is None:
                    return
                if len(piece[2].steps):
                    yield piece[2]


async def _float_type(store: Store, view: View) -> np.dtype[Any]:
    books = [await store.books.of(segment.stream) for segment in view.segments]
    sent = {
        column.dtype
        for book in books
        for table in book.tables.values()
        for column in table.columns
        if column.name == LAYER_METRIC
    }
    return max((DTYPES[name] for name in sent), key=lambda dtype: dtype.itemsize, default=DTYPES["f4"])
