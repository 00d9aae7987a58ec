"""Stored steps and buckets of one writer, read in bounded pieces and short transactions."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gradwatch import frames
from gradwatch.frames import Kind
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from . import tables
from .decode import Mask, ScalarRows, StepRows, Steps, decode_scalars, decode_steps
from .pyramid import GROUP
from .registry import LayerBook, load_book
from .tiles import (
    BLOCK,
    CHUNK,
    FRESH_HEAD,
    FRESH_USER,
    HEAD,
    LAYERS,
    PACKED,
    USER,
    SealedRows,
    joined_rows,
    joined_user,
    unpack_head,
    unpack_layers,
    unpack_user,
)

PIECE_BYTES = 8 << 20  # decoded at a time
_FRAMES_OF_A_BLOCK = 64  # as a rule; each is looked up by an index alone


@dataclass(frozen=True, slots=True)
class Stream:
    """One writer, as a reader needs it."""

    id: int
    run: str
    attempt: int
    rank: int
    norm_type: float
    start_step: int
    first_step: int | None
    last_step: int | None
    steps_span: int
    scalars_span: int
    thinned_to: int
    tables: int  # layer tables that had arrived when this was read


class Books:
    """The writers' layer books as committed; a book is read again when a frame cites a table it lacks."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._books: dict[int, LayerBook] = {}

    async def of(self, stream: Stream) -> LayerBook:
        """The writer's book, no older than ``stream``."""
        return await self._book(stream.id, stream.tables, ())

    async def for_frames(self, writer: int, found: Sequence[frames.Frame]) -> LayerBook:
        """The writer's book, with every table that the steps frames ``found`` cite."""
        return await self._book(writer, 0, {frame.header["table"] for frame in found})

    async def _book(self, writer: int, arrived: int, cited: Collection[str]) -> LayerBook:
        book = self._books.get(writer)
        if book is None or len(book.tables) < arrived or any(table not in book.tables for table in cited):
            async with self._engine.connect() as connection:
                book = await load_book(connection, writer)
            known = self._books.get(writer)
            # Of two that were loaded at once the one that knows more stays.
            if known is None or len(known.tables) <= len(book.tables):
                self._books[writer] = book
        return book

    def forget(self, writers: Sequence[int]) -> None:
        """Drop books of deleted writers."""
        for writer in writers:
            self._books.pop(writer, None)


async def load_streams(connection: AsyncConnection, run: str) -> list[Stream]:
    """All writers of a run, by attempt and rank."""
    c, parts = tables.writers.c, tables.layer_tables.c
    own = [c[field.name] for field in dataclasses.fields(Stream) if field.name != "tables"]
    arrived = select(func.count()).where(parts.writer == c.id).scalar_subquery().label("tables")
    chosen = select(*own, arrived).where(c.run == run, c.state != "deleted")
    rows = await connection.execute(chosen.order_by(c.attempt, c.rank, c.id))
    return [Stream(**row._mapping) for row in rows]


@dataclass(frozen=True, slots=True)
class Stored:
    """Some steps of a writer as one transaction saw them."""

    packed: list[bytes]
    fresh: list[bytes]
    tiles: list[tuple[int, int, bytes]]  # part, first step, data
    frames: list[frames.Frame]


async def load_stored(connection: AsyncConnection, stream: Stream, first: int, last: int, *, layers: bool) -> Stored:
    """All that holds a step from first to last: heads, tiles (where layers are wanted), and what is not yet sealed."""
    tiled = await _load_tiles(connection, stream, (LAYERS, 2**31 - 1), first, last) if layers else []
    return Stored(
        [data for _, _, data in await _load_tiles(connection, stream, (HEAD, HEAD), first, last)],
        [data for _, _, data in await _load_tiles(connection, stream, (FRESH_HEAD, FRESH_HEAD), first, last)],
        tiled,
        await _load_frames(connection, stream, Kind.STEPS, first, last),
    )


