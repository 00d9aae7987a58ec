"""Tells which runs have gone silent. A run that sends again is running again: the store sees to that."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from .changes import RunChange
from .store import tables
from .store.engine import tell
from .store.states import refresh_run
from .store.store import Store

log = logging.getLogger("gradwatch.lifecycle")


class Lifecycle:
    """Looks at the running writers again and again."""

    def __init__(self, store: Store, lost_after: float, clock: Callable[[], float] = time.time) -> None:
        self._store, self._lost_after, self._clock = store, lost_after, clock
        # Nobody is lost for a silence that was the server's own.
        self._started = clock()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await asyncio.sleep(min(5.0, self._lost_after / 4))
            try:
                await self.sweep()
            except Exception as error:
                # Nor for one that was the database's: while it was away, or full, nobody could make himself heard.
                self._started = self._clock()
                tell(log, "silent runs could not be looked for", error)

    async def sweep(self) -> None:
        """Mark writers as lost that were not heard of for too long."""
        now = self._clock()
        if now - self._started < self._lost_after:
            return
        w = tables.writers.c
        async with self._store.engines.read.connect() as connection:
            rows = (await connection.execute(select(w.id, w.key, w.seen_at).where(w.state == "running"))).all()
        silent = {
            row.key: heard for row in rows if now - (heard := self._heard(row.key, row.seen_at)) > self._lost_after
        }
        if silent:
            try:
                changed = await self._store.writer.run(lambda connection: self._lose(connection, silent, now))
            except BaseException:
                self._store.registry.forget(set(silent), set())  # it may say lost where the database does not
                raise
            self._store.publish({run: RunChange(run, state=True) for run in changed})

    def _heard(self, key: str, stored: float) -> float:
        known = self._store.registry.known(key)
        return max(stored, self._store.heard.get(key, 0.0), known.seen_at if known else 0.0)

    async def _lose(self, connection: AsyncConnection, silent: dict[str, float], now: float) -> set[str]:
        w, changed = tables.writers.c, set()
        for key, heard in silent.items():
            writer = await self._store.registry.writer(connection, key)
            # A frame may have come since the look.
            if writer is None or writer.state != "running" or now - self._heard(key, heard) <= self._lost_after:
                continue
            since = datetime.fromtimestamp(heard, UTC).isoformat(" ", "seconds")
            reason = f"nothing was heard for {self._lost_after:g} s (last: {since})"
            writer.state, writer.reason, writer.ended_at = "lost", reason, heard
            values = {"state": "lost", "reason": reason, "ended_at": heard}
            await connection.execute(update(tables.writers).where(w.id == writer.id).values(values))
            changed.add(writer.run)
        for run in changed:
            await refresh_run(connection, run, now)
        return changed
