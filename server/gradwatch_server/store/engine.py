"""Engines: one that writes, one that reads, for SQLite and PostgreSQL alike; and what it means when one fails."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import sqlite3
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError, StatementError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

READERS = 4  # queries at a time: saturating readers starve the writer and keep the WAL from being folded back

_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",  # an ack means committed to the disk
    "PRAGMA busy_timeout=5000",
    "PRAGMA journal_size_limit=67108864",
    "PRAGMA cache_size=-16384",
    "PRAGMA temp_store=MEMORY",
)

# Seconds a PostgreSQL may take: to connect, for a statement of the writer, for a query. Without them a database that
# hangs, or a network that swallows, would hold the writer for ever.
_CONNECT: Final = 5
_WRITE: Final = 20
_READ: Final = 60
_FAREWELL: Final = 1.0  # second to take leave of a database that may not answer any more

_DISK_FULL: Final = "53100"  # PostgreSQL's own number for it
# What SQLite says on a full disk, and where a quota or a limit of the file's size is reached.
_SQLITE_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC})
# What is raised where a database is away, overloaded or hangs.
AWAY: Final = (SQLAlchemyError, ConnectionError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Engines:
    """``write`` has a single connection, used by the one writer task only. ``plain`` keeps none and waits for ever.

    Migrations go by ``plain``: on a large database one statement may take longer than the writer is given.
    """

    write: AsyncEngine
    read: AsyncEngine
    plain: AsyncEngine

    async def ping(self) -> None:
        """Raises what keeps the database from answering within 5 s. SQLite is a file of ours, and always there."""
        if self.plain.dialect.name == "sqlite":
            return
        async with asyncio.timeout(_CONNECT), self.plain.connect() as connection:
            await connection.execute(text("select 1"))

    async def dispose(self) -> None:
        """Let go of the database, whether it answers or not."""
        for engine in (self.write, self.read, self.plain):
            with contextlib.suppress(TimeoutError, SQLAlchemyError, OSError):
                await asyncio.wait_for(engine.dispose(), _FAREWELL)


def trouble(error: BaseException) -> Literal["full", "busy"] | None:
    """What a failure of the database means: no room on its disk, away or overloaded, or (None) a fault of the data."""
    if isinstance(error, DataError | IntegrityError):
        return None
    cause = getattr(error, "orig", None) or error
    if (
        getattr(cause, "sqlstate", None) == _DISK_FULL
        or getattr(cause, "sqlite_errorcode", None) in _SQLITE_FULL
        or getattr(cause, "errno", None) == errno.ENOSPC
    ):
        return "full"
    if isinstance(error, StatementError) and not isinstance(error, DBAPIError):
        return None
    return "busy" if isinstance(error, AWAY) else None


def reason(error: BaseException) -> str:
    """The error in one line for a person."""
    return " ".join(str(getattr(error, "orig", None) or error).split())[:200] or type(error).__name__


def tell(log: logging.Logger, what: str, error: BaseException) -> None:
    """Log a failure: in one line where the database is the cause, with its trace where the cause may be our own."""
    if trouble(error):
        log.warning("%s: %s", what, reason(error))
    else:
        log.error(what, exc_info=error)


def open_engines(url: str) -> Engines:
    """Engines for ``url``; nothing is connected yet."""
    if make_url(url).get_backend_name() == "sqlite":
        return Engines(
            _sqlite(url, "BEGIN IMMEDIATE", pool_size=1, max_overflow=0, pool_timeout=60),
            _sqlite(url, "BEGIN", pool_size=READERS, max_overflow=0, pool_timeout=60),
            _sqlite(url, "BEGIN IMMEDIATE", poolclass=NullPool),
        )
    options: dict[str, Any] = {"pool_pre_ping": True, "max_overflow": 0}
    return Engines(
        _postgresql(url, _WRITE, pool_size=1, **options),
        # What is sealed between two statements of a query must not be missing from both, as it could be by default.
        _postgresql(url, _READ, pool_size=READERS, isolation_level="REPEATABLE READ", **options),
        _postgresql(url, None, poolclass=NullPool),
    )


def _postgresql(url: str, seconds: int | None, **pool: Any) -> AsyncEngine:
    """``seconds``: what a statement may take."""
    engine = create_async_engine(url, connect_args={"timeout": _CONNECT, "command_timeout": seconds}, **pool)

    @event.listens_for(engine.sync_engine, "do_connect")
    def connect(dialect: Any, _: ConnectionPoolEntry, arguments: Any, options: Any) -> Any:
        # While no connection stands the driver's errors come as they are, and nobody would know them for what they are.
        try:
            return dialect.connect(*arguments, **options)
        except dialect.loaded_dbapi.Error:
            raise
        except Exception as error:
            raise dialect.loaded_dbapi.OperationalError(str(error) or "no answer in time") from error

    return engine


def _sqlite(url: str, begin: str, **pool: Any) -> AsyncEngine:
    engine = create_async_engine(url, **pool)

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
