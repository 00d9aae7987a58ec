"""Thins old layer norms: after a time a run keeps its scalars step by step, and of its layers the pyramid."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from .store import thinning
from .store.engine import tell
from .store.store import Store

log = logging.getLogger("gradwatch.retention")

_PAUSE: Final = 600.0  # seconds between two looks


class Retention:
    """One task; ``age``: seconds after which the norms of single steps go."""

    def __init__(self, store: Store, age: float, clock: Callable[[], float] = time.time) -> None:
        self._store, self._age, self._clock = store, age, clock

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                await self.sweep()
            except Exception as error:
                tell(log, "old norms could not be thinned; it will be tried again", error)
            await asyncio.sleep(_PAUSE)

    async def sweep(self) -> int:
        """Thin what is old enough; how many tiles went."""
        return await thinning.thin(self._store, self._clock() - self._age)
