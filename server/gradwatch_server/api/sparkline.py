"""The small picture of a run's loss in the run list."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ..store.cover import column_width
from ..store.queries import Queries

POINTS: Final = 48
_FINE: Final = 4 * POINTS
_KEPT: Final = 1_000


class Sparklines:
    """Loss means over each run, kept until the run goes on."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._known: dict[str, tuple[Any, list[float | None]]] = {}

    async def of(self, run: dict[str, Any]) -> list[float | None]:
        """48 means, null where there is no finite loss."""
        stamp = (run["updated_at"], run["last_step"], run["attempt"])
        known = self._known.pop(run["id"], None)
        if known is None or known[0] != stamp:
            known = (stamp, await self._draw(run["id"]))
        self._known[run["id"]] = known
        if len(self._known) > _KEPT:
            self._known.pop(next(iter(self._known)))
        return known[1]

    async def _draw(self, run: str) -> list[float | None]:
        view = await self._queries.view(run)
        first, last = view.first_step, view.last_step
        if first is None or last is None:
            return [None] * POINTS
        width = column_width(first, last, _FINE)
        found = await self._queries.reduce(view, first, last, width, names=["loss"])
        middle = np.clip(found.first + (width - 1) / 2, first, last) - first
        points = (middle * POINTS // (last - first + 1)).astype(np.int64)
        count = np.bincount(points, found.scalars.count[:, 0], POINTS)
        with np.errstate(all="ignore"):
            means = np.bincount(points, found.scalars.total[:, 0], POINTS) / count
        return [value if np.isfinite(value) else None for value in means.tolist()]
