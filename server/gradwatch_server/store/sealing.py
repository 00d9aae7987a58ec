"""Sealing: the frames of blocks that are past become tiles and the two finest levels of the pyramid, and go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from gradwatch.frames import Frame, Kind
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from . import pyramid, reading, reduction, sealed, tables, upsert
from .decode import ScalarRows, StepRows, decode_scalars, step_numbers
from .marks import Mark, clear, follow, runs_of
from .modules import Modules, modules_of
from .pyramid import FANOUT, FINEST, Buckets
from .reading import Books, Stored, Stream
from .registry import LayerBook
from .tiles import BLOCK, FRESH_HEAD, FRESH_USER, SealedRows, joined_user, pack_head, pack_user, tiles_of

_FRAMES_AT_ONCE: Final = 500  # deleted by one statement


@dataclass(frozen=True, slots=True)
class HotFrame:
    """A frame that was read, and the blocks it touches."""

    seq: int
    checksum: int
    blocks: frozenset[int]


@dataclass(slots=True)
class Work:
    """Rows to write for some blocks of a writer, the tiles there are, and the frames that went into them."""

    tiles: list[dict[str, Any]] = field(default_factory=list)
    before: list[tuple[int, int]] = field(default_factory=list)  # part, first step
    pyramid: list[dict[str, Any]] = field(default_factory=list)
    frames: list[HotFrame] = field(default_factory=list)


async def prepare(engine: AsyncEngine, books: Books, stream: Stream, marks: Sequence[Mark]) -> Work:
    """Read the marked blocks and encode what they become."""
    work = Work()
    for low, high in runs_of(marks):
        first, last = low * BLOCK, (high + 1) * BLOCK - 1
        async with engine.connect() as connection:
            stored = await reading.load_stored(connection, stream, first, last, layers=True)
            user, logged = await reading.load_user(connection, stream, first, last)
        book = await books.for_frames(stream.id, stored.frames)
        await asyncio.to_thread(_encode, work, stream, (first, last), stored, book, (user, logged))
    return work


async def keep(connection: AsyncConnection, stream: Stream, marks: Sequence[Mark], work: Work) -> None:
    """Write the work down; nothing where the run was deleted meanwhile."""
    w, d = tables.writers.c, tables.dirty.c
    if await connection.scalar(select(w.state).where(w.id == stream.id)) == "deleted":
        return
    await _take_tiles(connection, stream.id, work)
    await upsert.replace(connection, tables.tiles, work.tiles)
    await upsert.replace(connection, tables.pyramid, work.pyramid)
    await clear(connection, stream.id, marks)
    # What came since the reading keeps its block marked, and every frame in that block in the hot log.
    dirty = set(await connection.scalars(select(d.bucket).where(d.writer == stream.id, d.level == BLOCK)))
    gone = {frame.seq: frame.checksum for frame in work.frames if not frame.blocks & dirty}
    await _take_away(connection, stream.id, sorted(gone))
    await sealed.remember(connection, stream.id, sorted(gone.items()))
    blocks = [mark.bucket for mark in marks]
    await follow(connection, stream.id, FINEST, [block * FANOUT for block in blocks])
    await follow(connection, stream.id, BLOCK, blocks)


async def _take_tiles(connection: AsyncConnection, writer: int, work: Work) -> None:
    """Those that are not written anew: a step that was repeated has none of their layers any more."""
    t, new = tables.tiles.c, {(row["part"], row["first"]) for row in work.tiles}
    for part, first in work.before:
        if (part, first) not in new:
            mine = (t.writer == writer) & (t.part == part) & (t.first == first)
            await connection.execute(tables.tiles.delete().where(mine))


async def _take_away(connection: AsyncConnection, writer: int, seqs: Sequence[int]) -> None:
    f = tables.frames.c
    for start in range(0, len(seqs), _FRAMES_AT_ONCE):
        some = seqs[start : start + _FRAMES_AT_ONCE]
        await connection.execute(tables.frames.delete().where(f.writer == writer, f.seq.in_(some)))


def _encode(
    work: Work,
    stream: Stream,
    steps: tuple[int, int],
    stored: Stored,
    book: LayerBook,
    logged: tuple[Sequence[ScalarRows], Sequence[Frame]],
) -> None:
    whole = reading.assemble(stored, book, steps, layers=True)
    parts = [*logged[0], *(decode_scalars(frame) for frame in logged[1])]
    user = joined_user([part.between(*steps) for part in parts])
    modules = modules_of([layer.name for layer in book.layers[: whole.rows.layers.shape[1]]])
    blocks = np.union1d(whole.rows.steps // BLOCK, user.steps // BLOCK)
    for block in blocks.tolist():
        first, last = block * BLOCK, block * BLOCK + BLOCK - 1
        low, high = whole.rows.steps.searchsorted([first, last + 1]).tolist()
        _encode_block(work, stream, block, whole.take(slice(low, high)), user.between(first, last), modules)
    work.before += [(part, start) for part, start, _ in stored.tiles]
    work.frames += [_hot(frame, book) for frame in [*stored.frames, *logged[1]]]


def _hot(frame: Frame, book: LayerBook) -> HotFrame:
    if frame.kind is Kind.STEPS:
        steps = step_numbers(frame, book.tables[frame.header["table"]])
    else:
        steps = decode_scalars(frame).steps
    return HotFrame(frame.header["seq"], frame.checksum, frozenset(np.unique(steps // BLOCK).tolist()))


def _encode_block(work: Work, stream: Stream, block: int, rows: SealedRows, user: ScalarRows, modules: Modules) -> None:
    first = block * BLOCK
    said: list[tuple[int, bytes]] = []
    time = float(rows.rows.times[-1]) if len(rows.seqs) else None
    if len(rows.seqs):
        said.append((FRESH_HEAD, pack_head(rows)))
    if first >= stream.thinned_to:  # else what is left of the layers is in the pyramid, and stays there
        said += tiles_of(rows.rows)
    if len(user.steps):
        said.append((FRESH_USER, pack_user(joined_user([user]))))
    key = {"writer": stream.id, "first": first, "last": first + BLOCK - 1, "time": time}
    work.tiles += [{**key, "part": part, "data": data} for part, data in said]
    for part, finest, dtype in _finest(stream, rows.rows, user, modules):
        for level, some in ((FINEST, finest), (BLOCK, finest.coarser(FANOUT))):
            row = {"writer": stream.id, "level": level, "part": part, "first": first // level, "packed": 0}
            work.pyramid.append(row | {"data": pyramid.pack(some, level, dtype)})


def _finest(stream: Stream, rows: StepRows, user: ScalarRows, modules: Modules) -> list[tuple[int, Buckets, str]]:
    """(part, buckets, type) of the finest level of a block."""
    found = []
    if len(rows.steps):
        found.append((pyramid.SCALARS, reduction.scalars_of(rows, FINEST, moments=True), "<f8"))
        dtype = "<f8" if rows.layers.dtype == np.float64 else "<f4"
        if rows.layers.shape[1] and rows.steps[0] >= stream.thinned_to:
            layers = reduction.layers_of(rows, FINEST, moments=True)
            found.append((pyramid.LAYERS, pyramid.trimmed(layers), dtype))
            owners = reduction.modules_of_rows(rows, modules, stream.norm_type, FINEST)
            found.append((pyramid.MODULES, pyramid.trimmed(owners), dtype))
    logged = reduction.user_of(user, FINEST, moments=True)
    if logged:
        found.append((pyramid.USER, pyramid.joined(logged), "<f8"))
    return found
