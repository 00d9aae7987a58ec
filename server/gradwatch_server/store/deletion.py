"""Deleting a run: a tombstone at once, then the rows, a few per transaction so that nobody waits behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from sqlalchemy import Table, and_, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ..changes import RunChange
from . import tables

if TYPE_CHECKING:
    from .store import Store

_FRAMES_AT_ONCE: Final = 500
_PER_RUN: Final[tuple[Table, ...]] = (
    tables.attempts,
    tables.run_layers,
    tables.user_series,
    tables.events,
    tables.alerts,
)
_PER_WRITER: Final[tuple[Table, ...]] = (tables.layer_tables, tables.dirty, tables.rule_states)


async def delete_run(store: Store, run: str, now: float) -> None:
    """Mark the run as deleted and take its rows away."""
    writers = await store.writer.run(lambda connection: _bury(connection, run, now))
    store.registry.forget({key for _, key in writers}, {run})
    store.books.forget([number for number, _ in writers])
    store.publish({run: RunChange(run, deleted=True)})
    await _sweep(store, [number for number, _ in writers])


async def sweep(store: Store) -> None:
    """Take away the rows of all deleted writers that a stop left half done."""
    c = tables.writers.c
    async with store.engines.read.connect() as connection:
        numbers = (await connection.scalars(select(c.id).where(c.state == "deleted"))).all()
    await _sweep(store, numbers)


async def _sweep(store: Store, writers: Sequence[int]) -> None:
    for number in writers:
        for table in (tables.frames, tables.tiles, tables.pyramid, tables.sealed):
            while await store.writer.run(lambda connection, t=table, n=number: _delete_some(connection, t, n)):  # type: ignore[misc]
                pass


async def _bury(connection: AsyncConnection, run: str, now: float) -> list[tuple[int, str]]:
    w = tables.writers.c
    writers = [(number, key) for number, key in await connection.execute(select(w.id, w.key).where(w.run == run))]
    buried = {"deleted_at": now, "updated_at": now, "about": "{}", "tags": "[]"}
    await connection.execute(update(tables.runs).where(tables.runs.c.id == run).values(buried))
    await connection.execute(update(tables.writers).where(w.run == run).values(state="deleted"))
    for table in _PER_RUN:
        await connection.execute(delete(table).where(table.c.run == run))
    for table in _PER_WRITER:
        await connection.execute(delete(table).where(table.c.writer.in_([number for number, _ in writers])))
    return writers


async def _delete_some(connection: AsyncConnection, table: Table, writer: int) -> int:
    keys = list(table.primary_key.columns)
    chosen = (await connection.execute(select(*keys).where(table.c.writer == writer).limit(_FRAMES_AT_ONCE))).all()
    for row in chosen:
        await connection.execute(
            delete(table).where(and_(*(key == value for key, value in zip(keys, row, strict=True))))
        )
    return len(chosen)
