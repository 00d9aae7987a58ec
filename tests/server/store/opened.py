"""A store without a server around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from gradwatch import frames
from gradwatch.frames import FrameError
from gradwatch_server.store import tables
from gradwatch_server.store.store import Store
from sqlalchemy import Table, select


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    """A store that is open while the block lasts."""
    store = Store(url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def keep(store: Store, *data: bytes) -> list[str]:
    """Store frames, each ``bytes`` holding one or more; for each "ok" or the code of its refusal."""
    pending = []
    for piece in pieces(data):
        pending.append(store.writer.submit(frames.decode(piece), piece))
    results = await asyncio.gather(*pending, return_exceptions=True)
    return [_code(result) for result in results]


def _code(result: Any) -> str:
    if isinstance(result, FrameError):
        return result.code
    if isinstance(result, BaseException):
        raise result
    return "ok"


async def rows(store: Store, table: Table) -> list[tuple[Any, ...]]:
    """All rows of a table, in the order of its key."""
    async with store.engines.read.connect() as connection:
        found = await connection.execute(select(table).order_by(*table.primary_key.columns))
        return [tuple(row) for row in found]


async def buckets(store: Store) -> dict[tuple[int, ...], bytes]:
    """The whole pyramid, when all of it is up to date."""
    await store.sealer.drain()
    assert not await rows(store, tables.dirty)
    return {tuple(row[:5]): bytes(row[5]) for row in await rows(store, tables.pyramid)}


def pieces(data: Iterable[bytes]) -> list[bytes]:
    """Single frames out of runs of them."""
    found = []
    for some in data:
        view = memoryview(some)
        while len(view):
            size = frames.frame_size(view)
            found.append(bytes(view[:size]))
            view = view[size:]
    return found