async def _load_tiles(
    connection: AsyncConnection, stream: Stream, parts: tuple[int, int], first: int, last: int
) -> list[tuple[int, int, bytes]]:
    c = tables.tiles.c
    widest = PACKED if parts[1] < FRESH_HEAD else BLOCK
    mine = (c.writer == stream.id) & c.part.between(*parts)
    near = c.first.between(first - widest + 1, last) & (c.last >= first)
    rows = await connection.execute(select(c.part, c.first, c.data).where(mine & near).order_by(c.part, c.first))
    return [(part, start, bytes(data)) for part, start, data in rows]


async def _load_frames(
    connection: AsyncConnection, stream: Stream, kind: Kind, first: int, last: int
) -> list[frames.Frame]:
    c = tables.frames.c
    span = stream.steps_span if kind is Kind.STEPS else stream.scalars_span
    mine = (c.writer == stream.id) & (c.kind == int(kind))
    overlap = (c.first_step >= first - span) & (c.first_step <= last) & (c.last_step >= first)
    rows = await connection.scalars(select(c.data).where(mine & overlap).order_by(c.seq))
    return [frames.decode(data) for data in rows.all()]


async def read_steps(
    engine: AsyncEngine, books: Books, stream: Stream, first: int, last: int, *, layers: bool = True
) -> StepRows:
    """The step rows from first to last, each step once, in step order; without ``layers`` their scalars alone."""
    async with engine.connect() as connection:
        stored = await load_stored(connection, stream, first, last, layers=layers)
    book = await books.for_frames(stream.id, stored.frames)
    return (await asyncio.to_thread(assemble, stored, book, (first, last), layers=layers)).rows


