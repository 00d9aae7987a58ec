"""Asks again and again whether the database answers, so that a health probe is told at once."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from .store.engine import reason
from .store.store import Store

log = logging.getLogger("gradwatch")

_EVERY: Final = 2.0  # seconds


class Pulse:
    """``away``: why the database does not answer; None while it does."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.away: str | None = None

    @property
    def status(self) -> str:
        """ "ready"; "full": what there is can be read, but nothing is taken; "away": there is no database now."""
        if self.away is not None:
            return "away"
        return "full" if self._store.writer.trouble == "full" else "ready"

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self.beat()
            await asyncio.sleep(_EVERY)

    async def beat(self) -> None:
        """Ask once."""
        before = self.away
        try:
            await self._store.engines.ping()
        except Exception as error:
            self.away = reason(error)
            if before is None:
                log.error("the database does not answer and is asked again every %g s: %s", _EVERY, self.away)
        else:
            self.away = None
            if before is not None:
                log.warning("the database answers again")
