"""Keeps the roll-up: redoes buckets that are marked dirty, finest first, and marks their parents in turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from . import reading, rollup, tables, upsert
from .decode import ScalarRows, StepRows
from .engine import tell
from .modules import modules_of
from .reading import Books, Stream, load_streams
from .rollup import FANOUT, LEVELS, Numbered
from .writer import Writer

log = logging.getLogger("gradwatch.store")

_AT_ONCE: Final = 64  # buckets in one transaction, so that acks do not wait long behind it
_PAUSE: Final = 0.25  # seconds between two looks, so that a busy hour costs few transactions
_AFTER_FAILURE: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Mark:
    level: int
    bucket: int
    version: int


class Roller:
    """One task; the marks in ``dirty`` are its durable cursor."""

    def __init__(self, engine: AsyncEngine, books: Books, writer: Writer) -> None:
        self._engine, self._books, self._writer = engine, books, writer
        self._wake = asyncio.Event()
        self._wake.set()  # marks may be left from before
        # Two at once could clear a mark that was set anew between the look of one and the work of the other.
        self._alone = asyncio.Lock()

    def wake(self) -> None:
        """Something was committed."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while await self.once():
                    pass
            except Exception as error:
                tell(log, "the roll-up failed and will be tried again", error)
                self._wake.set()
                await asyncio.sleep(_AFTER_FAILURE)
            await asyncio.sleep(_PAUSE)

    async def drain(self) -> None:
        """Redo everything that is marked, unfinished buckets too."""
        while await self.once(unfinished=True):
            pass

    async def once(self, *, unfinished: bool = False) -> bool:
        """Redo some buckets of one writer and level; False when nothing was to do.

        Buckets that the writer is still filling are left to the queries, which read their few steps raw.
        """
        async with self._alone:
            async with self._engine.connect() as connection:
                found = await _next_marks(connection, unfinished=unfinished)
            if not found:
                return False
            stream, marks = found
            work = self._from_frames if marks[0].level == LEVELS[0] else self._merge
            rows = await work(stream, marks)
            await self._writer.run(lambda connection: _store(connection, stream, marks, rows))
            return True

    async def _from_frames(self, stream: Stream, marks: Sequence[_Mark]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        level = marks[0].level
        width = len((await self._books.of(stream)).layers)
        for low, high in _runs(marks, max(1, reading.PIECE_BYTES // (level * (4 * width + 100)))):
            first, last = low * level, (high + 1) * level - 1
            steps = await reading.read_steps(self._engine, self._books, stream, first, last)
            user = await reading.read_user(self._engine, stream, first, last)
            book = await self._books.of(stream)
            names = [layer.name for layer in book.layers[: steps.layers.shape[1]]]
            found += await asyncio.to_thread(_finest, stream, (first, last), steps, user, names)
        return found

    async def _merge(self, stream: Stream, marks: Sequence[_Mark]) -> list[dict[str, Any]]:
        level = marks[0].level
        found: list[dict[str, Any]] = []
        for low, high in _runs(marks, _AT_ONCE):
            children = (low * FANOUT, high * FANOUT + FANOUT - 1)
            async with self._engine.connect() as connection:
                rows = await reading.load_buckets(
                    connection, stream.id, level // FANOUT, (0, 2 * rollup.MODULES), children
                )
            found += await asyncio.to_thread(_parents, stream.id, level, rows)
        return found


def _runs(marks: Sequence[_Mark], most: int) -> list[tuple[int, int]]:
    """Buckets that follow one another, so that they are read together: (first, last), at most ``most`` of them."""
    runs: list[tuple[int, int]] = []
    for mark in marks:
        if runs and runs[-1][1] + 1 == mark.bucket and mark.bucket - runs[-1][0] < most:
            runs[-1] = (runs[-1][0], mark.bucket)
        else:
            runs.append((mark.bucket, mark.bucket))
    return runs


async def _next_marks(connection: AsyncConnection, *, unfinished: bool) -> tuple[Stream, list[_Mark]] | None:
    d, w = tables.dirty.c, tables.writers.c
    closed = or_((d.bucket + 1) * d.level <= w.last_step, w.state != "running")
    joined = select(d.writer, d.level, w.run).join(tables.writers, w.id == d.writer).where(w.state != "deleted")
    ready = joined if unfinished else joined.where(closed)
    first = (await connection.execute(ready.order_by(d.level, d.writer).limit(1))).first()
    if first is None:
        return None
    mine = (d.writer == first.writer) & (d.level == first.level)
    chosen = select(d.level, d.bucket, d.version).join(tables.writers, w.id == d.writer).where(mine)
    chosen = chosen if unfinished else chosen.where(closed)
    rows = await connection.execute(chosen.order_by(d.bucket).limit(_AT_ONCE))
    marks = [_Mark(*row) for row in rows]
    streams = await load_streams(connection, first.run)
    return next((s, marks) for s in streams if s.id == first.writer)


def _finest(
    stream: Stream,
    within: tuple[int, int],
    steps: StepRows,
    user: Sequence[ScalarRows],
    names: Sequence[str],
) -> list[dict[str, Any]]:
    level = LEVELS[0]
    found: list[tuple[int, int, bytes]] = []
    if len(steps.steps):
        found += [(rollup.SCALARS, *row) for row in rollup.pack_named(rollup.scalars_of(steps, level))]
        if names:
            found += rollup.pack_numbered(rollup.layers_of(steps, level), rollup.LAYERS)
            modules = rollup.modules_of_rows(steps, modules_of(names), stream.norm_type, level)
            found += rollup.pack_numbered(modules, rollup.MODULES)
    logged = rollup.user_of(user, *within, level)
    if logged:
        found += [(rollup.USER, *row) for row in rollup.pack_named(rollup.combine_named(logged))]
    return _rows(stream.id, level, found)


def _parents(writer: int, level: int, rows: Sequence[tuple[int, int, bytes]]) -> list[dict[str, Any]]:
    found: list[tuple[int, int, bytes]] = []
    for part in (rollup.SCALARS, rollup.USER):
        some = [(bucket // FANOUT, data) for which, bucket, data in rows if which == part]
        pieces = rollup.unpack_named([bucket for bucket, _ in some], [data for _, data in some])
        found += [(part, *row) for row in rollup.pack_named(rollup.combine_named(pieces))]
    for part, end in ((rollup.LAYERS, rollup.MODULES), (rollup.MODULES, 2 * rollup.MODULES)):
        some_numbered = [row for row in rows if part <= row[0] < end]
        if some_numbered:
            whole = rollup.unpack_numbered(some_numbered)
            parents = rollup.combine_numbered(
                [Numbered(whole.columns // FANOUT, whole.values)], whole.values.count.shape[1]
            )
            found += rollup.pack_numbered(parents, part)
    return _rows(writer, level, found)


def _rows(writer: int, level: int, found: Sequence[tuple[int, int, bytes]]) -> list[dict[str, Any]]:
    return [{"writer": writer, "level": level, "part": p, "bucket": b, "data": data} for p, b, data in found]


async def _store(
    connection: AsyncConnection, stream: Stream, marks: Sequence[_Mark], rows: Sequence[dict[str, Any]]
) -> None:
    await upsert.replace(connection, tables.rollups, rows)
    d = tables.dirty.c
    for mark in marks:
        mine = (d.writer == stream.id) & (d.level == mark.level) & (d.bucket == mark.bucket)
        # A mark that was renewed meanwhile stays: its bucket is redone once more.
        await connection.execute(tables.dirty.delete().where(mine, d.version == mark.version))
    level = marks[0].level * FANOUT
    if level <= LEVELS[-1]:
        parents = [(stream.id, level, mark.bucket // FANOUT) for mark in marks]
        await upsert.mark_dirty(connection, tables.dirty, parents)