def assemble(stored: Stored, book: LayerBook, steps: tuple[int, int], *, layers: bool) -> SealedRows:
    """The rows from step to step that were stored, of two rows of a step the one with the higher seq."""
    first, last = steps
    width = len(book.layers) if layers else 0
    parts = []
    if stored.packed or stored.fresh:
        parts.append(sealed_rows(stored, width, first // BLOCK * BLOCK, (last // BLOCK + 1) * BLOCK))
    for frame in stored.frames:
        rows = decode_steps(frame, book.tables[frame.header["table"]], width)
        parts.append(SealedRows(rows, np.full(len(rows.steps), frame.header["seq"], np.int64)))
    whole = joined_rows(parts, width)
    low, high = whole.rows.steps.searchsorted([first, last + 1]).tolist()
    return whole if low == 0 and high == len(whole.seqs) else whole.take(slice(low, high))


def sealed_rows(stored: Stored, width: int, begin: int, end: int) -> SealedRows:
    """Sealed rows of whole blocks from ``begin`` to before ``end``."""
    fresh = [unpack_head(data) for data in stored.fresh]
    redone = np.unique(np.concatenate([np.zeros(0, np.int64), *(head.rows.steps // BLOCK for head in fresh)]))
    parts = []
    for head in map(unpack_head, stored.packed):
        # A block that was sealed once more has its tiles by its fresh head's rows.
        stale = np.isin(head.rows.steps // BLOCK, redone)
        parts.append(head.take(~stale) if stale.any() else head)
    heads = joined_rows([*parts, *fresh], 0)
    low, high = heads.rows.steps.searchsorted([begin, end]).tolist()
    heads = heads.take(slice(low, high))
    if not width:
        return heads
    values, present = _layers(stored.tiles, heads.rows.steps, width)
    return SealedRows(dataclasses.replace(heads.rows, layers=values, present=present), heads.seqs)


def _layers(tiles: Sequence[tuple[int, int, bytes]], steps: Steps, width: int) -> tuple[NDArray[Any], Mask | None]:
    unpacked = [(part - LAYERS, first, *unpack_layers(data)) for part, first, data in tiles]
    dtype = np.result_type(np.float32, *(table.dtype for _, _, table, _ in unpacked))
    values = np.zeros((len(steps), width), dtype)
    present = np.zeros(values.shape, np.bool_)
    for chunk, first, table, there in unpacked:
        rows = slice(*steps.searchsorted([first, first + BLOCK]).tolist())
        series = slice(chunk * CHUNK, chunk * CHUNK + table.shape[1])
        most = max(0, width - series.start)  # layers may have come after the book was read
        values[rows, series] = table[:, :most]
        present[rows, series] = True if there is None else there[:, :most]
    return values, None if present.all() else present


async def read_user(engine: AsyncEngine, stream: Stream, first: int, last: int) -> ScalarRows:
    """What the user logged at steps from first to last, by series and step."""
    async with engine.connect() as connection:
        sealed, hot = await load_user(connection, stream, first, last)
    return joined_user([part.between(first, last) for part in [*sealed, *map(decode_scalars, hot)]])


async def load_user(
    connection: AsyncConnection, stream: Stream, first: int, last: int
) -> tuple[list[ScalarRows], list[frames.Frame]]:
    """What holds a logged value at a step from first to last: sealed parts, and frames not yet sealed."""
    sealed = [
        unpack_user(data)
        for part in (USER, FRESH_USER)
        for _, _, data in await _load_tiles(connection, stream, (part, part), first, last)
    ]
    return sealed, await _load_frames(connection, stream, Kind.SCALARS, first, last)


async def step_pieces(
    engine: AsyncEngine, books: Books, stream: Stream, first: int, last: int, *, layers: bool = True
) -> AsyncIterator[tuple[int, int, StepRows]]:
    """Pieces of first..last that take bounded memory: (first step, last step, rows)."""
    first, last = max(first, stream.first_step or 0), min(last, -1 if stream.last_step is None else stream.last_step)
    while first <= last:
        width = len((await books.of(stream)).layers) if layers else 0
        blocks = max(1, PIECE_BYTES // (4 * width + 200) // BLOCK)
        # A viewer's few newest steps are asked for ten times a second, and fit into a piece wherever they lie.
        end = last if last - first < blocks * BLOCK else min(last, await _piece_end(engine, stream, first, blocks))
        yield first, end, await read_steps(engine, books, stream, first, end, layers=layers)
        first = end + 1


async def _piece_end(engine: AsyncEngine, stream: Stream, first: int, most: int) -> int:
    """The last step of a piece from ``first`` on that holds about ``most`` blocks, however far these lie apart."""
    t, f = tables.tiles.c, tables.frames.c
    weights: dict[int, int] = {}
    async with engine.connect() as connection:
        for part in (HEAD, USER, FRESH_HEAD, FRESH_USER):
            mine = (t.writer == stream.id) & (t.part == part) & (t.first > first)
            weight = PACKED // BLOCK if part in (HEAD, USER) else 1
            found = await connection.scalars(select(t.first).where(mine).order_by(t.first).limit(most // weight + 1))
            weights |= {start: weight for start in found.all() if weights.get(start, 0) < weight}
        for kind in (Kind.STEPS, Kind.SCALARS):
            hot = (f.writer == stream.id) & (f.kind == int(kind)) & (f.first_step > first)
            # By the frame, of which there may be hundreds in a block: those left out are read with a later piece.
            starts = select(f.first_step).where(hot).order_by(f.first_step).limit(most * _FRAMES_OF_A_BLOCK)
            for start in (await connection.scalars(starts)).all():
                weights.setdefault(start // BLOCK * BLOCK, 1)
    held = 1
    for start in sorted(weights):
        held += weights[start]
        if held > most and start > first:
            return start - 1
    return max(first, frames.MAX_COUNT)


async def load_buckets(
    connection: AsyncConnection, writer: int, level: int, parts: tuple[int, int], buckets: tuple[int, int]
) -> list[tuple[int, int, bytes]]:
    """Rows (part, packed, data) of a level and parts from..to that may hold buckets from..to; packed ones first."""
    c = tables.pyramid.c
    mine = (c.writer == writer) & (c.level == level) & c.part.between(*parts)
    near = c.first.between(buckets[0] - GROUP + 1, buckets[1])
    rows = await connection.execute(select(c.part, c.packed, c.data).where(mine & near))
    return sorted(((part, packed, bytes(data)) for part, packed, data in rows), key=lambda row: (-row[1], row[0]))


async def load_dirty(connection: AsyncConnection, writer: int) -> list[tuple[int, int]]:
    """(level, bucket) of a writer whose pyramid is behind its frames."""
    c = tables.dirty.c
    rows = await connection.execute(select(c.level, c.bucket).where(c.writer == writer, c.level > 0))
    return [(level, bucket) for level, bucket in rows]
