"""Engines: one that writes, one that reads, for SQLite and PostgreSQL alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

READERS = 4  # queries at a time: saturating readers starve the writer and keep the WAL from being folded back

_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",  # an ack means committed to the disk
    "PRAGMA busy_timeout=5000",
    "PRAGMA journal_size_limit=67108864",
    "PRAGMA cache_size=-16384",
    "PRAGMA temp_store=MEMORY",
)


@dataclass(frozen=True, slots=True)
class Engines:
    """``write`` has a single connection, used by the one writer task only."""

    write: AsyncEngine
    read: AsyncEngine

    async def dispose(self) -> None:
        await self.write.dispose()
        await self.read.dispose()


def open_engines(url: str) -> Engines:
    """Engines for ``url``; nothing is connected yet."""
    if make_url(url).get_backend_name() == "sqlite":
        return Engines(_sqlite(url, "BEGIN IMMEDIATE", 1), _sqlite(url, "BEGIN", READERS))
    options: dict[str, Any] = {"pool_pre_ping": True, "max_overflow": 0}
    return Engines(
        create_async_engine(url, pool_size=1, **options), create_async_engine(url, pool_size=READERS, **options)
    )


def _sqlite(url: str, begin: str, connections: int) -> AsyncEngine:
    engine = create_async_engine(url, pool_size=connections, max_overflow=0, pool_timeout=60)

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, _: ConnectionPoolEntry) -> None:
        # The driver would begin late and DEFERRED, where an upgrade to writing fails at once with "database is locked".
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin_transaction(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine
