"""Tells a webhook of new alerts. Whether it was told stands in the alert's row, so a restart forgets none."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from typing import Any, Final

import httpx
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from .store import runs, tables
from .store.engine import tell
from .store.store import Store

log = logging.getLogger("gradwatch.notify")

_TIMEOUT: Final = httpx.Timeout(5.0)
_TRIES: Final = 12  # with the pauses below for about half an hour, then every five minutes
_FIRST_PAUSE: Final = 1.0  # seconds; doubles with every failure
_LONGEST_PAUSE: Final = 300.0
_AT_ONCE: Final = 10


class Notifier:
    """One task; nothing waits for it."""

    def __init__(self, store: Store, url: str | None, first_pause: float = _FIRST_PAUSE) -> None:
        self._store, self._url, self._first_pause = store, url, first_pause
        self._wake = asyncio.Event()
        self._wake.set()  # alerts may be left from before

    def wake(self) -> None:
        """There may be a new alert."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled; ends at once where no webhook is set."""
        if self._url is None:
            return
        # No redirects: the address is the operator's choice, not that of whoever answers there.
        async with httpx.AsyncClient(timeout=_TIMEOUT, follow_redirects=False) as client:
            while True:
                try:
                    pause = await self._deliver(client, self._url)
                except Exception as error:
                    tell(log, "alerts could not be read and will be tried again", error)
                    pause = 5.0
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)
                self._wake.clear()

    async def _deliver(self, client: httpx.AsyncClient, url: str) -> float | None:
        """Send what is due; seconds until the next is, or None."""
        a = tables.alerts.c
        due = (a.notified == "pending") & (a.notify_after <= time.time())
        async with self._store.engines.read.connect() as connection:
            rows = (await connection.execute(select(tables.alerts).where(due).order_by(a.id).limit(_AT_ONCE))).all()
        for row in rows:
            values = await self._send(client, url, row)
            await self._store.writer.run(lambda c, number=row.id, new=values: _mark(c, number, new))  # type: ignore[misc]
        async with self._store.engines.read.connect() as connection:
            soonest = await connection.scalar(select(func.min(a.notify_after)).where(a.notified == "pending"))
        return None if soonest is None else max(0.05, soonest - time.time())

    async def _send(self, client: httpx.AsyncClient, url: str, row: Any) -> dict[str, Any]:
        async with self._store.engines.read.connect() as connection:
            run = await runs.get_run(connection, row.run)
        alert = runs.alert_json(row)
        about = {name: run[name] for name in ("id", "project", "name", "state")} if run else {"id": row.run}
        # Chat services show "text"; the rest is for programs.
        body = {"type": "alert", "text": f"{alert['title']}\n{alert['text']}", "alert": alert, "run": about}
        key = hashlib.sha256(row.fingerprint.encode()).hexdigest()[:32]
        try:
            async with client.stream("POST", url, json=body, headers={"idempotency-key": key}) as answer:
                problem = None if answer.is_success else f"status {answer.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            problem = type(error).__name__
        tries = row.notify_tries + 1
        if problem is None:
            return {"notified": "sent", "notify_tries": tries}
        log.warning("the webhook could not be told of alert %d (%s), try %d", row.id, problem, tries)
        pause = min(_LONGEST_PAUSE, self._first_pause * 2 ** (tries - 1))
        state = "failed" if tries >= _TRIES else "pending"
        return {"notified": state, "notify_tries": tries, "notify_after": time.time() + pause}


async def _mark(connection: AsyncConnection, alert: int, values: dict[str, Any]) -> None:
    await connection.execute(update(tables.alerts).where(tables.alerts.c.id == alert).values(values))
