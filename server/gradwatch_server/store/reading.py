"""Stored frames and buckets of one writer, read in bounded pieces and short transactions."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass

from gradwatch import frames
from gradwatch.frames import Kind
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from . import tables
from .decode import ScalarRows, StepRows, decode_scalars, decode_steps, join_steps
from .registry import LayerBook, load_book

PIECE_BYTES = 8 << 20  # decoded at a time
# At most, of one kind: histograms of MAX_LAYERS layers take some 40 of the 128 KiB that a hook gives a frame.
FRAMES_OF_A_STEP = 64


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
                book = self._books[writer] = await load_book(connection, writer)
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


async def load_frames(
    connection: AsyncConnection, stream: Stream, kind: Kind, first: int, last: int
) -> list[frames.Frame]:
    """Frames of ``kind`` that hold a step from first to last, in seq order."""
    c = tables.frames.c
    span = stream.steps_span if kind is Kind.STEPS else stream.scalars_span
    mine = (c.writer == stream.id) & (c.kind == int(kind))
    overlap = (c.first_step >= first - span) & (c.first_step <= last) & (c.last_step >= first)
    rows = await connection.scalars(select(c.data).where(mine & overlap).order_by(c.seq))
    return [frames.decode(data) for data in rows.all()]


async def read_steps(engine: AsyncEngine, books: Books, stream: Stream, first: int, last: int) -> StepRows:
    """The step rows from first to last, each step once, in step order."""
    async with engine.connect() as connection:
        found = await load_frames(connection, stream, Kind.STEPS, first, last)
    book = await books.for_frames(stream.id, found)
    return await asyncio.to_thread(_rows_between, found, book, first, last)


def _rows_between(found: list[frames.Frame], book: LayerBook, first: int, last: int) -> StepRows:
    width = len(book.layers)
    parts = [decode_steps(frame, book.tables[frame.header["table"]], width) for frame in found]
    rows = join_steps(parts, width)
    low, high = rows.steps.searchsorted([first, last + 1])
    return rows if low == 0 and high == len(rows.steps) else rows.take(slice(int(low), int(high)))


async def read_user(engine: AsyncEngine, stream: Stream, first: int, last: int) -> list[ScalarRows]:
    """Frames of user-logged series that hold a step from first to last, in seq order."""
    if stream.scalars_span == 0 and stream.first_step is None:
        return []
    async with engine.connect() as connection:
        found = await load_frames(connection, stream, Kind.SCALARS, first, last)
    return [decode_scalars(frame) for frame in found]


async def step_pieces(
    engine: AsyncEngine, books: Books, stream: Stream, first: int, last: int
) -> AsyncIterator[tuple[int, int, StepRows]]:
    """Pieces of first..last that take bounded memory: (first step, last step, rows)."""
    first, last = max(first, stream.first_step or 0), min(last, -1 if stream.last_step is None else stream.last_step)
    while first <= last:
        width = len((await books.of(stream)).layers)
        end = min(last, first + max(64, PIECE_BYTES // (4 * width + 100)) - 1)
        yield first, end, await read_steps(engine, books, stream, first, end)
        first = end + 1


async def load_samples(
    engine: AsyncEngine, stream: Stream, kind: int, steps: tuple[int, int], most: tuple[int, int]
) -> tuple[list[frames.Frame], bool]:
    """Frames of a stored kind that hold a step from..to, and whether some were left out.

    ``most``: about so many frames and bytes. Where there are more, those read are spread evenly over the steps.
    """
    (first, last), c = steps, tables.frames.c
    mine = (c.writer == stream.id) & (c.kind == kind) & (c.last_step >= first)
    overlap = mine & c.first_step.between(first - stream.scalars_span, last)
    async with engine.connect() as connection:
        total = await connection.scalar(select(func.count()).where(overlap)) or 0
        width = 1 if total <= most[0] else -(-(last - first + stream.scalars_span + 1) // most[0])
        # Reads the index alone, so that a million frames cost no more than their counting.
        groups = select(func.min(c.first_step)).where(overlap).group_by(c.first_step // width)
        starts = sorted((await connection.scalars(groups)).all())
    order = [starts[at] for at in _coarse_to_fine(len(starts))]
    found: list[tuple[int, frames.Frame]] = []
    size = done = 0
    while done < len(order) and len(found) < most[0] and size < most[1]:
        # As many steps as will fit by the size of those before; begins with one.
        some = max(1, min(200, (most[1] - size) * done // size if size else 1))
        chunk = order[done : done + some]
        done += some
        # Unordered, else SQLite would go through the whole writer in the wanted order.
        chosen = select(c.seq, c.data).where(mine, c.first_step.in_(chunk)).limit(FRAMES_OF_A_STEP * some)
        async with engine.connect() as connection:
            rows = (await connection.execute(chosen)).all()
        size += sum(len(row.data) for row in rows)
        found += await asyncio.to_thread(lambda rows=rows: [(row.seq, frames.decode(row.data)) for row in rows])  # type: ignore[misc]
    found.sort(key=lambda pair: pair[0])
    return [frame for _, frame in found], len(found) < total


def _coarse_to_fine(count: int) -> list[int]:
    """The numbers below ``count``, so ordered that any beginning of them is spread evenly: 0, then the half, quarters.

    They are sorted by their bits in reverse (the sequence of van der Corput).
    """
    bits = max(1, (count - 1).bit_length())
    return sorted(range(count), key=lambda number: int(f"{number:0{bits}b}"[::-1], 2))


async def load_buckets(
    connection: AsyncConnection, writer: int, level: int, parts: tuple[int, int], buckets: tuple[int, int]
) -> list[tuple[int, int, bytes]]:
    """Stored rows (part, bucket, data) of a level, parts and buckets from..to."""
    c = tables.rollups.c
    mine = (c.writer == writer) & (c.level == level) & c.part.between(*parts) & c.bucket.between(*buckets)
    rows = await connection.execute(select(c.part, c.bucket, c.data).where(mine).order_by(c.part, c.bucket))
    return [(part, bucket, bytes(data)) for part, bucket, data in rows]


async def load_dirty(connection: AsyncConnection, writer: int) -> list[tuple[int, int]]:
    """(level, bucket) of a writer whose roll-up is behind its frames."""
    c = tables.dirty.c
    rows = await connection.execute(select(c.level, c.bucket).where(c.writer == writer))
    return [(level, bucket) for level, bucket in rows]
