"""Taking tiles of layers away, oldest steps first; what the pyramid says of them stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from . import tables
from .tiles import LAYERS

if TYPE_CHECKING:
    from .store import Store

_BLOCKS_AT_ONCE: Final = 16


async def thin(store: Store, before: float) -> int:
    """Take away the tiles of blocks whose steps all happened before a moment (unix seconds); how many went."""
    t, w = tables.tiles.c, tables.writers.c
    old = select(t.writer, w.key, func.max(t.last) + 1).join(tables.writers, w.id == t.writer)
    wanted = old.where(t.part >= LAYERS, t.time < before).group_by(t.writer, w.key)
    async with store.engines.read.connect() as connection:
        found = (await connection.execute(wanted)).all()
    gone = 0
    for writer, key, end in found:
        # Not while one of these blocks is sealed anew.
        async with store.sealer.alone:
            await store.writer.run(lambda connection, w=writer, e=end: _draw_line(connection, w, e))  # type: ignore[misc]
        known = store.registry.known(key)
        if known is not None:
            known.thinned_to = max(known.thinned_to, end)
        while some := await store.writer.run(lambda connection, w=writer, e=end: _take_some(connection, w, e)):  # type: ignore[misc]
            gone += some
    return gone


async def _draw_line(connection: AsyncConnection, writer: int, end: int) -> None:
    w = tables.writers.c
    await connection.execute(update(tables.writers).where(w.id == writer, w.thinned_to < end).values(thinned_to=end))


async def _take_some(connection: AsyncConnection, writer: int, end: int) -> int:
    t = tables.tiles.c
    mine = (t.writer == writer) & (t.part >= LAYERS) & (t.last < end)
    blocks = (await connection.scalars(select(t.first).where(mine).distinct().limit(_BLOCKS_AT_ONCE))).all()
    if not blocks:
        return 0
    return (await connection.execute(tables.tiles.delete().where(mine, t.first.in_(blocks)))).rowcount
